"""Drawing a code from logits: temperature, the k likeliest, the nucleus, and inversion of what is left.

Nucleus: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration" (arXiv:1904.09751), Sec. 3.1.
Noise comes from outside, one uniform number a draw, so that an image depends on its own noise alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

COLDEST, HOTTEST = 1e-3, 100.0


@dataclass(frozen=True)
class Truncation:
    """Which codes may be drawn.

    ``temperature`` from 0.001 to 100 divides the logits; ``top_k`` keeps that many likeliest codes, 0 all; of these
    ``top_p`` in (0, 1] keeps the fewest whose share of the mass reaches it. What is left is renormalised.

    Raises:
        ValueError: if one is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        checked_temperature(self.temperature)
        if self.top_k < 0 or self.top_k != int(self.top_k):
            raise ValueError(f"top_k must be a whole number from 0 (all codes) on, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> probabilities of the codes in their order, (..., K)."""
        kept = (logits if self.temperature == 1 else logits / self.temperature).softmax(-1)
        if self.top_k == 0 and self.top_p == 1:
            return kept
        likeliest, order = kept.sort(dim=-1, descending=True, stable=True)
        if 0 < self.top_k < kept.shape[-1]:
            likeliest[..., self.top_k :] = 0
        likeliest = likeliest / likeliest.sum(-1, keepdim=True)
        before = likeliest.cumsum(-1) - likeliest
        likeliest = torch.where(before < self.top_p, likeliest, 0.0)
        return torch.zeros_like(kept).scatter(-1, order, likeliest / likeliest.sum(-1, keepdim=True))

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Logits (..., K) and noise in [0, 1), float64 (...,) -> codes int64 (...,)."""
        return inverted(self.probabilities(logits), uniform)


def inverted(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The codes at which the cumulative distribution passes the noise.

    Args:
        probabilities: (..., K), of sum one up to rounding.
        uniform: Noise in [0, 1), float64 (...,).

    Returns:
        int64 (...,), never a code of probability zero.
    """
    cumulative = probabilities.cumsum(-1)
    total = cumulative[..., -1:]
    below = total * (1 - torch.finfo(total.dtype).eps)  # by a rounding: no code beyond the last possible one is reached
    level = torch.minimum((uniform[..., None] * total).to(total.dtype), below)
    return torch.searchsorted(cumulative, level, right=True)[..., 0]


def checked_temperature(temperature: float, name: str = "temperature", least: float = COLDEST) -> float:
    """The temperature, a number from ``least`` to 100; raises ``ValueError``."""
    if not least <= temperature <= HOTTEST:
        raise ValueError(f"{name} must be a number from {least:g} to {HOTTEST:g}, not {temperature}")
    return temperature
