"""Into a transformer over codes and out of it again.

A code of a finite scalar quantiser is made of digits, one level per dimension (Mentzer et al. 2023,
arXiv:2309.15505, Sec. 3.1). What is learned of a digit is learned of all codes that share it: a vector, or a logit,
is that of the code plus those of its digits. Codes of a learned codebook have no digits.
Vectors start as small as the transformer's positions, as in GPT-2 (Radford et al. 2019), so that where a code stands is
not drowned by which it is: the same training ends better (``tests/benchmarks/README.md``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.nets.unet import zero_init

INIT_STD = 0.02


def small_embedding(count: int, dim: int) -> nn.Embedding:
    """Embedding with weights from N(0, 0.02^2)."""
    embedding = nn.Embedding(count, dim)
    nn.init.normal_(embedding.weight, std=INIT_STD)
    return embedding


def digits_of(codebook_size: int, levels: tuple[int, ...]) -> Tensor:
    """Which digits a code has, float32 (K, sum of levels) of zeros and ``len(levels)`` ones; K x 0 without levels.

    Index k has the digits k // (product of the levels before) % level, as in ``models.vqvae.fsq``.

    Raises:
        ValueError: if the levels do not make ``codebook_size`` codes.
    """
    if not levels:
        return torch.zeros(codebook_size, 0)
    if math.prod(levels) != codebook_size:
        raise ValueError(f"levels {levels} make {math.prod(levels)} codes, not {codebook_size}")
    rest, columns = torch.arange(codebook_size), []
    for level in levels:
        columns.append(F.one_hot(rest % level, level))
        rest = rest // level
    return torch.cat(columns, dim=1).float()


class CodeEmbedding(nn.Embedding):
    """Indices (...,) to vectors (..., dim): that of the code plus those of its digits.

    Args:
        codebook_size: K.
        dim: Of the vectors.
        levels: Of every digit, () for none.
        special: Further indices from K on, without digits.
    """

    digits: Tensor

    def __init__(self, codebook_size: int, dim: int, *, levels: tuple[int, ...] = (), special: int = 0) -> None:
        super().__init__(codebook_size + special, dim)
        digits = F.pad(digits_of(codebook_size, levels), (0, 0, 0, special))
        self.register_buffer("digits", digits, persistent=False)
        nn.init.normal_(self.weight, std=INIT_STD)
        self.shared: nn.Parameter | None = None
        if levels:
            nn.init.zeros_(self.weight[:codebook_size])
            self.shared = nn.Parameter(INIT_STD / math.sqrt(len(levels)) * torch.randn(digits.shape[1], dim))

    def forward(self, indices: Tensor) -> Tensor:
        own = super().forward(indices)
        return own if self.shared is None else own + self.digits[indices] @ self.shared


class CodeHead(nn.Linear):
    """Features (..., dim) to logits (..., K): that of the code plus those of its digits, which start at zero."""

    digits: Tensor

    def __init__(self, codebook_size: int, dim: int, *, levels: tuple[int, ...] = ()) -> None:
        super().__init__(dim, codebook_size)
        self.register_buffer("digits", digits_of(codebook_size, levels), persistent=False)
        self.shared = nn.Parameter(torch.zeros(self.digits.shape[1], dim)) if levels else None

    def forward(self, x: Tensor) -> Tensor:
        own = super().forward(x)
        return own if self.shared is None else own + F.linear(F.linear(x, self.shared), self.digits)


class Neighbours(nn.Module):
    """Vectors (B, rows * columns, dim) of a grid plus a 3 x 3 convolution of them, which starts at zero.

    Attention has to learn from nothing but positions what a convolution knows: which codes lie side by side. In front
    of every block of a transformer, as the "local perception unit" of Guo et al. 2022 (arXiv:2107.06263), but
    dense, and behind normalisation and GELU.
    """

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(dim)
        self.conv = zero_init(nn.Conv2d(dim, dim, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.gelu(self.norm(x)).mT.unflatten(2, self.grid)).flatten(2).mT
