"""Which codes a first stage writes for the test images: share in use, perplexity, and how many never occur.

van den Oord et al. 2017 (arXiv:1711.00937) log the perplexity exp(-sum p log p) of a batch; here it is that of all
codes of the test split. All three depend on how many codes were written, and no interval with a tested
method is known to us.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import Score
from evaluation.pairs.base import PairMetric, Pairs

CONTINUOUS = "the first stage's codes are continuous"


def code_counts(indices: NDArray[np.int64], codebook_size: int) -> NDArray[np.int64]:
    """How often each code occurs in indices int64 of any shape, int64 (codebook_size,).

    Raises:
        ValueError: if there are none, or one lies outside 0..codebook_size - 1.
    """
    flat = np.asarray(indices).ravel()
    if not len(flat) or flat.min() < 0 or flat.max() >= codebook_size:
        found = f"{flat.min()}..{flat.max()}" if len(flat) else "none"
        raise ValueError(f"indices must lie in 0..{codebook_size - 1}, not {found}")
    return np.bincount(flat, minlength=codebook_size)


def usage(counts: NDArray[np.int64]) -> float:
    """Share of codes (K,) that occur at all, in [0, 1]."""
    return float((counts > 0).mean())


def perplexity(counts: NDArray[np.int64]) -> float:
    """exp of the entropy in nats of how often codes (K,) occur: from 1 to K, which is equal use of all."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def dead_codes(counts: NDArray[np.int64]) -> float:
    """How many codes (K,) never occur."""
    return float((counts == 0).sum())


def counts_of(pairs: Pairs) -> NDArray[np.int64]:
    """The counts of all codes; ``ValueError`` where there are no discrete ones."""
    if pairs.indices is None:
        raise ValueError(CONTINUOUS)
    return code_counts(pairs.indices, pairs.codebook_size)


def conditions(pairs: Pairs) -> str:
    """What is looked at; codebooks of different sizes stand in one column and have no interval to rank them by."""
    return "codes of the test images"


METRICS = (
    PairMetric(
        names=("codebook_usage",),
        higher_is_better=True,
        min_samples=1,
        paper="van den Oord et al. 2017, arXiv:1711.00937",
        summary="share of the codebook that occurs in the codes of the test images",
        compute=lambda pairs: (Score(usage(counts_of(pairs))),),
        conditions=conditions,
    ),
    PairMetric(
        names=("perplexity",),
        higher_is_better=None,
        min_samples=1,
        paper="van den Oord et al. 2017, arXiv:1711.00937",
        summary="exp of the entropy of how often codes occur: how many are in use, in effect",
        compute=lambda pairs: (Score(perplexity(counts_of(pairs))),),
        conditions=conditions,
    ),
    PairMetric(
        names=("dead_codes",),
        higher_is_better=None,
        min_samples=1,
        paper="van den Oord et al. 2017, arXiv:1711.00937",
        summary="how many codes never occur in the codes of the test images",
        compute=lambda pairs: (Score(dead_codes(counts_of(pairs))),),
        conditions=conditions,
    ),
)
