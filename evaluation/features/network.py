"""What a feature extractor needs of a network, and what is common to those trained on ImageNet.

The latter take photographs: greyscale images are repeated to three channels, as users of torch-fidelity
and torchmetrics do, and each network resizes an image of any size to its own grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Seen(NamedTuple):
    """What a network makes of a batch: features (B, D), and logits (B, classes) where it has a head."""

    features: Tensor
    logits: Tensor | None


class FeatureNetwork(nn.Module, ABC):
    """A network that sees uint8 images.

    ``resize`` names grid and filter an image goes through first, ``batch_size`` is how many images are
    looked at together unless told otherwise: a matter of memory, not of the result.
    """

    num_features: int
    resize: str = "none"
    batch_size: int = 32

    @abstractmethod
    def look(self, images: Tensor) -> Seen:
        """Features of uint8 images (B, C, H, W), whose shape ``takes`` allows."""

    @abstractmethod
    def takes(self) -> tuple[str, str, str]:
        """What C, H and W may be: a number, "1 or 3", or a letter for anything."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether images of a shape (C, H, W) are allowed."""
        return len(shape) == 3 and all(
            str(size) in wanted.split(" or ") or (wanted.isalpha() and size > 0)
            for size, wanted in zip(shape, self.takes(), strict=True)
        )

    def example(self) -> Tensor:
        """A grey uint8 image (1, C, H, W) of the least size it takes."""
        sizes = [8 if wanted.isalpha() else int(wanted.split(" or ")[0]) for wanted in self.takes()]
        return torch.full((1, *sizes), 128, dtype=torch.uint8)


class PhotographNetwork(FeatureNetwork):
    """A network for RGB images of any size; grey ones are shown as RGB with equal channels."""

    def takes(self) -> tuple[str, str, str]:
        """Grey or RGB, any size."""
        return "1 or 3", "H", "W"

    def look(self, images: Tensor) -> Seen:
        """Features of uint8 images (B, 1 or 3, H, W)."""
        return self.look_rgb(images.expand(-1, 3, -1, -1))

    @abstractmethod
    def look_rgb(self, images: Tensor) -> Seen:
        """Features of uint8 images (B, 3, H, W)."""
