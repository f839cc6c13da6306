"""Vendi score: the effective number of different samples in a set.

Friedman and Dieng 2023 (arXiv:2210.02410) and, for order q, Pasarkar and Dieng 2024
(arXiv:2310.12952): the exponential of the Rényi entropy of the eigenvalues of K / N, K the cosine
similarities. K = X Xᵀ (N, N) and Xᵀ X (D, D) have the same eigenvalues but for zeros: the smaller is used.
It looks at the generated side alone, and a noisy set is diverse too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import Exam, Features, Matrix, MetricInfo, Score, feature_set, row_blocks
from evaluation.metrics.cmmd import unit_rows


def vendi_score(features: ArrayLike, q: float = 1.0) -> float:
    """Effective number of samples, from 1 to min(N, D), of features (N, D) by their cosine similarity.

    Args:
        features: (N, D), no row of zeros.
        q: Order of the entropy, q >= 0: 1 is Shannon's, small ones weigh rare features more, infinity
            looks at the largest eigenvalue only.
    """
    x = feature_set(features, "given")
    if not q >= 0:
        raise ValueError(f"the order q must be at least 0, not {q}")
    values = np.linalg.eigvalsh(_smaller_gram(x))
    values = values[values > len(values) * np.finfo(np.float64).eps * values.max()]  # the others are rounding
    values /= values.sum()
    if q == 1:
        return float(np.exp(-(values * np.log(values)).sum()))
    if np.isinf(q):
        return float(1 / values.max())
    return float((values**q).sum() ** (1 / (1 - q)))


def _smaller_gram(x: Features) -> Matrix:
    """X Xᵀ / N or Xᵀ X / N of the normalised rows."""
    if len(x) <= x.shape[1]:
        unit = unit_rows(x)
        return unit @ unit.T / len(x)
    gram = np.zeros((x.shape[1], x.shape[1]))
    for rows in row_blocks(len(x)):
        unit = unit_rows(x[rows])
        gram += unit.T @ unit
    return gram / len(x)


def vendi_metric(exam: Exam) -> tuple[Score]:
    """The score of the generated side; no interval, as none with tested coverage is known."""
    return (Score(vendi_score(exam.fake)),)


METRIC = MetricInfo(
    names=("vendi",),
    higher_is_better=True,
    min_samples=50,
    paper="Friedman and Dieng 2023, arXiv:2210.02410",
    summary="effective number of different generated images, by the cosine similarity of their features",
    compute=vendi_metric,
)
