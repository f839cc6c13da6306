"""Generator and discriminator of R3GAN, mirrored, without normalisation.

Huang et al. 2024 (arXiv:2501.05441), Sec. 4: residual blocks with leaky ReLU, zero-initialised
last convolutions, resampling on the main path, class embedding in the latent and a projection
discriminator. Deviations: dense 3x3 convolutions instead of grouped ones and pixel (un)shuffle at
the image side, because grouped and high-resolution convolutions leave CPU cores idle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.nets.unet import zero_init

SLOPE = 0.2
LEVELS = 2


def scaled_conv(in_channels: int, out_channels: int, size: int, gain: float = 1.0) -> nn.Conv2d:
    """Convolution initialised to keep the variance behind a leaky ReLU, times ``gain``."""
    conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE)
    nn.init.zeros_(conv.bias)
    with torch.no_grad():
        conv.weight.mul_(gain)
    return conv


class ResidualBlock(nn.Module):
    """x + conv(act(conv(act(x)))); fix-up initialisation (Zhang et al. 2019, arXiv:1901.09321)."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.conv1 = scaled_conv(channels, channels, 3, gain=depth**-0.5)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, SLOPE)), SLOPE))


class Generator(nn.Module):
    """Latent (B, latent_dim) and label (B,) to an image (B, C, H, W), unbounded."""

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, *, latent_dim: int, width: int, blocks: int,
        patch_size: int,
    ) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        factor = patch_size * 2 ** (LEVELS - 1)
        if height % factor or breadth % factor:
            raise ValueError(f"height and width must be divisible by {factor}, not {height}x{breadth}")
        deep, depth = width * 2 ** (LEVELS - 1), LEVELS * blocks
        self.start = (deep, height // factor, breadth // factor)
        self.label = nn.Embedding(num_classes, latent_dim)
        self.basis = nn.Linear(2 * latent_dim, math.prod(self.start))
        self.body = nn.Sequential(
            *[ResidualBlock(deep, depth) for _ in range(blocks)],
            nn.Conv2d(deep, width, 1, bias=False), nn.Upsample(scale_factor=2, mode="bilinear"),
            *[ResidualBlock(width, depth) for _ in range(blocks)],
            nn.Conv2d(width, channels * patch_size**2, 3, padding=1), nn.PixelShuffle(patch_size),
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        h = self.basis(torch.cat([z, self.label(labels)], dim=1)).reshape(-1, *self.start)
        return self.body(h.contiguous(memory_format=torch.channels_last)).contiguous()


class Discriminator(nn.Module):
    """Image (B, C, H, W) and label (B,) to a logit (B,): <features(x), embedding(label)> / sqrt(d)."""

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, *, width: int, blocks: int, patch_size: int
    ) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        factor = patch_size * 2 ** (LEVELS - 1)
        deep, depth = width * 2 ** (LEVELS - 1), LEVELS * blocks
        self.embed_dim = deep
        self.body = nn.Sequential(
            nn.PixelUnshuffle(patch_size), scaled_conv(channels * patch_size**2, width, 3),
            *[ResidualBlock(width, depth) for _ in range(blocks)],
            nn.AvgPool2d(2), nn.Conv2d(width, deep, 1, bias=False),
            *[ResidualBlock(deep, depth) for _ in range(blocks)],
            nn.LeakyReLU(SLOPE), nn.Flatten(), nn.Linear(deep * (height // factor) * (breadth // factor), deep),
        )
        self.label = nn.Embedding(num_classes, deep)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        features = self.body(x.contiguous(memory_format=torch.channels_last))  # (B, d)
        return (features * self.label(labels)).sum(1) / math.sqrt(self.embed_dim)
