"""Mean and scatter of feature sets: they merge exactly over shards, processes and groups of samples.

A million samples need no more memory than ten thousand: features are read in blocks, and parts of a
set are merged (Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample
variances", Eq. 2.1). Everything is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.base import Features, Matrix, feature_set, mean_of, row_blocks


@dataclass(frozen=True)
class FeatureStatistics:
    """Sample size, mean (D,) and scatter (D, D), the sum of centred outer products; they merge exactly."""

    n: int
    mean: Matrix
    scatter: Matrix

    @classmethod
    def of(cls, features: ArrayLike) -> FeatureStatistics:
        """Statistics of features (N, D), N >= 1."""
        x = feature_set(features, "given")
        return cls._of_rows(x, np.arange(len(x)))

    @classmethod
    def _of_rows(cls, x: Features, rows: NDArray[np.intp]) -> FeatureStatistics:
        """Statistics of some rows of features (N, D)."""
        blocks = [rows[part] for part in row_blocks(len(rows))]
        mean = sum((x[block].sum(0, dtype=np.float64) for block in blocks), np.zeros(x.shape[1])) / len(rows)
        scatter = np.zeros((x.shape[1], x.shape[1]))
        for block in blocks:
            centred = x[block] - mean  # float64, as the mean is
            scatter += centred.T @ centred
        return cls(len(rows), mean, scatter)

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


class GroupStatistics:
    """Statistics of disjoint groups of a set, and from them those of any union of groups."""

    def __init__(self, features: Features, groups: Sequence[NDArray[np.intp]]) -> None:
        d = features.shape[1]
        self.centre = mean_of(features)
        self.sizes = np.array([len(rows) for rows in groups], np.float64)  # (G,)
        self.means = np.empty((len(groups), d))  # (G, D), from the centre
        self.scatters = np.empty((len(groups), d, d))  # (G, D, D)
        for a, rows in enumerate(groups):
            part = FeatureStatistics._of_rows(features, rows)
            self.means[a], self.scatters[a] = part.mean - self.centre, part.scatter

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.centre)

    def unions(self, masks: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
        """Means (R, D) and unbiased covariances (R, D, D) of the groups that each mask (R, G) keeps."""
        weights = masks * self.sizes
        n = weights.sum(1)
        means = weights @ self.means / n[:, None]
        flat = self.scatters.reshape(len(self.scatters), -1)
        scatters = (masks.astype(np.float64) @ flat).reshape(len(masks), *self.scatters.shape[1:])
        for row, weight in enumerate(weights):  # between the groups
            spread = self.means - means[row]
            scatters[row] += (spread * weight[:, None]).T @ spread
        scatters /= (n - 1)[:, None, None]
        return means + self.centre, scatters
