"""A codebook of moving averages: every code is the mean of the encodings that chose it lately.

van den Oord et al. 2017 (arXiv:1711.00937), App. A.1, and Razavi et al. 2019 (arXiv:1906.00446): decay 0.99,
Laplace smoothing of the counts. The codebook starts as k-means of the first batch, and a code that is hardly
chosen any more becomes an encoding of the batch (Dhariwal et al. 2020, arXiv:2005.00341). Deviation: a code
counts as dead below ``threshold``, but at most half of what each would get if all were used alike, or a small
batch would expire codes in use; a new one starts with that equal share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.base import rows_of_all
from models.vqvae.codebook import Codebook

EPSILON = 1e-5  # of Laplace smoothing
ITERATIONS = 10  # of k-means
FAIR = 0.5  # of the equal share: codes above it are never expired


def smoothed(counts: Tensor) -> Tensor:
    """(N_i + eps) n / (n + K eps) with n = sum N_i, (K,): no count is zero, and their sum stays n."""
    n = counts.sum()
    return (counts + EPSILON) * n / (n + len(counts) * EPSILON)


def seeds(rows: Tensor, k: int) -> Tensor:
    """k of the rows (N, d), far apart: each drawn with probability ~ squared distance to those before, (k, d).

    k-means++, Arthur and Vassilvitskii 2007. If there are fewer different rows than k, some come again.
    """
    chosen = [rows[int(torch.randint(len(rows), ()))]]
    distance = torch.full((len(rows),), torch.inf, dtype=rows.dtype)
    for _ in range(k - 1):
        distance = torch.minimum(distance, (rows - chosen[-1]).square().sum(1))
        total = distance.double().cumsum(0)
        drawn = torch.searchsorted(total, torch.rand((), dtype=torch.float64) * total[-1], right=True)
        chosen.append(rows[min(int(drawn), len(rows) - 1)])
    return torch.stack(chosen)


def kmeans(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from ``seeds``: k centres (k, d) of rows (N, d), and how many rows each has, (k,)."""
    centres = seeds(rows, k)
    for _ in range(ITERATIONS):
        labels = torch.cdist(rows, centres).argmin(1)
        counts = torch.bincount(labels, minlength=k).to(rows.dtype)
        sums = torch.zeros_like(centres).index_add_(0, labels, rows)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres, counts


class EMACodebook(Codebook):
    """Codes e_i = m_i / N_i with N_i and m_i moving averages of the counts and sums of encodings.

    All of it are buffers, which change in training only and are the same in all processes that share a batch.

    Args:
        decay: Weight of the old averages, in [0, 1).
        threshold: Moving count below which a code is replaced; 0 replaces none.
        options: As of ``Codebook``.
    """

    counts: Tensor
    sums: Tensor
    updates: Tensor

    def __init__(
        self, codebook_size: int, codebook_dim: int, *, decay: float = 0.99, threshold: float = 2.0, **options: float
    ) -> None:
        super().__init__(codebook_size, codebook_dim, **options)
        if not 0 <= decay < 1 or threshold < 0:
            raise ValueError(f"decay must lie in [0, 1) and threshold be at least 0, not {decay} and {threshold}")
        self.decay = decay
        self.threshold = threshold
        codebook = self.projected(torch.randn(codebook_size, codebook_dim))
        self.register_buffer("codebook", codebook)
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("sums", codebook.clone())
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """k-means of the first batch; once, and on the CPU, where sums are added up in the same order everywhere."""
        if int(self.updates):
            return
        centres, counts = kmeans(rows_of_all(rows).flatten(0, -2).cpu(), self.codebook_size)
        self.counts.copy_(counts)
        self.codebook.copy_(self.projected(centres))
        self.sums.copy_(centres * counts[:, None])

    @torch.no_grad()
    def update(self, rows: Tensor, indices: Tensor) -> None:
        """Eq. 6 to 8 of App. A.1, over the batch of all processes; then dead codes are replaced."""
        everything = rows_of_all(rows).to(rows.device).flatten(0, -2)  # (N, d)
        chosen = rows_of_all(indices).to(rows.device).flatten()[:, None]
        one_hot = everything.new_zeros(len(everything), self.codebook_size).scatter_(1, chosen, 1.0)
        self.counts.lerp_(one_hot.sum(0), 1 - self.decay)
        self.sums.lerp_(one_hot.T @ everything, 1 - self.decay)
        self.codebook.copy_(self.projected(self.sums / smoothed(self.counts)[:, None]))
        self.revive(everything)
        self.updates += 1

    def revive(self, rows: Tensor) -> None:
        """Let the codes whose moving count is too low be random ones of the encodings (N, d) instead."""
        share = len(rows) / self.codebook_size
        dead = (self.counts < min(self.threshold, FAIR * share)).nonzero()[:, 0]
        if len(dead) == 0:
            return
        drawn = torch.randperm(len(rows))[: len(dead)].to(rows.device)  # the same on every device and in every process
        dead = dead[: len(drawn)]
        self.codebook[dead] = rows[drawn]
        self.counts[dead] = share
        self.sums[dead] = rows[drawn] * share
