"""Which noise levels are trained on: a law of ln(sigma), or importance sampling learned from the losses.

The learned proposal draws where the loss varies most and weighs by the ratio of the laws, so that the expected
gradient stays that of the given law (Nichol and Dhariwal 2021, arXiv:2102.09672, Sec. 3.3, in bins of ln sigma).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.base import rows_of_all

NUM_BINS = 32
MEMORY = 0.99  # of the average over batches in which a bin was met
GIVEN_SHARE = 0.25  # of the draws that follow the given law whatever was learned


def bin_masses(log_min: float, log_max: float, mean: float, std: float, uniform_share: float) -> Tensor:
    """Mass of NUM_BINS equal bins of [log_min, log_max] under a normal law mixed with a uniform one, float64."""
    edges = torch.linspace(log_min, log_max, NUM_BINS + 1, dtype=torch.float64)
    normal = torch.special.ndtr((edges - mean) / std).diff()
    return (1 - uniform_share) * normal / normal.sum() + uniform_share / NUM_BINS


class LearnedProposal(nn.Module):
    """A law of ln(sigma) that is constant within bins and follows the second moment of the loss."""

    given: Tensor
    moment: Tensor

    def __init__(self, log_min: float, log_max: float, given: Tensor) -> None:
        super().__init__()
        self.log_min, self.log_max = log_min, log_max
        self.register_buffer("given", given.float())
        self.register_buffer("moment", torch.ones(NUM_BINS))

    def masses(self) -> Tensor:
        """Mass of every bin, (NUM_BINS,): in proportion to the given law times the root of the loss's moment."""
        wanted = self.given * self.moment.sqrt()
        return GIVEN_SHARE * self.given + (1 - GIVEN_SHARE) * wanted / wanted.sum()

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n stratified values of ln(sigma) in random order and their weights, given law over proposal, (n,) each."""
        masses = self.masses()
        u = (torch.randperm(n, device=masses.device) + torch.rand(n, device=masses.device)) / n
        ends = masses.cumsum(0)
        chosen = torch.searchsorted(ends, u * ends[-1]).clamp(max=NUM_BINS - 1)
        inside = ((u * ends[-1] - (ends[chosen] - masses[chosen])) / masses[chosen]).clamp(0, 1)
        width = (self.log_max - self.log_min) / NUM_BINS
        return self.log_min + (chosen + inside) * width, (self.given / masses)[chosen]

    @torch.no_grad()
    def learn(self, log_sigma: Tensor, losses: Tensor) -> None:
        """Follow the losses of a batch, before they are weighted, (B,), of all processes."""
        log_sigma, losses = (rows_of_all(x).to(self.moment.device) for x in (log_sigma, losses))
        place = (log_sigma - self.log_min) / (self.log_max - self.log_min) * NUM_BINS
        index = place.long().clamp(0, NUM_BINS - 1)
        count = torch.bincount(index, minlength=NUM_BINS)
        sums = torch.zeros_like(self.moment).index_add_(0, index, losses.float().square())
        met = count > 0
        self.moment[met] = torch.lerp(sums[met] / count[met], self.moment[met], MEMORY)

