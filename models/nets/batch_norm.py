"""Batch normalisation whose batch is that of all processes together, so that several train as one does.

Ioffe and Szegedy 2015 (arXiv:1502.03167). torch's own SyncBatchNorm needs a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.base import processes


class _SumOfAll(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of theirs, since the loss is the mean of all losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _sum_of_all(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum_of_all(gradient)


def _sum_of_all(x: Tensor) -> Tensor:
    total = x.detach().cpu().clone().contiguous()
    dist.all_reduce(total)
    return total.to(x.device)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d``; in training, where several processes share a batch, with the statistics of the whole batch.

    Every process must have as many images.
    """

    def forward(self, x: Tensor) -> Tensor:
        _, size = processes()
        if size == 1 or not self.training:
            return super().forward(x)
        count = size * x.numel() // x.shape[1]
        mean = _SumOfAll.apply(x.sum((0, 2, 3))) / count  # (C,)
        centred = x - mean[:, None, None]
        variance = _SumOfAll.apply(centred.square().sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics as torch does."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
