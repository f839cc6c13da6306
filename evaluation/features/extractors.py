"""Features, classes and logits of uint8 images, from a shipped classifier.

``load_extractor`` checks the weights' SHA-256 before it reads them. Images are cut into batches
in order and run in evaluation mode, so a result depends on its own image only (up to the
rounding of a differently shaped matrix product).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from evaluation.features import catalog
from evaluation.features.catalog import ExtractorError, available
from evaluation.features.classifier import Classifier

__all__ = ["ExtractorError", "FeatureExtractor", "Features", "available", "load_extractor"]

Device = str | torch.device


class Features(NamedTuple):
    """What an extractor sees in N images.

    ``features`` float32 (N, D); ``predictions`` int64 (N,), the likeliest class; ``logits``
    float32 (N, classes), unnormalised log-probabilities.
    """

    features: NDArray[np.float32]
    predictions: NDArray[np.int64]
    logits: NDArray[np.float32]


class FeatureExtractor:
    """A frozen classifier with a name and a checksum."""

    def __init__(self, name: str, sha256: str, network: Classifier, device: Device = "cpu") -> None:
        self.name, self.sha256, self.device = name, sha256, torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)

    @property
    def num_features(self) -> int:
        """Dimension D of the feature space."""
        return self.network.num_features

    @torch.inference_mode()
    def extract(self, images: NDArray[np.uint8] | torch.Tensor, batch_size: int = 500) -> Features:
        """Look at images, uint8 (N, C, H, W); ``ValueError`` if they are not of the extractor's format."""
        self._check(images, batch_size)
        pixels = torch.as_tensor(images)
        features, logits = [], []
        for batch in pixels.split(batch_size):
            seen = self.network(to_unit_range(batch.to(self.device)))
            features.append(seen.features.float().cpu())
            logits.append(seen.logits.float().cpu())
        scores = torch.cat(logits).numpy()
        return Features(torch.cat(features).numpy(), scores.argmax(1).astype(np.int64), scores)

    def _check(self, images: NDArray[np.uint8] | torch.Tensor, batch_size: int) -> None:
        size = self.network.image_size
        wanted = (self.network.channels, size, size)
        dtype = str(images.dtype).removeprefix("torch.")
        if dtype != "uint8" or images.ndim != 4 or tuple(images.shape[1:]) != wanted or len(images) == 0:
            raise ValueError(
                f"extractor {self.name!r} takes uint8 images (N, {', '.join(map(str, wanted))}) with N >= 1, "
                f"not {dtype} {tuple(images.shape)}"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 [-1, 1]."""
    return images.float() / 127.5 - 1


def load_extractor(name: str, device: Device = "cpu") -> FeatureExtractor:
    """A shipped extractor by name; ``ExtractorError`` if it is unknown or its files were changed."""
    return read_extractor(catalog.weights_path(name), device)


def read_extractor(weights: Path, device: Device = "cpu") -> FeatureExtractor:
    """An extractor from its weights file and the card beside it, after checking the checksum."""
    sha256 = catalog.verify_file(weights)
    network = Classifier(**catalog.read_card(weights)["architecture"])
    network.load_state_dict(load_file(weights))
    return FeatureExtractor(weights.stem, sha256, network, device)
