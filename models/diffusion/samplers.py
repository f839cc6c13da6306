"""Samplers: pure functions of a denoiser, a start and noise levels.

Karras et al. 2022 (arXiv:2206.00364), Algorithm 1 on the schedule of Eq. 5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.diffusion.edm import SIGMA_MAX, SIGMA_MIN

RHO = 7.0

Denoise = Callable[[Tensor, Tensor], Tensor]


def karras_sigmas(num_steps: int) -> Tensor:
    """Noise levels from SIGMA_MAX to SIGMA_MIN and a final 0, float64 (num_steps + 1,); Eq. 5."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, not {num_steps}")
    i = torch.arange(num_steps, dtype=torch.float64)
    high, low = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    sigmas = (high + i / max(num_steps - 1, 1) * (low - high)) ** RHO
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor) -> tuple[Tensor, int, list[Tensor]]:
    """Integrate the probability-flow ODE with Heun's second-order method; Algorithm 1.

    Args:
        denoise: D(x, sigma) with sigma float32 (B,).
        x: Start, noise of standard deviation sigmas[0], float32 (B, C, H, W).
        sigmas: Descending noise levels that end in 0, float64 (steps + 1,).

    Returns:
        The sample, the number of network evaluations, and the states x after each step.
    """
    nfe, states = 0, []
    for now, after in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        slope = (x - denoise(x, x.new_full(x.shape[:1], now))) / now
        euler = x + (after - now) * slope
        nfe += 1
        if after > 0:  # the last step is Euler's: the slope at sigma = 0 is not defined
            slope_after = (euler - denoise(euler, x.new_full(x.shape[:1], after))) / after
            euler = x + (after - now) * (slope + slope_after) / 2
            nfe += 1
        x = euler
        states.append(x)
    return x, nfe, states
