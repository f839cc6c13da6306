"""First stage: a convolutional encoder and decoder around the quantiser.

van den Oord et al. 2017 (arXiv:1711.00937) with the residual block of the U-Net. The loss is the
negative log-likelihood of a normalised decoder, so that what is trained is the second half of the
two-part code.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from models.base import Stage, rows_of_all, to_float
from models.nets.unet import ResBlock, group_norm
from models.vqvae.fsq import FSQ
from models.vqvae.likelihood import log_prob
from models.vqvae.quantizer import Quantized

MIXTURES = 4
PATCH = 2


def _down(in_width: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(in_width, width, 3, stride=2, padding=1), ResBlock(width, width)]


def _up(width: int, out_width: int) -> list[nn.Module]:
    return [ResBlock(width, width), nn.Upsample(scale_factor=2), nn.Conv2d(width, out_width, 3, padding=1)]


class Autoencoder(nn.Module):
    """Images in [-1, 1] to code indices, and back to the parameters of p(x | z).

    Args:
        image_shape: (C, H, W).
        width: Channels at half the image's resolution; doubled at each lower one.
        downsample: Pixels per code along each axis: 2, 4, 8, ...
        levels: Quantisation levels per code dimension.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], *, width: int, downsample: int, levels: tuple[int, ...]
    ) -> None:
        super().__init__()
        if downsample < 2 or downsample & (downsample - 1):
            raise ValueError(f"downsample must be a power of two of at least 2, not {downsample}")
        channels, height, breadth = image_shape
        if height % downsample or breadth % downsample:
            raise ValueError(f"downsample {downsample} does not divide the image size {height}x{breadth}")
        self.grids = ((height // downsample, breadth // downsample),)
        self.quantizer = FSQ(levels)
        widths = [width * 2**i for i in range(downsample.bit_length() - 1)]
        steps = list(pairwise(widths))
        deep, d = widths[-1], self.quantizer.codebook_dim
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(PATCH), nn.Conv2d(channels * PATCH**2, width, 3, padding=1), ResBlock(width, width),
            *[layer for a, b in steps for layer in _down(a, b)],
            ResBlock(deep, deep), group_norm(deep), nn.SiLU(), nn.Conv2d(deep, d, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(d, deep, 3, padding=1), ResBlock(deep, deep),
            *[layer for a, b in reversed(steps) for layer in _up(b, a)],
            ResBlock(width, width), ResBlock(width, width), group_norm(width), nn.SiLU(),
            nn.Conv2d(width, 3 * MIXTURES * channels * PATCH**2, 3, padding=1), nn.PixelShuffle(PATCH),
        )

    @property
    def num_codes(self) -> int:
        """T, of all grids together."""
        return sum(rows * columns for rows, columns in self.grids)

    @property
    def codebook_size(self) -> int:
        """Every index lies below it."""
        return self.quantizer.codebook_size

    def encode(self, x: Tensor) -> Tensor:
        """x float32 (B, C, H, W) -> z_e (B, d, H / f, W / f)."""
        return self.encoder(x.contiguous(memory_format=torch.channels_last))

    def decode(self, z_q: Tensor) -> Tensor:
        """z_q (B, d, H / f, W / f) -> parameters of p(x | z), (B, 3 K C, H, W)."""
        return self.decoder(z_q.contiguous(memory_format=torch.channels_last)).contiguous()

    def indices(self, x: Tensor) -> Tensor:
        """x float32 (B, C, H, W) -> indices int64 (B, T), grid by grid in raster order."""
        return self.quantizer.quantize(self.encode(x)).indices.flatten(1)

    def pixel_parameters(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, T) -> parameters of p(x | z), (B, 3 K C, H, W)."""
        return self.decode(self.quantizer.codes(indices.reshape(len(indices), *self.grids[0])))

    def forward(self, x: Tensor) -> tuple[Tensor, Quantized]:
        """x float32 (B, C, H, W) -> parameters of p(x | z), and the codes they were decoded from."""
        quantized = self.quantizer.quantize(self.encode(x))
        return self.decode(quantized.z_q), quantized


class AutoencoderStage(Stage):
    """Minimise -log p(x | z), the mean over dimensions in nats, and what the quantiser adds."""

    name = "autoencoder"

    def __init__(self, network: Autoencoder, *, share: float, **training: Any) -> None:
        super().__init__(network, **training)
        self.share = share

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        parameters, quantized = self.network(to_float(batch["image"]))
        loss = -log_prob(batch["image"], parameters).mean()
        self.log("loss", loss)
        self.log("codes_used", float(rows_of_all(quantized.indices).unique().numel()))
        self.log("perplexity", quantized.perplexity)
        return loss + sum(quantized.losses.values())
