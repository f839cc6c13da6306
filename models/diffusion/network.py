"""The network that all members of the family share: one U-Net told the noise level and the label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.diffusion.augment import TOLD
from models.nets.embeddings import sinusoidal_embedding
from models.nets.unet import UNet

LEAST_MOMENT = 1e-6  # of data that are one grey


class NoiseConditionalUNet(nn.Module):
    """F(x, noise level, label): an image with ``out_channels`` channels from a noised one.

    ``sigma_data`` is measured from the data: the square root of E[x_0^2], about 0 because preconditioning and
    prior are derived for pixels about 0. ``told`` is the number of channels that go in beside the image's.
    """

    sigma_data: Tensor

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, *, width: int, blocks: int, patch_size: int,
        out_channels: int | None = None, augmented: bool = False, told: int = 0,
    ) -> None:
        super().__init__()
        self.register_buffer("sigma_data", torch.tensor(0.5))
        dim, channels = 4 * width, image_shape[0]
        self.embed_dim = width
        self.noise_mlp = nn.Sequential(nn.Linear(width, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = nn.Embedding(num_classes + 1, dim)  # the last row is "no label"
        self.augment = nn.Linear(TOLD, dim, bias=False) if augmented else None
        self.net = UNet(
            channels + told, out_channels or channels, width=width, blocks=blocks, vector_dim=dim, patch_size=patch_size
        )

    def measure(self, images: Tensor) -> None:
        """Set ``sigma_data`` from uint8 training images (N, C, H, W)."""
        self.sigma_data.fill_(max(second_moment(images), LEAST_MOMENT) ** 0.5)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor, augmented: Tensor | None = None) -> Tensor:
        """Image of unit variance to an image.

        Args:
            x: (B, C + told, H, W).
            c_noise: The noise level on a scale from 0 to about 1000, (B,).
            labels: int64 (B,).
            augmented: What was done to the images, (B, 3); nothing if not given.
        """
        vector = self.noise_mlp(sinusoidal_embedding(c_noise, self.embed_dim)) + self.label(labels)
        if self.augment is not None and augmented is not None:
            vector = vector + self.augment(augmented)
        return self.net(x, nn.functional.silu(vector))


def second_moment(images: Tensor) -> float:
    """E[x_0^2] of uint8 images (N, C, H, W) on the scale [-1, 1], from their histogram, exactly."""
    counts = torch.bincount(images.flatten().to(torch.uint8), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    return float((counts * levels.square()).sum() / counts.sum())
