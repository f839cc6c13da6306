"""A small convolutional classifier whose pooled activations are a feature space.

The features are the spatial mean of the last SiLU activations: smooth, never dead, and not yet
collapsed onto the classes, which is what a Fréchet distance wants (Heusel et al. 2017 use the
same layer of Inception-v3, arXiv:1706.08500).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.features.network import FeatureNetwork, Seen

__all__ = ["Classifier", "Seen", "to_unit_range"]


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [-1, 1]."""
    return images.float() / 127.5 - 1


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, SiLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.SiLU(),
        )


class Classifier(FeatureNetwork):
    """Two convolutions on each of three scales.

    Args:
        channels: Channels of the images.
        image_size: Height and width of the images, a multiple of ``patch``.
        num_classes: Number of classes.
        widths: Channels on the three scales; the last is the number of features.
        patch: Pixels are folded into channels by this factor first (28x28 -> 4 x 14x14 for 2).
    """

    batch_size = 500

    def __init__(
        self, channels: int, image_size: int, num_classes: int, widths: tuple[int, int, int], patch: int = 1
    ) -> None:
        super().__init__()
        self.channels, self.image_size, self.num_classes = channels, image_size, num_classes
        self.num_features, self.patch = widths[-1], patch
        first, second, last = widths
        self.fine = nn.Sequential(ConvBlock(channels * patch**2, first), ConvBlock(first, first))
        self.middle = nn.Sequential(ConvBlock(first, second), ConvBlock(second, second))
        self.coarse = ConvBlock(second, last)
        self.head = nn.Linear(last, num_classes)

    def forward(self, images: Tensor) -> Seen:
        """Classify float32 images in [-1, 1], (B, C, H, W)."""
        h = self.fine(F.pixel_unshuffle(images, self.patch))  # (B, first, H/p, W/p)
        h = self.middle(F.max_pool2d(h, 2))  # (B, second, H/2p, W/2p)
        h = self.coarse(F.max_pool2d(h, 2))  # (B, D, H/4p, W/4p)
        features = h.mean((2, 3))  # (B, D)
        return Seen(features, self.head(features))

    def look(self, images: Tensor) -> Seen:
        """Classify uint8 images (B, C, H, W)."""
        return self(to_unit_range(images))

    def takes(self) -> tuple[str, str, str]:
        """The one format it was trained on."""
        return str(self.channels), str(self.image_size), str(self.image_size)
