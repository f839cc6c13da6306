"""Inception score: how sure a classifier is of each image, and how varied over all of them.

Salimans et al. 2016 (arXiv:1606.03498): exp E KL(p(y|x) || p(y)), from 1 to the number of
classes. As in torch-fidelity 0.4.0 the rows are shuffled, cut into splits, and mean and spread over the
splits are given. It is called by this name with Inception's classes only, and sees no real image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import Exam, Matrix, MetricInfo, Score, feature_set

SPLITS, SEED = 10, 2020
SUM_TOLERANCE = 1e-3


class InceptionScore(NamedTuple):
    """Mean and (population) standard deviation over the splits."""

    mean: float
    std: float


def inception_score(probabilities: ArrayLike, splits: int = 1, seed: int = SEED) -> InceptionScore:
    """Inception score of class probabilities or logits (N, C), N >= splits.

    Args:
        probabilities: Taken as probabilities if all entries are in [0, 1] and every row sums to 1 within
            1e-3 (and then divided by that sum); otherwise as logits, of which the softmax is taken.
        splits: Number of parts, at least 1.
        seed: Of the shuffle before the split; without effect for one split.
    """
    p = as_distributions(feature_set(probabilities, "class"))
    if not 1 <= splits <= len(p):
        raise ValueError(f"splits must be from 1 to {len(p)} for {len(p)} samples, not {splits}")
    if splits > 1:
        p = p[np.random.RandomState(seed).permutation(len(p))]
    edges = [i * len(p) // splits for i in range(splits + 1)]
    scores = np.array([_score(p[start:stop]) for start, stop in pairwise(edges)])
    return InceptionScore(float(scores.mean()), float(scores.std()))


def as_distributions(rows: ArrayLike) -> Matrix:
    """Rows (N, C) that are probabilities, or the softmax of rows that are not."""
    p = np.asarray(rows, np.float64)
    sums = p.sum(1, keepdims=True)
    if p.min() >= 0 and p.max() <= 1 and np.abs(sums - 1).max() <= SUM_TOLERANCE:
        return p / sums
    exponentials = np.exp(p - p.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def _score(p: Matrix) -> float:
    """exp of the mean divergence of rows from their mean; 0 log 0 = 0."""
    from scipy.special import rel_entr  # scipy is slow to import

    return float(np.exp(rel_entr(p, p.mean(0)).sum(1).mean()))


def inception_score_metric(exam: Exam) -> tuple[Score]:
    """The mean over ten splits; ``ValueError`` where the extractor gives no classes."""
    if exam.fake_logits is None:
        raise ValueError("the feature extractor gives no classes")
    return (Score(inception_score(exam.fake_logits, splits=SPLITS).mean),)


METRIC = MetricInfo(
    names=("inception_score",),
    higher_is_better=True,
    min_samples=50,
    paper="Salimans et al. 2016, arXiv:1606.03498",
    summary="how sure and how varied Inception's classes are, mean over ten splits",
    compute=inception_score_metric,
    applies=lambda features: features == "inception",
    seed=SEED,
)
