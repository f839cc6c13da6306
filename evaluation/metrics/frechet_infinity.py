"""Fréchet distance extrapolated to infinitely many samples.

Chong and Forsyth 2020 (arXiv:1911.07023): the bias of a Fréchet distance is linear in 1/n, so
a line through distances at several n, against 1/n, meets the axis at the distance without bias. Deviations:
both sides are cut down together, in proportion (the paper keeps all real samples, and with them their
bias); n runs over unions of random groups, evenly from three tenths of the samples to all; and the error
is that of samples and subsets together, where that of the fit leaves out what all subsets share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.base import Exam, Matrix, MetricInfo, Score, feature_pair
from evaluation.metrics.class_agreement import Z_95
from evaluation.metrics.frechet import SECOND_ORDER_DIMENSIONS, group_distances
from evaluation.metrics.intervals import Masks, replicate
from evaluation.metrics.statistics import GroupStatistics

POINTS = 15
SEED = 0
METHOD = "delete-a-group jackknife of the extrapolation, normal, for infinitely many samples"


class FrechetInfinity(NamedTuple):
    """The extrapolated distance, which may fall below zero, and its standard error; squared feature units."""

    value: float
    error: float


def frechet_infinity(
    real: ArrayLike, fake: ArrayLike, *, seed: int = SEED, points: int = POINTS
) -> FrechetInfinity:
    """Fréchet distance between the laws behind feature sets (N, D) and (M, D).

    Args:
        real: Features of real images, (N, D).
        fake: Features of generated images, (M, D).
        seed: Of the groups and of which of them are taken at each n.
        points: Distances on the line, at least 3.

    Raises:
        ValueError: If the smallest subset would not have more samples than dimensions: below that the bias
            is far from linear in 1/n.
    """
    x, y = feature_pair(real, fake)
    if points < 3:
        raise ValueError(f"at least 3 points are needed for a line and its error, not {points}")
    groups = -(-4 * points // 3)
    fewest = groups - points + 1
    least = min(len(x), len(y)) // groups * fewest
    if least <= x.shape[1]:
        raise ValueError(
            f"the smallest subset, {least} samples, must have more samples than the features dimensions ({x.shape[1]})"
        )
    random = np.random.default_rng(seed)
    first, second = (GroupStatistics(z, _groups(len(z), groups, random)) for z in (x, y))
    kept = [_draw(groups, size, random) for size in range(fewest, groups + 1)]
    distances = np.array([group_distances(first, second, *pair)[0] for pair in kept])
    inverse_n = groups / np.arange(fewest, groups + 1)  # N / n
    weights = np.linalg.pinv(np.column_stack((np.ones(points), inverse_n)))[0]  # of the least-squares intercept
    return FrechetInfinity(float(weights @ distances), _error(first, second, weights, inverse_n))


def _groups(n: int, groups: int, random: np.random.Generator) -> list[NDArray[np.intp]]:
    return np.array_split(random.permutation(n), groups)


def _draw(groups: int, size: int, random: np.random.Generator) -> tuple[Masks, Masks]:
    """Which ``size`` groups to take on each side, drawn independently, as masks (1, groups)."""
    masks = np.zeros((2, 1, groups), bool)
    for mask in masks:
        mask[0, random.choice(groups, size, replace=False)] = True
    return masks[0], masks[1]


def _error(real: GroupStatistics, fake: GroupStatistics, weights: Matrix, ratios: Matrix) -> float:
    """Standard error of sum_i w_i FD(N / r_i), sum_i w_i = 1, from the jackknife on all samples.

    A random subset of N / r samples adds (r - 1) times the variance that is linear in the samples and (r² - 1)
    times that from pairs of samples to what all samples vary.
    """
    second_order = real.dimensions <= SECOND_ORDER_DIMENSIONS
    groups = len(real.sizes)
    found = replicate(
        lambda kept, kept_fake: group_distances(real, fake, kept, kept_fake), second_order=second_order, groups=groups
    )
    pairs = found.second_order or 0.0
    linear = max((groups - 1) * float(found.real.var() + found.fake.var()) - 2 * pairs, 0.0)
    variance = linear * (1 + weights**2 @ (ratios - 1)) + pairs * (1 + weights**2 @ (ratios**2 - 1))
    return float(variance**0.5)


def frechet_infinity_score(exam: Exam) -> tuple[Score]:
    """The extrapolated distance with its interval, for the distance at infinitely many samples."""
    value, error = frechet_infinity(exam.real, exam.fake)
    return (Score(value, value - Z_95 * error, value + Z_95 * error, METHOD),)


METRIC = MetricInfo(
    names=("fd_infinity_{features}",),
    higher_is_better=False,
    min_samples=50,
    paper="Chong and Forsyth 2020, arXiv:1911.07023",
    summary="Fréchet distance extrapolated to infinitely many samples",
    compute=frechet_infinity_score,
    seed=SEED,
)
