"""Kernel distance: unbiased squared maximum mean discrepancy with a polynomial kernel.

Bińkowski et al. 2018, "Demystifying MMD GANs" (arXiv:1801.01401), Eq. 3 and section 4.1:
k(x, y) = (x·y / D + 1)³. All pairs are used where the paper averages over random subsets, so the
number has no sampling noise of its own; it is unbiased at any n and may fall below zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import BLOCK, Exam, Features, Matrix, MetricInfo, Score, feature_pair, row_blocks
from evaluation.metrics.intervals import Masks, enough_for_interval, interval_score, random_groups, replicate

DEGREE = 3


class KernelSums(NamedTuple):
    """Sums of k over pairs of parts of the two sets, without the pairs of a sample with itself.

    ``real`` (A, A), ``fake`` (B, B) and ``cross`` (A, B); ``sizes_real`` (A,) and ``sizes_fake`` (B,)
    are the samples of each part, ``self_real`` and ``self_fake`` the sums of k(x, x) over each side.
    """

    real: Matrix
    fake: Matrix
    cross: Matrix
    sizes_real: Matrix
    sizes_fake: Matrix
    self_real: float
    self_fake: float


def kernel_distance(real: ArrayLike, fake: ArrayLike, degree: int = DEGREE, block: int = 1024) -> float:
    """Unbiased MMD² between feature sets (N, D) and (M, D), N, M >= 2; dimensionless.

    Args:
        real: Features of real images, (N, D).
        fake: Features of generated images, (M, D).
        degree: Degree of the polynomial kernel, at least 1.
        block: Samples per block; memory grows with its square, the result does not depend on it.
    """
    x, y = feature_pair(real, fake)
    if degree < 1 or block < 1:
        raise ValueError(f"degree and block must be at least 1, not {degree} and {block}")
    first, second = ([z[rows] for rows in row_blocks(len(z), block)] for z in (x, y))
    return float(unbiased_mmd(kernel_sums(first, second, degree))[0])


def kernel_sums(real: Sequence[Features], fake: Sequence[Features], degree: int = DEGREE) -> KernelSums:
    """Sums over all pairs of parts, in float64 tiles of bounded size."""
    own_real, own_fake = ([_self_sum(part, degree) for part in side] for side in (real, fake))
    return KernelSums(
        real=_within_sums(real, own_real, degree),
        fake=_within_sums(fake, own_fake, degree),
        cross=np.array([[_pair_sum(a, b, degree) for b in fake] for a in real]),
        sizes_real=np.array([len(part) for part in real], np.float64),
        sizes_fake=np.array([len(part) for part in fake], np.float64),
        self_real=sum(own_real),
        self_fake=sum(own_fake),
    )


def unbiased_mmd(sums: KernelSums, kept: Masks | None = None, kept_fake: Masks | None = None) -> Matrix:
    """Eq. 3 (R,) from the sums over the parts that masks (R or 1, A) and (R or 1, B) keep; None keeps all."""
    real, fake = ((np.ones((1, len(sizes))) if mask is None else mask.astype(np.float64)) for mask, sizes in
                  ((kept, sums.sizes_real), (kept_fake, sums.sizes_fake)))  # fmt: skip
    m, n = real @ sums.sizes_real, fake @ sums.sizes_fake
    within_real = ((real @ sums.real) * real).sum(1) / (m * (m - 1))
    within_fake = ((fake @ sums.fake) * fake).sum(1) / (n * (n - 1))
    return within_real + within_fake - 2 * ((real @ sums.cross) * fake).sum(1) / (m * n)


def bias_taken_off(sums: KernelSums) -> float:
    """What the unbiased estimate lacks to be a squared norm: the pairs of samples with themselves."""
    return _self_bias(sums.real, sums.self_real, sums.sizes_real) + _self_bias(
        sums.fake, sums.self_fake, sums.sizes_fake
    )


def _self_bias(within: Matrix, own: float, sizes: Matrix) -> float:
    n = float(sizes.sum())
    return (own / n - float(within.sum()) / (n * (n - 1))) / n


def kernel_score(exam: Exam) -> tuple[Score]:
    """The distance with its jackknife interval (None below two samples per group)."""
    x, y = feature_pair(exam.real, exam.fake)
    if not enough_for_interval(len(x), len(y)):
        return (Score(kernel_distance(x, y)),)
    sums = kernel_sums([x[rows] for rows in random_groups(len(x))], [y[rows] for rows in random_groups(len(y))])
    replicates = replicate(lambda kept, kept_fake: unbiased_mmd(sums, kept, kept_fake))
    return (interval_score(float(unbiased_mmd(sums)[0]), replicates, offset=bias_taken_off(sums)),)


def _within_sums(parts: Sequence[Features], own: Sequence[float], degree: int) -> Matrix:
    sums = np.zeros((len(parts), len(parts)))
    for a, first in enumerate(parts):
        for b, second in enumerate(parts[: a + 1]):
            sums[a, b] = sums[b, a] = _pair_sum(first, second, degree) - (own[a] if a == b else 0.0)
    return sums


def _pair_sum(x: Features, y: Features, degree: int) -> float:
    """Sum of k over all pairs of rows, tile by tile."""
    total = 0.0
    for rows in row_blocks(len(x), BLOCK):
        left = np.asarray(x[rows], np.float64) / x.shape[1]
        for columns in row_blocks(len(y), BLOCK):
            total += _power_sum(left @ np.asarray(y[columns], np.float64).T, degree)
    return total


def _self_sum(x: Features, degree: int) -> float:
    """Sum of k(x, x) over rows."""
    norms = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    return _power_sum(norms / x.shape[1], degree)


def _power_sum(base: Matrix, degree: int) -> float:
    """Sum of (base + 1)^degree; ``base`` is overwritten."""
    base += 1
    if degree == 1:
        return float(base.sum())
    k = base
    for _ in range(degree - 2):  # NumPy's power is ten times slower
        k = k * base
    return float(np.vdot(k, base))


METRIC = MetricInfo(
    names=("kd_{features}",),
    higher_is_better=False,
    min_samples=50,
    paper="Bińkowski et al. 2018, arXiv:1801.01401",
    summary="kernel distance: unbiased MMD² with a cubic kernel on the features",
    compute=kernel_score,
)
