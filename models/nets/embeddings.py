"""Embeddings of scalars: the transformer's sinusoids (Vaswani et al. 2017, Sec. 3.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal_embedding(x: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Cosines and sines of a scalar at geometrically spaced frequencies.

    Args:
        x: Scalars, float32 (B,).
        dim: Width of the embedding, even.
        max_period: Longest wavelength over 2 pi.

    Returns:
        float32 (B, dim).
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=x.device) / half)
    angles = x[:, None] * frequencies  # (B, dim / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)
