"""CMMD: squared maximum mean discrepancy of normalised CLIP embeddings with a Gaussian kernel.

Jayasumana et al. 2024, "Rethinking FID" (arXiv:2401.09603): k(x, y) =
exp(-|x - y|² / (2 sigma²)) on embeddings of norm 1, sigma = 10, times 1000. As in the authors' code,
from which the published numbers come, pairs of a sample with itself count (the V-statistic; the paper
calls it unbiased), so that it is never negative. float64 in blocks; their code is float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import BLOCK, Exam, Features, Matrix, MetricInfo, Score, feature_pair, row_blocks

SIGMA, SCALE = 10.0, 1000.0


def cmmd(real: ArrayLike, fake: ArrayLike, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """Scaled squared MMD >= 0 between feature sets (N, D) and (M, D), whose rows are normalised first.

    Raises:
        ValueError: If a row is zero or ``sigma`` is not positive.
    """
    x, y = feature_pair(real, fake, least=1)
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, not {sigma}")
    within = _mean_less_one(x, x, sigma) + _mean_less_one(y, y, sigma)
    return max(scale * (within - 2 * _mean_less_one(x, y, sigma)), 0.0)


def unit_rows(features: Features) -> Matrix:
    """Rows (N, D) divided by their norms, in float64; ``ValueError`` for a row of zeros."""
    x = np.asarray(features, np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError("a row of zeros has no direction")
    return x / norms


def _mean_less_one(x: Features, y: Features, sigma: float) -> float:
    """Mean of k - 1 over all pairs: k is so close to 1 that the ones would cost five digits."""
    total = 0.0
    for rows in row_blocks(len(x), BLOCK):
        left = unit_rows(x[rows])
        for columns in row_blocks(len(y), BLOCK):
            squared = np.maximum(2 - 2 * (left @ unit_rows(y[columns]).T), 0.0)  # |x - y|² of unit vectors
            total += float(np.expm1(squared / (-2 * sigma**2)).sum())
    return total / (len(x) * len(y))


def cmmd_score(exam: Exam) -> tuple[Score]:
    """The distance; no interval, as none with tested coverage is known."""
    return (Score(cmmd(exam.real, exam.fake)),)


METRIC = MetricInfo(
    names=("cmmd",),
    higher_is_better=False,
    min_samples=50,
    paper="Jayasumana et al. 2024, arXiv:2401.09603",
    summary="squared MMD of normalised CLIP embeddings with a Gaussian kernel, times 1000",
    compute=cmmd_score,
    applies=lambda features: features.startswith("clip"),
)
