"""Density and coverage: precision and recall that outliers do not inflate.

Naeem et al. 2020 (arXiv:2002.09797), Eq. 5-6; k = 5 as there. Only balls around real samples are
used; as in the authors' code a ball is open, so two equal sets have density 1 exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import Exam, MetricInfo, Score, feature_pair, mean_of
from evaluation.metrics.neighbours import neighbour_radii, squared_distances


class DensityCoverage(NamedTuple):
    """Density >= 0 (about 1 for equal distributions) and coverage in [0, 1]."""

    density: float
    coverage: float


def density_coverage(
    real: ArrayLike, fake: ArrayLike, k: int = 5, block: int | None = None
) -> DensityCoverage:
    """Density and coverage of feature sets (N, D) and (M, D), N > k; ``block`` only bounds memory."""
    x, y = feature_pair(real, fake, least=k + 1)
    centre = mean_of(x)
    radii = neighbour_radii(x, k, block, centre)
    inside = np.zeros(len(x), np.int64)  # fake samples in the ball of each real one
    for rows, distances in squared_distances(x, y, block, centre):
        inside[rows] = (distances < radii[rows, None]).sum(1)
    return DensityCoverage(float(inside.sum() / (k * len(y))), float((inside > 0).mean()))


def expected_coverage(n_real: int, n_fake: int, k: int = 5) -> float:
    """Expected coverage of two sets of the same continuous distribution, whatever it is; in [0, 1].

    Naeem et al. 2020: a real sample is missed if its k nearest among the n_real - 1 other real
    and the n_fake generated ones, which are all alike, are real: with probability
    (n_real - 1)…(n_real - k) / ((n_real + n_fake - 1)…(n_real + n_fake - k)).

    Raises:
        ValueError: Unless 1 <= k < n_real and n_fake >= 1.
    """
    if not 1 <= k < n_real or n_fake < 1:
        raise ValueError(f"1 <= k < n_real and n_fake >= 1 must hold, not k={k}, n_real={n_real}, n_fake={n_fake}")
    ranks = np.arange(1, k + 1)
    return float(1 - np.prod((n_real - ranks) / (n_real + n_fake - ranks)))


def density_coverage_scores(exam: Exam) -> tuple[Score, Score]:
    """Both numbers; no interval, as none with tested coverage is known."""
    density, coverage = density_coverage(exam.real, exam.fake)
    return Score(density), Score(coverage)


METRIC = MetricInfo(
    names=("density", "coverage"),
    higher_is_better=True,
    min_samples=50,
    paper="Naeem et al. 2020, arXiv:2002.09797",
    summary="how densely generated images lie among real ones, and the share of real ones they reach",
    compute=density_coverage_scores,
)
