"""Exponential moving average of weights with a half-life counted in images.

The half-life is ramped up as in Karras et al. 2022 (arXiv:2206.00364, App. F.2): at most 5 % of
the images seen so far, so that short runs do not average in their random start.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

RAMP = 0.05


def ema_decay(images_seen: float, batch_size: int, half_life: float) -> float:
    """Weight of the old average in one update: 0.5 ** (batch / min(half-life, 5 % of images seen))."""
    return 0.5 ** (batch_size / max(min(half_life, RAMP * images_seen), 1e-8))


class EMA(nn.Module):
    """A frozen copy of a network that follows it. ``updates`` (int64 buffer) makes it resumable."""

    updates: Tensor

    def __init__(self, network: nn.Module, *, half_life: float, batch_size: int) -> None:
        super().__init__()
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.half_life = half_life
        self.batch_size = batch_size
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards ``network`` by one optimiser step; buffers are copied."""
        self.updates += 1
        decay = ema_decay(int(self.updates) * self.batch_size, self.batch_size, self.half_life)
        torch._foreach_lerp_(list(self.average.parameters()), list(network.parameters()), 1 - decay)
        for average, current in zip(self.average.buffers(), network.buffers(), strict=True):
            average.copy_(current)

    def copy_to(self, network: nn.Module) -> None:
        """Overwrite the weights of ``network`` with the average."""
        network.load_state_dict(self.average.state_dict())
