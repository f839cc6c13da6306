"""Kernel distance: unbiased squared maximum mean discrepancy with a polynomial kernel.

Bińkowski et al. 2018, "Demystifying MMD GANs" (arXiv:1801.01401), Eq. 3 and section 4.1:
k(x, y) = (x·y / D + 1)³. All pairs are used where the paper averages over random subsets, so the
number has no sampling noise of its own; it is unbiased at any n and may fall below zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import Exam, Matrix, MetricInfo, Score, feature_pair
from evaluation.metrics.intervals import enough_for_interval, jackknife_interval, random_groups


class KernelSums(NamedTuple):
    """Sums of k over pairs of blocks, without the pairs of a sample with itself.

    ``real`` (A, A), ``fake`` (B, B) and ``cross`` (A, B); ``n_real`` and ``n_fake`` are the samples
    behind all of them.
    """

    real: Matrix
    fake: Matrix
    cross: Matrix
    n_real: int
    n_fake: int


def kernel_distance(real: ArrayLike, fake: ArrayLike, degree: int = 3, block: int = 1024) -> float:
    """Unbiased MMD² between feature sets (N, D) and (M, D), N, M >= 2; dimensionless.

    Args:
        real: Features of real images, (N, D).
        fake: Features of generated images, (M, D).
        degree: Degree of the polynomial kernel, at least 1.
        block: Samples per block; memory grows with its square, the result does not depend on it.
    """
    x, y = feature_pair(real, fake)
    return unbiased_mmd(_all_sums(_cut(x, block), _cut(y, block), degree))


def unbiased_mmd(sums: KernelSums) -> float:
    """Eq. 3 from the sums."""
    m, n = sums.n_real, sums.n_fake
    within = sums.real.sum() / (m * (m - 1)) + sums.fake.sum() / (n * (n - 1))
    return float(within - 2 * sums.cross.sum() / (m * n))


def kernel_score(exam: Exam) -> tuple[Score]:
    """The distance with its jackknife interval (None below two samples per group)."""
    x, y = feature_pair(exam.real, exam.fake)
    if not enough_for_interval(len(x), len(y)):
        return (Score(kernel_distance(x, y)),)
    real = [x[members] for members in random_groups(len(x))]
    fake = [y[members] for members in random_groups(len(y))]
    sums = _all_sums(real, fake, degree=3)
    value = unbiased_mmd(sums)
    swapped = KernelSums(sums.fake, sums.real, sums.cross.T, sums.n_fake, sums.n_real)
    replicates = (_replicates(sums, map(len, real)), _replicates(swapped, map(len, fake)))
    return (Score(value, *jackknife_interval(value, *replicates)),)


def _replicates(sums: KernelSums, sizes: Iterable[int]) -> list[float]:
    """The distance without each block of the first side."""
    return [
        unbiased_mmd(
            sums._replace(
                real=np.delete(np.delete(sums.real, a, 0), a, 1),
                cross=np.delete(sums.cross, a, 0),
                n_real=sums.n_real - size,
            )
        )
        for a, size in enumerate(sizes)
    ]


def _cut(features: Matrix, block: int) -> list[Matrix]:
    return [features[start : start + block] for start in range(0, len(features), block)]


def _all_sums(real: list[Matrix], fake: list[Matrix], degree: int) -> KernelSums:
    cross = np.array([[_kernel(a, b, degree).sum() for b in fake] for a in real])
    n_real, n_fake = (sum(map(len, blocks)) for blocks in (real, fake))
    return KernelSums(_self_sums(real, degree), _self_sums(fake, degree), cross, n_real, n_fake)


def _self_sums(blocks: list[Matrix], degree: int) -> Matrix:
    sums = np.zeros((len(blocks), len(blocks)))
    for a, first in enumerate(blocks):
        for b, second in enumerate(blocks[: a + 1]):
            k = _kernel(first, second, degree)
            if a == b:
                np.fill_diagonal(k, 0.0)
            sums[a, b] = sums[b, a] = k.sum()
    return sums


def _kernel(x: Matrix, y: Matrix, degree: int) -> Matrix:
    base = x @ y.T / x.shape[1] + 1
    k = base.copy()
    for _ in range(degree - 1):  # NumPy's power is ten times slower
        k *= base
    return k


METRIC = MetricInfo(
    names=("kd_{features}",),
    higher_is_better=False,
    min_samples=50,
    paper="Bińkowski et al. 2018, arXiv:1801.01401",
    summary="kernel distance: unbiased MMD² with a cubic kernel on the features",
    compute=kernel_score,
)
