"""Fréchet distance between Gaussians fitted to two feature sets.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule" (arXiv:1706.08500), Eq. 6:
|m1 - m2|² + tr C1 + tr C2 - 2 tr (C1 C2)^½. The square root is never formed: its trace is the
sum of the singular values of A Bᵀ for centred samples with C1 = AᵀA, C2 = BᵀB (few samples), or
of the square roots of the eigenvalues of Lᵀ C2 L with C1 = L Lᵀ (few dimensions); L is Cholesky's
factor or, where C1 has no full rank, its symmetric square root.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.base import Exam, Features, Matrix, MetricInfo, Score, feature_pair
from evaluation.metrics.intervals import (
    Masks,
    Replicates,
    enough_for_interval,
    interval_score,
    random_groups,
    replicate,
)
from evaluation.metrics.statistics import FeatureStatistics, GroupStatistics

EPSILON = float(np.finfo(np.float64).eps)
SECOND_ORDER_DIMENSIONS = 128  # up to here the 780 distances without two groups cost seconds
STACK_ELEMENTS = 1 << 21  # of the covariances whose eigenvalues are taken at one time: 16 MB


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """Fréchet distance between feature sets (N, D) and (M, D), N, M >= 2; in squared feature units."""
    x, y = feature_pair(real, fake)
    if not _few_samples(x, y):
        return frechet_from_statistics(FeatureStatistics.of(x), FeatureStatistics.of(y))
    means = [z.mean(0, dtype=np.float64) for z in (x, y)]
    a, b = ((z - mean) / (len(z) - 1) ** 0.5 for z, mean in zip((x, y), means, strict=True))
    traces = float((a * a).sum() + (b * b).sum())
    return _assemble(means[0] - means[1], traces, trace_from_samples(a, b))


def frechet_from_statistics(real: FeatureStatistics, fake: FeatureStatistics) -> float:
    """Fréchet distance between two sets known by their statistics."""
    if real.n < 2 or fake.n < 2:
        raise ValueError(f"a covariance needs at least 2 samples a side, not {real.n} and {fake.n}")
    one, other = real.covariance, fake.covariance
    return _assemble(fake.mean - real.mean, float(np.trace(one) + np.trace(other)), trace_from_covariances(one, other))


def trace_from_samples(a: Matrix, b: Matrix) -> float:
    """tr (AᵀA BᵀB)^½ for A (N, D) and B (M, D): the nuclear norm of A Bᵀ, O(N M min(N, M))."""
    return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())


def trace_from_covariances(one: Matrix, other: Matrix) -> float:
    """tr (C1 C2)^½ of covariances (D, D), O(D³); of one pair, LAPACK's symmetric pencil is the quickest way."""
    from scipy.linalg import eigh  # slow to import

    try:  # transposed: the same matrices in LAPACK's own order, which saves copies
        values = eigh(other.T, one.T, type=2, eigvals_only=True, driver="gv", check_finite=False)
    except np.linalg.LinAlgError:  # C1 has no full rank
        return float(trace_from_factor(covariance_factor(one), other[None])[0])
    return float(_roots(values).sum())


def trace_from_factor(factor: Matrix, covariances: Matrix) -> Matrix:
    """tr (C1 C2)^½ (R,) for C1 = L Lᵀ given by L (D, D) and covariances C2 (R, D, D), O(R D³)."""
    return _roots(np.linalg.eigvalsh(factor.T @ covariances @ factor)).sum(-1)


def _roots(values: NDArray[np.floating]) -> Matrix:
    """Square roots of eigenvalues (..., D), zero where they are rounding: the root of a 1e-16 would be a 1e-8."""
    threshold = values.shape[-1] * EPSILON * values.max(-1, keepdims=True)
    return np.asarray(np.sqrt(np.where(values > threshold, values, 0.0)), np.float64)


def covariance_factor(covariance: Matrix) -> Matrix:
    """L (D, D) with L Lᵀ the covariance, of any rank."""
    try:
        return np.asarray(np.linalg.cholesky(covariance), np.float64)
    except np.linalg.LinAlgError:  # not of full rank
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.maximum(values, 0.0))


def group_distances(real: GroupStatistics, fake: GroupStatistics, kept: Masks, kept_fake: Masks) -> Matrix:
    """Distances (R,) between unions of groups; one of the masks (R or 1, G) has one row."""
    if len(kept) > 1:
        return group_distances(fake, real, kept_fake, kept)
    (mean,), (covariance,) = real.unions(kept)
    factor = covariance_factor(covariance)
    step = max(1, STACK_ELEMENTS // real.dimensions**2)
    stacks = (fake.unions(kept_fake[start : start + step]) for start in range(0, len(kept_fake), step))
    return np.array([value for stack in stacks for value in _distances(mean, covariance, *stack, factor)])


def frechet_score(exam: Exam) -> tuple[Score]:
    """The distance with its jackknife interval (None below two samples per group)."""
    x, y = feature_pair(exam.real, exam.fake)
    value = frechet_distance(x, y)
    if not enough_for_interval(len(x), len(y)):
        return (Score(value),)
    return (interval_score(value, _replicates(x, y), least=0.0),)


def _few_samples(x: Features, y: Features) -> bool:
    """Whether singular values of an (N, M) product cost less than eigenvalues of a (D, D) one."""
    return len(x) * len(y) * min(len(x), len(y)) <= x.shape[1] ** 3


def _replicates(x: Features, y: Features) -> Replicates:
    """Distances without groups of either side."""
    real, fake = random_groups(len(x)), random_groups(len(y))
    second_order = x.shape[1] <= SECOND_ORDER_DIMENSIONS
    if _few_samples(x, y) and not second_order:
        without_real = [frechet_distance(np.delete(x, rows, 0), y) for rows in real]
        return Replicates(
            np.array(without_real), np.array([frechet_distance(x, np.delete(y, rows, 0)) for rows in fake]), None
        )
    groups = (GroupStatistics(x, real), GroupStatistics(y, fake))
    return replicate(lambda kept, kept_fake: group_distances(*groups, kept, kept_fake), second_order=second_order)


def _distances(
    mean: Matrix, covariance: Matrix, means: Matrix, covariances: Matrix, factor: Matrix
) -> Matrix:
    """Eq. 6 between one Gaussian, (D,) and (D, D) with its factor, and R others, (R, D) and (R, D, D)."""
    coupling = trace_from_factor(factor, covariances)
    traces = np.trace(covariance) + np.trace(covariances, axis1=-2, axis2=-1)
    return np.array([_assemble(m - mean, float(t), float(c)) for m, t, c in zip(means, traces, coupling, strict=True)])


def _assemble(difference: Matrix, traces: float, coupling: float) -> float:
    value = float(difference @ difference) + traces - 2 * coupling
    if value < -len(difference) * EPSILON**0.5 * traces:
        raise ValueError(f"the Fréchet distance came out as {value}, below zero by more than rounding")
    return max(value, 0.0)


METRIC = MetricInfo(
    names=("fd_{features}",),
    higher_is_better=False,
    min_samples=50,
    paper="Heusel et al. 2017, arXiv:1706.08500",
    summary="Fréchet distance between Gaussians fitted to the features",
    compute=frechet_score,
)
