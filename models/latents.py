"""Latents whatever the paradigm: the way from one to another, and what an image is found to be the picture of.

The way is a great circle: Shoemake 1985 (SIGGRAPH), "Animating rotation with quaternion curves"; for latents White
2016 (arXiv:1609.04468), Sec. 2.1. A straight line between two normal latents leads through such as are hardly ever
drawn: in its middle they are shorter by sqrt(2). Deviation: latents are no unit vectors, so directions go along the
circle and lengths in a straight line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SINE = 1e-6  # of half the angle that is missing to opposite directions; below, no circle is known


@dataclass(frozen=True)
class Projection:
    """Images found in a latent space: latents (N, ...), labels int64 (N,) and what they are decoded to, uint8.

    ``residual`` float64 (N,) is the root mean square of image - reconstruction, in grey levels.
    """

    latents: Tensor
    labels: Tensor
    images: Tensor
    residual: Tensor


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Directions sin((1 - s) theta) / sin(theta) u + sin(s theta) / sin(theta) v, lengths (1 - s) |a| + s |b|.

    Args:
        start: a of direction u, (...), seen as one vector.
        end: b of direction v, as ``start``; theta is the angle between the two.
        share: Shares s of the way, (N,), 0 for ``start`` and 1 for ``end``.

    Returns:
        Points on the way, (N, ...), of the type of ``start``; both ends exact. Between two of the same direction it
        is a straight line.

    Raises:
        ValueError: if one has no direction, or the two have opposite ones.
    """
    a, b = start.double().flatten(), end.double().flatten()
    lengths = a.norm(), b.norm()
    if not min(lengths) > 0:
        raise ValueError("no way leads from or to a latent of length zero: it has no direction")
    u, v = a / lengths[0], b / lengths[1]
    theta = 2 * torch.atan2((u - v).norm(), (u + v).norm())  # acos would lose half of the digits near 0
    if not (u + v).norm() / 2 > LEAST_SINE:
        raise ValueError("no great circle is defined by two latents of opposite directions")
    s = share.double()[:, None]  # (N, 1)
    way = _sine_ratio(1 - s, theta) * u + _sine_ratio(s, theta) * v  # (N, D)
    return (way * torch.lerp(*lengths, s)).reshape(-1, *start.shape).to(start.dtype)


def _sine_ratio(share: Tensor, theta: Tensor) -> Tensor:
    """sin(s theta) / sin(theta), which is s at theta = 0."""
    return share * torch.sinc(share * theta / math.pi) / torch.sinc(theta / math.pi)
