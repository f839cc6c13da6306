"""Two levels of codes: a coarse grid for what is global, a fine one for what is left when that is known.

Razavi et al. 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2" (arXiv:1906.00446), Sec. 3.1 and
Algorithm 1: the bottom encoder sees the decoded top codes, the decoder sees both. Deviations: the residual
blocks and the normalised decoder of the first stage with one grid; a top grid half as fine is rounded up, so
that 7 x 7 has a top of 4 x 4; both codebooks have the same size, so that one prior can write both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.nets.unet import ResBlock
from models.vqvae.autoencoder import DiscreteAutoencoder, grid_of, to_codes, trunk_down, trunk_up, widths_of
from models.vqvae.quantizer import Quantized, Quantizer


class TwoLevelDecoder(nn.Module):
    """Top and bottom codes (B, d, ...) to the parameters of p(x | z), (B, 3 K C, H, W)."""

    def __init__(self, channels: int, widths: list[int], grid: tuple[int, int], codebook_dims: tuple[int, int]) -> None:
        super().__init__()
        top, bottom = codebook_dims
        self.enlarge = nn.Sequential(nn.Upsample(size=grid), nn.Conv2d(top, widths[-1], 3, padding=1))
        self.trunk = nn.Sequential(*trunk_up(channels, widths, widths[-1] + bottom))

    def forward(self, top: Tensor, bottom: Tensor) -> Tensor:
        return self.trunk(torch.cat([self.enlarge(top), bottom], dim=1))


class TwoLevelAutoencoder(DiscreteAutoencoder):
    """A top grid, then a bottom grid.

    Args:
        image_shape: (C, H, W).
        width: Channels at half the image's resolution; doubled at each lower one.
        downsample: Pixels per bottom code along each axis: 2, 4, 8, ...; a top code covers twice as many.
        top: Quantiser of the top level.
        bottom: Quantiser of the bottom level, another one with as many codes.

    Raises:
        ValueError: if the image cannot be divided so, or the codebooks are of two sizes.
    """

    grid_names = ("_top", "_bottom")

    def __init__(
        self, image_shape: tuple[int, int, int], *, width: int, downsample: int, top: Quantizer, bottom: Quantizer
    ) -> None:
        super().__init__()
        if top.codebook_size != bottom.codebook_size:
            sizes = f"{top.codebook_size} and {bottom.codebook_size}"
            raise ValueError(f"both levels need a codebook of the same size, not {sizes} codes")
        rows, columns = grid_of(image_shape, downsample)
        self.grids = (((rows + 1) // 2, (columns + 1) // 2), (rows, columns))
        self.top, self.bottom = top, bottom
        channels, widths = image_shape[0], widths_of(width, downsample)
        deep = widths[-1]
        self.trunk = nn.Sequential(*trunk_down(channels, widths))
        self.top_encoder = nn.Sequential(
            nn.Conv2d(deep, deep, 3, stride=2, padding=1), ResBlock(deep, deep), *to_codes(deep, top.codebook_dim)
        )
        self.top_decoder = nn.Sequential(
            nn.Conv2d(top.codebook_dim, deep, 3, padding=1), ResBlock(deep, deep), nn.Upsample(size=(rows, columns)),
        )
        self.bottom_encoder = nn.Sequential(
            nn.Conv2d(2 * deep, deep, 3, padding=1), *to_codes(deep, bottom.codebook_dim)
        )
        self.decoder = TwoLevelDecoder(channels, widths, (rows, columns), (top.codebook_dim, bottom.codebook_dim))

    @property
    def quantizers(self) -> tuple[Quantizer, ...]:
        return self.top, self.bottom

    def quantize(self, x: Tensor) -> tuple[Quantized, Quantized]:
        """x float32 (B, C, H, W) -> the codes of both levels, the bottom's given the top's; Algorithm 1."""
        features = self.trunk(x.contiguous(memory_format=torch.channels_last))  # (B, deep, rows, columns)
        top = self.top.quantize(self.top_encoder(features))
        context = self.top_decoder(top.z_q.contiguous(memory_format=torch.channels_last))
        return top, self.bottom.quantize(self.bottom_encoder(torch.cat([features, context], dim=1)))

    @torch.no_grad()
    def indices(self, x: Tensor) -> Tensor:
        return torch.cat([level.indices.flatten(1) for level in self.quantize(x)], dim=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Quantized]:
        """As of ``DiscreteAutoencoder``; ``z_q`` are the bottom codes, ``indices`` (B, T) and losses those of both.

        The perplexity is the geometric mean of both.
        """
        top, bottom = self.quantize(x)
        both = Quantized(
            bottom.z_q,
            torch.cat([top.indices.flatten(1), bottom.indices.flatten(1)], dim=1),
            {name: top.losses[name] + bottom.losses[name] for name in top.losses},
            (top.perplexity * bottom.perplexity).sqrt(),
        )
        return self.decode(top.z_q, bottom.z_q), both
