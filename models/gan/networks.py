"""Generator and discriminator of R3GAN, mirrored, without normalisation.

Huang et al. 2024 (arXiv:2501.05441), Sec. 4: residual blocks with leaky ReLU, zero-initialised last convolutions,
resampling on the main path, class embedding in the latent and a projection discriminator. Deviations: blocks of two
dense 3x3 convolutions behind their activations instead of 1x1, grouped 3x3 and 1x1 with twice the channels inside,
and pixel (un)shuffle at the image side, because grouped and high-resolution convolutions leave CPU cores idle; means
of four pixels where it filters before halving; plain linear maps from the latent and to the features; biases; images
end in tanh, which measures better (``tests/benchmarks/README.md``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.nets.unet import zero_init

SLOPE = 0.2


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


def num_levels(height: int, width: int) -> int:
    """Resolutions of a network: both sides are halved while they are even and above 4; two at least."""
    levels = 1
    while height % 2 == 0 and width % 2 == 0 and min(height, width) > 4:
        height, width, levels = height // 2, width // 2, levels + 1
    return max(levels, 2)


@dataclass(frozen=True)
class Pyramid:
    """Channels from the finest level to the deepest, doubled at each, and the grid (channels, rows, columns) there."""

    channels: tuple[int, ...]
    deepest: tuple[int, int, int]

    @classmethod
    def of(cls, image_shape: tuple[int, int, int], width: int, patch_size: int) -> Pyramid:
        """For images (C, H, W), (un)shuffled by ``patch_size``; ``ValueError`` if they cannot be halved so often."""
        _, height, breadth = image_shape
        levels = num_levels(height // patch_size, breadth // patch_size)
        factor = patch_size * 2 ** (levels - 1)
        if height % factor or breadth % factor:
            raise ValueError(f"height and width must be divisible by {factor}, not {height}x{breadth}")
        channels = tuple(width * 2**level for level in range(levels))
        return cls(channels, (channels[-1], height // factor, breadth // factor))


class Generator(nn.Module):
    """Latent (B, latent_dim) and label (B,) to an image (B, C, H, W) in [-1, 1]."""

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, *, latent_dim: int, width: int, blocks: int,
        patch_size: int,
    ) -> None:
        super().__init__()
        pyramid = Pyramid.of(image_shape, width, patch_size)
        self.latent_dim, self.start = latent_dim, pyramid.deepest
        depth = len(pyramid.channels) * blocks
        self.label = nn.Embedding(num_classes, latent_dim)
        self.basis = nn.Linear(2 * latent_dim, math.prod(self.start))
        layers: list[nn.Module] = []
        for level in reversed(range(len(pyramid.channels))):
            channels = pyramid.channels[level]
            layers += [ResidualBlock(channels, depth) for _ in range(blocks)]
            if level:
                layers += [
                    nn.Conv2d(channels, pyramid.channels[level - 1], 1, bias=False),
                    nn.Upsample(scale_factor=2, mode="bilinear"),
                ]
        last = nn.Conv2d(width, image_shape[0] * patch_size**2, 3, padding=1)
        self.body = nn.Sequential(*layers, last, nn.PixelShuffle(patch_size), nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        h = self.basis(torch.cat([z, self.label(labels)], dim=1)).reshape(-1, *self.start)
        return self.body(h.contiguous(memory_format=torch.channels_last)).contiguous()


class Discriminator(nn.Module):
    """Image (B, C, H, W) and label (B,) to a logit (B,): <features(x), embedding(label)> / sqrt(d)."""

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, *, width: int, blocks: int, patch_size: int
    ) -> None:
        super().__init__()
        pyramid = Pyramid.of(image_shape, width, patch_size)
        self.embed_dim, depth = pyramid.channels[-1], len(pyramid.channels) * blocks
        layers: list[nn.Module] = [nn.PixelUnshuffle(patch_size), scaled_conv(image_shape[0] * patch_size**2, width, 3)]
        for level, channels in enumerate(pyramid.channels):
            if level:
                layers += [nn.AvgPool2d(2), nn.Conv2d(pyramid.channels[level - 1], channels, 1, bias=False)]
            layers += [ResidualBlock(channels, depth) for _ in range(blocks)]
        head = nn.Linear(math.prod(pyramid.deepest), self.embed_dim)
        self.body = nn.Sequential(*layers, nn.LeakyReLU(SLOPE), nn.Flatten(), head)
        self.label = nn.Embedding(num_classes, self.embed_dim)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        features = self.body(x.contiguous(memory_format=torch.channels_last))  # (B, d)
        return (features * self.label(labels)).sum(1) / math.sqrt(self.embed_dim)
