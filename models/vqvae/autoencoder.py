"""First stage: a convolutional encoder and decoder around the quantiser.

van den Oord et al. 2017 (arXiv:1711.00937) with the residual block of the U-Net. The loss is the
negative log-likelihood of a normalised decoder, so that what is trained is the second half of the
two-part code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from models.base import Stage, rows_of_all, to_float
from models.nets.unet import ResBlock, group_norm
from models.vqvae.likelihood import log_prob
from models.vqvae.quantizer import Quantized, Quantizer
from models.vqvae.usage import Usage

MIXTURES = 4
PATCH = 2


def trunk_down(channels: int, widths: list[int]) -> list[nn.Module]:
    """Layers from an image to features (B, widths[-1], ...), at half its size and then halving for every width."""
    first = nn.Conv2d(channels * PATCH**2, widths[0], 3, padding=1)
    layers = [nn.PixelUnshuffle(PATCH), first, ResBlock(widths[0], widths[0])]
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), ResBlock(b, b)]
    return layers


def to_codes(width: int, codebook_dim: int) -> list[nn.Module]:
    """Layers from features to what is quantised, (B, codebook_dim, ...)."""
    return [ResBlock(width, width), group_norm(width), nn.SiLU(), nn.Conv2d(width, codebook_dim, 1)]


def trunk_up(channels: int, widths: list[int], codebook_dim: int) -> list[nn.Module]:
    """Layers from codes (B, codebook_dim, ...) to the parameters of p(x | z); the mirror of ``trunk_down``."""
    deep, width = widths[-1], widths[0]
    layers = [nn.Conv2d(codebook_dim, deep, 3, padding=1), ResBlock(deep, deep)]
    for a, b in reversed(list(pairwise(widths))):
        layers += [ResBlock(b, b), nn.Upsample(scale_factor=2), nn.Conv2d(b, a, 3, padding=1)]
    layers += [ResBlock(width, width), ResBlock(width, width), group_norm(width), nn.SiLU()]
    return [*layers, nn.Conv2d(width, 3 * MIXTURES * channels * PATCH**2, 3, padding=1), nn.PixelShuffle(PATCH)]


def grid_of(image_shape: tuple[int, int, int], downsample: int) -> tuple[int, int]:
    """Rows and columns of the codes of an image (C, H, W); ``ValueError`` if they do not come out even."""
    if downsample < 2 or downsample & (downsample - 1):
        raise ValueError(f"downsample must be a power of two of at least 2, not {downsample}")
    _, height, breadth = image_shape
    if height % downsample or breadth % downsample:
        raise ValueError(f"downsample {downsample} does not divide the image size {height}x{breadth}")
    return height // downsample, breadth // downsample


def widths_of(width: int, downsample: int) -> list[int]:
    """Channels at half the image's resolution and at every lower one."""
    return [width * 2**i for i in range(downsample.bit_length() - 1)]


class DiscreteAutoencoder(nn.Module, ABC):
    """Images in [-1, 1] to indices of codes, grid by grid, and back to the parameters of p(x | z).

    ``quantizers`` are one for each of the ``grids`` (rows, columns), with codebooks of one size; ``decoder``
    takes the codes of every grid.
    """

    grids: tuple[tuple[int, int], ...]
    grid_names: tuple[str, ...]  # what the names of logged numbers end in
    decoder: nn.Module

    @property
    @abstractmethod
    def quantizers(self) -> tuple[Quantizer, ...]:
        """One for each grid."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Quantized]:
        """x float32 (B, C, H, W) -> parameters of p(x | z), (B, 3 K C, H, W), and the codes they were decoded from."""

    @abstractmethod
    def indices(self, x: Tensor) -> Tensor:
        """x float32 (B, C, H, W) -> indices int64 (B, T), grid by grid in raster order. Nothing learns from it."""

    @property
    def codes_per_grid(self) -> list[int]:
        """Numbers of codes."""
        return [rows * columns for rows, columns in self.grids]

    @property
    def num_codes(self) -> int:
        """T, of all grids together."""
        return sum(self.codes_per_grid)

    @property
    def codebook_size(self) -> int:
        """Every index lies below it."""
        return self.quantizers[0].codebook_size

    @property
    def digit_levels(self) -> tuple[int, ...]:
        """Of the digits that an index is made of; () if of none."""
        return self.quantizers[0].digit_levels

    def decode(self, *z_q: Tensor) -> Tensor:
        """The codes z_q (B, d, rows, columns) of every grid -> parameters of p(x | z), (B, 3 K C, H, W)."""
        return self.decoder(*(z.contiguous(memory_format=torch.channels_last) for z in z_q)).contiguous()

    def pixel_parameters(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, T) -> parameters of p(x | z), (B, 3 K C, H, W)."""
        parts = indices.split(self.codes_per_grid, dim=1)
        triples = zip(self.quantizers, parts, self.grids, strict=True)
        return self.decode(*(quantizer.codes(part.unflatten(1, grid)) for quantizer, part, grid in triples))


class Autoencoder(DiscreteAutoencoder):
    """One grid of codes.

    Args:
        image_shape: (C, H, W).
        width: Channels at half the image's resolution; doubled at each lower one.
        downsample: Pixels per code along each axis: 2, 4, 8, ...
        quantizer: Any of them; it decides the number of channels between encoder and decoder.
    """

    grid_names = ("",)

    def __init__(
        self, image_shape: tuple[int, int, int], *, width: int, downsample: int, quantizer: Quantizer
    ) -> None:
        super().__init__()
        self.grids = (grid_of(image_shape, downsample),)
        self.quantizer = quantizer
        channels, widths, d = image_shape[0], widths_of(width, downsample), quantizer.codebook_dim
        self.encoder = nn.Sequential(*trunk_down(channels, widths), *to_codes(widths[-1], d))
        self.decoder = nn.Sequential(*trunk_up(channels, widths, d))

    @property
    def quantizers(self) -> tuple[Quantizer, ...]:
        return (self.quantizer,)

    def encode(self, x: Tensor) -> Tensor:
        """x float32 (B, C, H, W) -> z_e (B, d, H / f, W / f)."""
        return self.encoder(x.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def indices(self, x: Tensor) -> Tensor:
        return self.quantizer.quantize(self.encode(x)).indices.flatten(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Quantized]:
        quantized = self.quantizer.quantize(self.encode(x))
        return self.decode(quantized.z_q), quantized


class AutoencoderStage(Stage):
    """Minimise -log p(x | z), the mean over dimensions in nats, and what the quantiser adds."""

    name = "autoencoder"

    def __init__(self, network: DiscreteAutoencoder, *, share: float, **training: Any) -> None:
        super().__init__(network, **training)
        self.share = share
        self.usage = Usage(network.codebook_size, dict(zip(network.grid_names, network.codes_per_grid, strict=True)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        parameters, quantized = self.network(to_float(batch["image"]))
        return self.objective(batch["image"], parameters, quantized)

    def objective(self, images: Tensor, parameters: Tensor, quantized: Quantized) -> Tensor:
        """What is minimised for uint8 images (B, C, H, W); its terms and the use of the codes are logged."""
        loss = -log_prob(images, parameters).mean()
        self.usage.add(rows_of_all(quantized.indices.flatten(1)))
        if not self.quiet:
            self.log("loss", loss)
            for name, value in (quantized.losses | self.usage.statistics()).items():
                self.log(name, value)
        return loss + sum(quantized.losses.values())
