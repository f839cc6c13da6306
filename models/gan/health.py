"""What training can see of its own health: how different the images of a class are, and when they no longer are.

A generator that forgets its latent shows every image of a class alike long before a loss tells. What is measured is
cheap and of one batch; how good the samples are is for the exam to say.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST_DIVERSITY = 1e-4  # of the real images' variance: a hundredth of their standard deviation
MOST_DIVERSITY = 1e4  # a hundred times their standard deviation: far outside the grey levels there are
PATIENCE = 40  # kept steps in a row, a fifth of a long stage's log


def diversity(fake: Tensor, real: Tensor, labels: Tensor) -> Tensor:
    """Pixel variance of generated images around the mean of their class, in units of that of real images.

    About 1 is right, 0 is one image a class; not a number where no class has two different real images.

    Args:
        fake: Generated images, (B, C, H, W).
        real: Real images of the same shape.
        labels: Classes of both, int64 (B,).
    """
    return within_class_scatter(fake, labels) / within_class_scatter(real, labels)


def within_class_scatter(x: Tensor, labels: Tensor) -> Tensor:
    """Sum over images (B, ...) of |x_i - mean of its class|^2, float64."""
    _, own, counts = labels.unique(return_inverse=True, return_counts=True)
    flat = x.detach().flatten(1).double()
    sums = flat.new_zeros(len(counts), flat.shape[1]).index_add_(0, own, flat)
    return (flat - (sums / counts[:, None])[own]).square().sum()


def gradient_norm(parameters: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients that are there."""
    return torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]))


class CollapseWatch(nn.Module):
    """Counts in a row how often diversity was below ``LEAST_DIVERSITY``; the count (int64 buffer) is resumable."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def seen(self, value: float) -> str:
        """Why training must stop after one more diversity is seen; empty while it need not."""
        if value > MOST_DIVERSITY:
            return f"the generator ran away: diversity became {value:.3g}, above {MOST_DIVERSITY:g}"
        if value < LEAST_DIVERSITY:
            self.count += 1
        elif value >= LEAST_DIVERSITY:  # what is not a number says nothing
            self.count.zero_()
        if int(self.count) < PATIENCE:
            return ""
        return f"the generator collapsed: diversity was below {LEAST_DIVERSITY:g} at {PATIENCE} logged steps in a row"
