"""Tests for copying: silent when nothing was copied, loud when something was.

Meehan et al. 2020 (arXiv:2004.05675), Alaa et al. 2022 (arXiv:2102.08921).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.selftest.base import (
    Check,
    Finding,
    all_of,
    at_most,
    close,
    largest_deviation,
    mean_within_error,
    within,
)

GROUP = "memorization"
Array = NDArray[np.float64]


def draws(rng: np.random.Generator, *sizes: int, d: int = 2) -> list[Array]:
    """Standard normal sets of these sizes."""
    return [rng.normal(size=(n, d)) for n in sizes]


def nearest() -> Finding:
    """Distances to the nearest row, against SciPy's tree."""
    from scipy.spatial import KDTree

    from evaluation.memorization import nearest_distances

    x, y = draws(np.random.default_rng(0), 200, 300, d=5)
    y[:20] = x[:20]
    expected = KDTree(y).query(x)[0]
    found = [nearest_distances(x, y, block=block) for block in (None, 7)]
    return largest_deviation([expected] * 2, found, absolute=1e-5)


def ranks() -> Finding:
    """The rank test against SciPy's, with ties and without."""
    from scipy.stats import mannwhitneyu, norm

    from evaluation.memorization import mann_whitney_z

    rng = np.random.default_rng(6)
    tied = rng.integers(0, 4, 25).astype(float), rng.integers(0, 5, 35).astype(float)
    pairs = [(rng.normal(size=40), rng.normal(size=30) + 0.3), tied]
    expected = [
        norm.isf(mannwhitneyu(b, a, alternative="greater", method="asymptotic", use_continuity=False).pvalue)
        for a, b in pairs
    ]
    return largest_deviation(expected, [mann_whitney_z(a, b) for a, b in pairs], relative=1e-7)


def ct_null() -> Finding:
    """Samples of the training law: C_T has mean 0 ..."""
    return mean_within_error(0.0, ct_null_draws(), largest_error=0.15)


def ct_spread() -> Finding:
    """... and standard deviation 1."""
    values = ct_null_draws()
    return within(0.75, values.std(ddof=1), 1.25, note=f"{len(values)} repetitions")


def ct_null_draws() -> Array:
    """C_T of fresh sets of one law."""
    from evaluation.memorization import ct_test

    rng = np.random.default_rng(1)
    return np.array([float(ct_test(*draws(rng, 400, 300, 300))) for _ in range(100)])


def ct_copies() -> Finding:
    """Half of the samples are training samples moved a hair: far below zero."""
    from evaluation.memorization import ct_test

    rng = np.random.default_rng(2)
    train, held_out, fake = draws(rng, 400, 300, 300)
    fake[::2] = train[:150] + 1e-3 * rng.normal(size=(150, 2))
    return at_most(-5.0, float(ct_test(train, held_out, fake)))


def authentic_shares(d: int, repetitions: int) -> list[float]:
    """AuthPct of fresh uniform samples."""
    from evaluation.memorization import authpct

    rng = np.random.default_rng(3)
    return [float(authpct(rng.random((800, d)), rng.random((300, d)))) for _ in range(repetitions)]


def authpct_same_law() -> Finding:
    """A fresh sample and its nearest one are each other's nearest with probability 2 / 3 on a line."""
    # Pickard 1982: mutual nearest neighbours; a sample that is not the other's nearest is authentic.
    return mean_within_error(100 / 3, authentic_shares(1, 60), largest_error=0.6)


def authpct_plane() -> Finding:
    """... and 6 pi / (8 pi + 3 sqrt 3) in the plane."""
    mutual = 6 * np.pi / (8 * np.pi + 3 * np.sqrt(3))
    # the plane has an edge: a band of relative width 1 / sqrt(800) sees other neighbours
    return close(100 * (1 - mutual), np.mean(authentic_shares(2, 60)), absolute=1.5)


def authpct_copies() -> Finding:
    """Copies are never authentic, samples from elsewhere always."""
    from evaluation.memorization import authpct

    train, _ = draws(np.random.default_rng(4), 200, 10)
    return all_of(close(100, authpct(train, train[:50] + 100), absolute=0), close(0, authpct(train, train), absolute=0))


def gap_values(copied: float) -> Array:
    """The gap of samples of which a share is copied, with far more training than held-out samples."""
    from evaluation.memorization import memorization_gap

    rng = np.random.default_rng(5)
    values = []
    for _ in range(40):
        train, held_out, fake = draws(rng, 1500, 200, 250, d=4)
        count = int(copied * len(fake))
        fake[:count] = train[:count]
        values.append(float(memorization_gap(train, held_out, fake)))
    return np.array(values)


def gap_null() -> Finding:
    """Nothing copied: the gap is 0 though the training set is the larger one by far."""
    values = gap_values(0.0)
    return mean_within_error(0.0, values, largest_error=0.1 * float(gap_values(1.0).mean()))


def gap_copies() -> Finding:
    """Two in ten copied: the gap is the share of copies."""
    return mean_within_error(0.2, gap_values(0.2), largest_error=0.04)


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("nearest distances vs SciPy", nearest),
        ("rank test vs SciPy", ranks),
        ("C_T without copying: mean", ct_null),
        ("C_T without copying: spread", ct_spread),
        ("C_T with copying", ct_copies),
        ("AuthPct without copying, on a line", authpct_same_law),
        ("AuthPct without copying, in a plane", authpct_plane),
        ("AuthPct of copies", authpct_copies),
        ("memorisation gap without copying", gap_null),
        ("memorisation gap with copying", gap_copies),
    )
)
