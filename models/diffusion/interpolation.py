"""From one start noise to another along a great circle, so that what lies between is noise of the same strength.

Shoemake 1985 (SIGGRAPH), "Animating rotation with quaternion curves"; for diffusion models Song et al. 2021
(arXiv:2010.02502), Sec. 5.3. A straight line would lead through noise that is too weak.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_SINE = 1e-6  # of the angle; below, the great circle is not known to any precision


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """sin((1 - s) theta) / sin(theta) start + sin(s theta) / sin(theta) end.

    Args:
        start: (...), seen as one vector.
        end: As ``start``; theta is the angle between the two.
        share: Shares s of the way, (N,), 0 for ``start`` and 1 for ``end``.

    Returns:
        Points on the way, (N, ...), of the type of ``start``; both ends exact.

    Raises:
        ValueError: if the two point in the same or in opposite directions.
    """
    a, b = start.double().flatten(), end.double().flatten()
    theta = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if not theta.sin() > LEAST_SINE:
        raise ValueError("no great circle is defined by two noises of the same or opposite directions")
    s = share.double()[:, None]  # (N, 1)
    way = (torch.sin((1 - s) * theta) * a + torch.sin(s * theta) * b) / theta.sin()  # (N, D)
    return way.reshape(-1, *start.shape).to(start.dtype)
