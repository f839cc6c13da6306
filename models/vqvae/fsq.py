"""Finite scalar quantisation: round each of a few bounded dimensions; no codebook to learn.

Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv:2309.15505), Sec. 3.1
and Appendix A.1. The gradient passes straight through the rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.vqvae.quantizer import Quantized, Quantizer, perplexity


class FSQ(Quantizer):
    """Quantiser with ``prod(levels)`` implicit codes of dimension ``len(levels)``, in [-1, 1]."""

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"levels must be integers of at least 2, not {levels}")
        self.codebook_size = math.prod(levels)
        self.codebook_dim = len(levels)
        self.digit_levels = tuple(levels)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        basis = torch.cumprod(torch.tensor([1, *levels[:-1]]), dim=0)
        self.register_buffer("basis", basis, persistent=False)

    def bound(self, z_e: Tensor) -> Tensor:
        """Squash so that rounding gives exactly ``levels`` integers per dimension; last axis d."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z_e + (offset / half).atanh()) * half - offset

    def in_code_space(self, z_e: Tensor) -> Tensor:
        return self.bound(z_e.movedim(1, -1)) / (self.levels // 2)

    def quantize(self, z_e: Tensor) -> Quantized:
        """z_e (B, d, H, W), unbounded -> codes and indices; there is nothing to learn, hence no loss."""
        bounded = self.bound(z_e.movedim(1, -1))
        rounded = bounded + (bounded.round() - bounded).detach()  # straight-through
        digits = rounded.detach().round().long() + self.levels // 2
        z_q = (rounded / (self.levels // 2)).movedim(-1, 1)
        indices = (digits * self.basis).sum(-1)
        return Quantized(z_q, indices, perplexity=perplexity(indices, self.codebook_size))

    def codes(self, indices: Tensor) -> Tensor:
        digits = indices[..., None] // self.basis % self.levels
        half = self.levels // 2
        return ((digits - half) / half).movedim(-1, 1)
