"""Improved precision and recall: the share of each set inside the other's k-NN manifold.

Kynkäänniemi et al. 2019 (arXiv:1904.06991), Eq. 1-3; k = 3 as there. A manifold is the union of
balls around the samples that reach to the k-th nearest neighbour, border included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import Exam, MetricInfo, Score, feature_pair, mean_of
from evaluation.metrics.neighbours import neighbour_radii, squared_distances


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]."""

    precision: float
    recall: float


def precision_recall(
    real: ArrayLike, fake: ArrayLike, k: int = 3, block: int | None = None
) -> PrecisionRecall:
    """Precision and recall of feature sets (N, D) and (M, D), N, M > k; ``block`` only bounds memory."""
    x, y = feature_pair(real, fake, least=k + 1)
    centre = mean_of(x)
    x_radii, y_radii = (neighbour_radii(side, k, block, centre) for side in (x, y))
    covered_fake, covered_real = np.zeros(len(y), bool), np.zeros(len(x), bool)
    for rows, distances in squared_distances(x, y, block, centre):
        covered_fake |= (distances <= x_radii[rows, None]).any(0)
        covered_real[rows] = (distances <= y_radii).any(1)
    return PrecisionRecall(float(covered_fake.mean()), float(covered_real.mean()))


def precision_recall_scores(exam: Exam) -> tuple[Score, Score]:
    """Both shares; no interval, as none with tested coverage is known."""
    precision, recall = precision_recall(exam.real, exam.fake)
    return Score(precision), Score(recall)


METRIC = MetricInfo(
    names=("precision", "recall"),
    higher_is_better=True,
    min_samples=50,
    paper="Kynkäänniemi et al. 2019, arXiv:1904.06991",
    summary="share of generated images on the real manifold, and of real ones on the generated",
    compute=precision_recall_scores,
)
