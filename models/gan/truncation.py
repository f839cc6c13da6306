"""Truncation: latents nearer to their mean than they are drawn, for likelier but less different images.

Karras et al. 2019, "A Style-Based Generator" (arXiv:1812.04948), App. B: w' = mean + psi (w - mean). Here the latent
is the normal one that the generator reads, whose mean is 0 whatever the class, so z' = psi z. Above 1 it goes the
other way.
"""

from __future__ import annotations

from torch import Tensor

from models.base import Asked, Setting, Sweep

PSIS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
MOST_PSI = 3.0  # beyond, no latent is like those of training
SERIES = "generator"


def checked_psi(psi: float) -> float:
    """The factor, a number from 0 to 3; raises ``ValueError``."""
    if not 0 <= psi <= MOST_PSI:
        raise ValueError(f"psi must be a number from 0 to {MOST_PSI:g}, not {psi}")
    return psi


def truncated(z: Tensor, psi: float) -> Tensor:
    """Latents (B, d) at ``psi`` in 0..3 times their distance from the mean; the very same at 1."""
    return z if checked_psi(psi) == 1 else psi * z


def psi_sweep(asked: Asked) -> Sweep:
    """Quality against psi, through the values asked for or the usual ones, each once, ascending."""
    values = sorted({checked_psi(float(value)) for value in asked.get("psi", PSIS)})
    return Sweep("psi", "truncation", "truncation psi (1: as trained, 0: the mean latent)", log=False, settings=tuple(
        Setting(SERIES, {"psi": value}, x=value) for value in values
    ))
