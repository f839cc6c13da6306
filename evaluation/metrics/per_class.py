"""Fréchet distance of each class: what a good whole hides, a class that is drawn badly or not varied.

Heusel et al. 2017 (arXiv:1706.08500), Eq. 6, between the real and the generated images of one class; the
generated ones go by the class that was asked for. Each is more biased than the whole, as n is smaller.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.base import Exam, MetricInfo, Score, feature_pair
from evaluation.metrics.frechet import frechet_distance


class PerClassFrechet(NamedTuple):
    """Mean over classes, worst class, and the distance of each class by its label; squared feature units."""

    mean: float
    worst: float
    distances: dict[int, float]


def per_class_frechet(
    real: ArrayLike, fake: ArrayLike, real_labels: ArrayLike, fake_labels: ArrayLike
) -> PerClassFrechet:
    """Fréchet distances by class between feature sets (N, D) and (M, D) with labels int (N,) and (M,).

    Raises:
        ValueError: If labels do not fit, or a class has fewer than 2 samples on a side; it is named.
    """
    x, y = feature_pair(real, fake)
    x_labels, y_labels = _labels(real_labels, len(x), "real"), _labels(fake_labels, len(y), "fake")
    distances = {}
    for label in np.union1d(x_labels, y_labels).tolist():
        sides = {"real": x[x_labels == label], "fake": y[y_labels == label]}
        for side, features in sides.items():
            if len(features) < 2:
                raise ValueError(f"class {label} has {len(features)} {side} samples; at least 2 are needed")
        distances[int(label)] = frechet_distance(sides["real"], sides["fake"])
    values = list(distances.values())
    return PerClassFrechet(float(np.mean(values)), max(values), distances)


def _labels(labels: ArrayLike, n: int, side: str) -> NDArray[np.integer]:
    array = np.asarray(labels)
    if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{side} labels must be integers ({n},), not {array.dtype} {array.shape}")
    return array


def per_class_score(exam: Exam) -> tuple[Score]:
    """The mean over classes; ``ValueError`` where a side has no classes."""
    if exam.fake_labels is None:
        raise ValueError("the samples were not asked for by class")
    if exam.real_labels is None:
        raise ValueError("the real images have no classes")
    return (Score(per_class_frechet(exam.real, exam.fake, exam.real_labels, exam.fake_labels).mean),)


METRIC = MetricInfo(
    names=("fd_class_{features}",),
    higher_is_better=False,
    min_samples=50,
    paper="Heusel et al. 2017, arXiv:1706.08500",
    summary="mean over classes of the Fréchet distance between the images of one class",
    compute=per_class_score,
)
