"""Fourier features of a noised image: what a network needs to see grey levels that lie close together.

Kingma et al. 2021, "Variational Diffusion Models" (arXiv:2107.00630), Sec. 5.1 and App. C: sines and cosines whose
period is a grey level or a few of them stand beside the image, since most bits are in its finest digits.
Deviations: more frequencies, and each fades where noise has wiped it out, so that samplers walk as smoothly as without.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FREQUENCIES = tuple(2.0**n * math.pi for n in range(3, 9))  # of [-1, 1]; the last has about one period a grey level


def fourier_features(x: Tensor, sigma: Tensor) -> Tensor:
    """exp(-(omega sigma)^2 / 2) times cos and sin of omega x for every frequency omega.

    The factor is E[cos(omega (x_0 + sigma eps))] / cos(omega x_0): what is left of a wave under noise.

    Args:
        x: Images in [-1, 1] with noise added, (B, C, H, W).
        sigma: Standard deviation of the noise, (B,).

    Returns:
        (B, 2 len(FREQUENCIES) C, H, W), in [-1, 1]; all cosines, then all sines.
    """
    omega = torch.tensor(FREQUENCIES, dtype=x.dtype, device=x.device)
    angles = (omega[:, None, None, None] * x[:, None]).flatten(1, 2)  # (B, F C, H, W)
    left = torch.exp(-(omega * sigma[:, None]).square() / 2)[:, :, None, None, None]  # (B, F, 1, 1, 1)
    waves = torch.stack([angles.cos(), angles.sin()], dim=1).unflatten(2, (len(FREQUENCIES), -1))
    return (left[:, None] * waves).flatten(1, 3)
