"""Class agreement: how often a classifier sees the class that was asked for.

The classification accuracy score turned round (Ravuri and Vinyals 2019, arXiv:1905.10887, train
on generated images instead): the dataset's own classifier, trained on real images, judges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import Exam, MetricInfo, Score, of_features

Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
WILSON = "Wilson score interval of a share"
# Extractors trained on other classes than the dataset's, by the beginning of their names.
GENERAL_NETWORKS = ("inception", "vgg", "clip", "dinov2", "efficientnet")


def class_agreement(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share in [0, 1] of predictions int (N,) that equal labels int (N,), N >= 1."""
    seen, asked = np.asarray(predictions), np.asarray(labels)
    if seen.ndim != 1 or seen.shape != asked.shape or len(seen) == 0:
        raise ValueError(f"predictions and labels must be (N,), N >= 1, not {seen.shape} and {asked.shape}")
    return float((seen == asked).mean())


def wilson_interval(share: float, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's 1927 score interval of a share seen in n independent trials, within [0, 1]."""
    shrink = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5 / shrink
    return max(centre - half, 0.0), min(centre + half, 1.0)


def class_agreement_score(exam: Exam) -> tuple[Score]:
    """The share with Wilson's interval; ``ValueError`` where there were no classes to ask for."""
    if exam.fake_labels is None:
        raise ValueError("the samples were not asked for by class")
    if exam.fake_logits is None:
        raise ValueError("the feature extractor gives no classes")
    share = class_agreement(np.argmax(exam.fake_logits, 1), exam.fake_labels)
    return (Score(share, *wilson_interval(share, len(exam.fake_labels)), WILSON),)


def knows_the_classes(features: str) -> bool:
    """Whether a feature space comes with the dataset's own classes: a general network has others."""
    return of_features(features) and not features.startswith(GENERAL_NETWORKS)


METRIC = MetricInfo(
    names=("class_agreement",),
    higher_is_better=True,
    min_samples=10,
    paper="Ravuri and Vinyals 2019, arXiv:1905.10887",
    summary="share of samples that the dataset's classifier assigns to the class asked for",
    compute=class_agreement_score,
    applies=knows_the_classes,
)
