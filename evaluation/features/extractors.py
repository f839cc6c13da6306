"""Features, classes and logits of uint8 images, as a frozen network sees them.

``load_extractor`` checks the weights' SHA-256 before it reads them. Images are cut into batches
in order and run in evaluation mode, so a result depends on its own image only (up to the
rounding of a differently shaped matrix product).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from evaluation.features import catalog
from evaluation.features.catalog import ExtractorError, available
from evaluation.features.classifier import Classifier, to_unit_range
from evaluation.features.network import FeatureNetwork
from evaluation.features.weights import locate_weights

__all__ = [
    "ExtractorError", "FeatureExtractor", "Features", "activation_dtype", "available", "load_extractor",
    "read_extractor", "to_unit_range",
]

Device = str | torch.device


class Features(NamedTuple):
    """What an extractor sees in N images.

    ``features`` float32 (N, D); ``predictions`` int64 (N,), the likeliest class; ``logits``
    float32 (N, classes), unnormalised log-probabilities. The latter two are None without a classifier.
    """

    features: NDArray[np.float32]
    predictions: NDArray[np.int64] | None
    logits: NDArray[np.float32] | None


class FeatureExtractor:
    """A frozen network with a name and the SHA-256 of the file its weights were read from."""

    def __init__(self, name: str, sha256: str, network: FeatureNetwork, device: Device = "cpu") -> None:
        self.name, self.sha256, self.device = name, sha256, torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)

    @property
    def num_features(self) -> int:
        """Dimension D of the feature space."""
        return self.network.num_features

    @property
    def resize(self) -> str:
        """Grid and filter an image goes through first; "none" where it is seen as it is."""
        return self.network.resize

    @cached_property
    def dtype(self) -> str:
        """Type the network computes in, as seen on its activations, e.g. "float32"."""
        return activation_dtype(self.network, self.network.example().to(self.device))

    @torch.inference_mode()
    def extract(self, images: NDArray[np.uint8] | torch.Tensor, batch_size: int | None = None) -> Features:
        """Look at images, uint8 (N, C, H, W); ``ValueError`` if they are not of the extractor's format."""
        batch_size = self.network.batch_size if batch_size is None else batch_size
        self._check(images, batch_size)
        features, logits = [], []
        for batch in torch.as_tensor(images).split(batch_size):
            seen = self.network.look(batch.to(self.device))
            features.append(seen.features.float().cpu())
            if seen.logits is not None:
                logits.append(seen.logits.float().cpu())
        if not logits:
            return Features(torch.cat(features).numpy(), None, None)
        scores = torch.cat(logits).numpy()
        return Features(torch.cat(features).numpy(), scores.argmax(1).astype(np.int64), scores)

    def _check(self, images: NDArray[np.uint8] | torch.Tensor, batch_size: int) -> None:
        dtype = str(images.dtype).removeprefix("torch.")
        if dtype != "uint8" or images.ndim != 4 or not self.network.fits(tuple(images.shape[1:])) or len(images) == 0:
            raise ValueError(
                f"extractor {self.name!r} takes uint8 images (N, {', '.join(self.network.takes())}) with N >= 1, "
                f"not {dtype} {tuple(images.shape)}"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")


def activation_dtype(network: FeatureNetwork, images: torch.Tensor) -> str:
    """Types of what convolutions and linear maps give out on uint8 images (1, C, H, W), joined by "+"."""
    seen: set[str] = set()

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.add(str(output.dtype).removeprefix("torch."))

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.inference_mode():
            network.look(images)
    finally:
        for hook in hooks:
            hook.remove()
    return "+".join(sorted(seen))


def load_extractor(name: str, device: Device = "cpu", weights: Path | None = None) -> FeatureExtractor:
    """An extractor by name.

    Args:
        name: One of ``available()``.
        device: Where it runs.
        weights: A file to use instead of the known one; the extractor's ``sha256`` is then this file's.

    Raises:
        ExtractorError: One sentence: unknown name, weights that are damaged, missing or of another network.
    """
    if name in catalog.shipped():
        return read_extractor(weights or catalog.weights_path(name), device)
    if weights is None:
        path, sha256 = locate_weights(name)
    else:
        catalog.check_name(name)
        path, sha256 = weights, catalog.file_sha256(weights)
    return FeatureExtractor(name, sha256, _pretrained(name, path), device)


def read_extractor(weights: Path, device: Device = "cpu") -> FeatureExtractor:
    """A classifier from its weights file and the card beside it, after checking the checksum."""
    sha256 = catalog.verify_file(weights)
    network = Classifier(**catalog.read_card(weights)["architecture"])
    network.load_state_dict(load_file(weights))
    return FeatureExtractor(weights.stem, sha256, network, device)


def _pretrained(name: str, weights: Path) -> FeatureNetwork:
    if name == catalog.EFFICIENTNET:
        from evaluation.features import efficientnet

        return efficientnet.load_network(weights)
    if name in catalog.DINOV2:
        from evaluation.features import dinov2

        return dinov2.load_network(name, weights)
    from evaluation.features import fidelity_networks  # importing torch-fidelity takes a second

    return fidelity_networks.load_network(name, weights)
