"""Fréchet distance between Gaussians fitted to two feature sets.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule" (arXiv:1706.08500), Eq. 6:
|m1 - m2|² + tr C1 + tr C2 - 2 tr (C1 C2)^½. The square root is never formed: its trace is the
sum of the singular values of A Bᵀ for centred samples with C1 = AᵀA, C2 = BᵀB (few samples), or
of the square roots of the eigenvalues of C1^½ C2 C1^½ (few dimensions).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.base import Exam, Matrix, MetricInfo, Score, feature_pair
from evaluation.metrics.intervals import enough_for_interval, jackknife_interval, random_groups

EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class FeatureStatistics:
    """Sample size, mean (D,) and scatter (D, D), the sum of centred outer products; they merge exactly."""

    n: int
    mean: Matrix
    scatter: Matrix

    @classmethod
    def of(cls, features: ArrayLike) -> FeatureStatistics:
        """Statistics of features (N, D), N >= 1."""
        x = np.asarray(features, np.float64)
        mean = x.mean(0)
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Statistics of the union of two disjoint sets (Chan et al. 1979, Eq. 2.1)."""
        n, shift = self.n + other.n, other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(shift, shift) * (self.n * other.n / n)
        return FeatureStatistics(n, self.mean + shift * (other.n / n), scatter)

    def without(self, part: FeatureStatistics) -> FeatureStatistics:
        """Statistics of what remains when a proper subset is taken out; undoes ``merge``."""
        n, shift = self.n - part.n, part.mean - self.mean
        scatter = self.scatter - part.scatter - np.outer(shift, shift) * (self.n * part.n / n)
        return FeatureStatistics(n, self.mean - shift * (part.n / n), scatter)

    @property
    def covariance(self) -> Matrix:
        """Unbiased covariance (D, D)."""
        return self.scatter / (self.n - 1)


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """Fréchet distance between feature sets (N, D) and (M, D), N, M >= 2; in squared feature units."""
    x, y = feature_pair(real, fake)
    if not _few_samples(x, y):
        return frechet_from_statistics(FeatureStatistics.of(x), FeatureStatistics.of(y))
    a, b = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    difference = x.mean(0) - y.mean(0)
    return _assemble(difference, float((a * a).sum() + (b * b).sum()), trace_from_samples(a, b))


def frechet_from_statistics(real: FeatureStatistics, fake: FeatureStatistics) -> float:
    """Fréchet distance between two sets known by their statistics."""
    return _rooted_distance(real, fake, matrix_root(real.covariance))


def trace_from_samples(a: Matrix, b: Matrix) -> float:
    """tr (AᵀA BᵀB)^½ for A (N, D) and B (M, D): the nuclear norm of A Bᵀ, O(N M min(N, M))."""
    return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())


def trace_from_root(root: Matrix, covariance: Matrix) -> float:
    """tr (C1 C2)^½ from C1^½ and C2, both (D, D), O(D³)."""
    return float(np.sqrt(_positive(np.linalg.eigvalsh(root @ covariance @ root))).sum())


def matrix_root(covariance: Matrix) -> Matrix:
    """The symmetric square root of a covariance (D, D)."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(_positive(values))) @ vectors.T


def frechet_score(exam: Exam) -> tuple[Score]:
    """The distance with its jackknife interval (None below two samples per group)."""
    x, y = feature_pair(exam.real, exam.fake)
    value = frechet_distance(x, y)
    if not enough_for_interval(len(x), len(y)):
        return (Score(value),)
    low, high = jackknife_interval(value, _replicates(x, y), _replicates(y, x))
    return (Score(value, max(low, 0.0), high),)


def _few_samples(x: Matrix, y: Matrix) -> bool:
    """Whether singular values of an (N, M) product cost less than eigenvalues of a (D, D) one."""
    return len(x) * len(y) * min(len(x), len(y)) <= x.shape[1] ** 3


def _replicates(x: Matrix, y: Matrix) -> list[float]:
    """Distances without each group of x; where roots are taken, that of y serves them all."""
    groups = random_groups(len(x))
    if _few_samples(x, y):
        return [frechet_distance(np.delete(x, members, 0), y) for members in groups]
    whole, other = FeatureStatistics.of(x), FeatureStatistics.of(y)
    root = matrix_root(other.covariance)
    parts = (FeatureStatistics.of(x[members]) for members in groups)
    return [_rooted_distance(other, whole.without(part), root) for part in parts]


def _rooted_distance(first: FeatureStatistics, second: FeatureStatistics, first_root: Matrix) -> float:
    covariance = second.covariance
    traces = float(np.trace(first.covariance) + np.trace(covariance))
    return _assemble(first.mean - second.mean, traces, trace_from_root(first_root, covariance))


def _assemble(difference: Matrix, traces: float, coupling: float) -> float:
    value = float(difference @ difference) + traces - 2 * coupling
    if value < -len(difference) * EPSILON**0.5 * traces:
        raise ValueError(f"the Fréchet distance came out as {value}, below zero by more than rounding")
    return max(value, 0.0)


def _positive(eigenvalues: NDArray[np.floating]) -> Matrix:
    """Zero what is rounding: the root of a 1e-16 that should be 0 would be a 1e-8."""
    return np.where(eigenvalues > len(eigenvalues) * EPSILON * eigenvalues.max(), eigenvalues, 0.0)


METRIC = MetricInfo(
    names=("fd_{features}",),
    higher_is_better=False,
    min_samples=50,
    paper="Heusel et al. 2017, arXiv:1706.08500",
    summary="Fréchet distance between Gaussians fitted to the features",
    compute=frechet_score,
)
