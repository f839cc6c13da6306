"""Density and coverage: precision and recall that outliers do not inflate.

Naeem et al. 2020 (arXiv:2002.09797), Eq. 5-6; k = 5 as there. Only balls around real samples are
used; as in the authors' code a ball is open, so two equal sets have density 1 exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import Exam, MetricInfo, Score, feature_pair
from evaluation.metrics.neighbours import centred, neighbour_radii, squared_distances


class DensityCoverage(NamedTuple):
    """Density >= 0 (about 1 for equal distributions) and coverage in [0, 1]."""

    density: float
    coverage: float


def density_coverage(
    real: ArrayLike, fake: ArrayLike, k: int = 5, block: int | None = None
) -> DensityCoverage:
    """Density and coverage of feature sets (N, D) and (M, D), N > k; ``block`` only bounds memory."""
    x, y = centred(*feature_pair(real, fake, least=k + 1))
    radii = neighbour_radii(x, k, block)
    inside = np.zeros(len(x), np.int64)  # fake samples in the ball of each real one
    for rows, distances in squared_distances(x, y, block):
        inside[rows] = (distances < radii[rows, None]).sum(1)
    return DensityCoverage(float(inside.sum() / (k * len(y))), float((inside > 0).mean()))


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
