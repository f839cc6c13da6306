"""Kernel distance against torch-fidelity, a plain double sum and its expectation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity import metric_kid

from evaluation.metrics import Exam, kernel_distance
from evaluation.metrics.kernel import KernelSums, _replicates, kernel_score, unbiased_mmd

Array = np.ndarray


def features(n: int, seed: int, d: int = 10, shift: float = 0.0) -> Array:
    """Standard normal samples."""
    return np.random.default_rng(seed).normal(shift, 1, size=(n, d))


def double_sum(x: Array, y: Array, degree: int = 3) -> float:
    """Bińkowski et al. 2018, Eq. 3, pair by pair."""

    def mean(a: Array, b: Array, same: bool) -> float:
        return float(np.mean([
            (u @ v / x.shape[1] + 1) ** degree
            for i, u in enumerate(a) for j, v in enumerate(b) if not (same and i == j)
        ]))  # fmt: skip

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_double_sum(degree: int) -> None:
    x, y = features(17, 0), features(23, 1, shift=0.4)
    assert kernel_distance(x, y, degree) == pytest.approx(double_sum(x, y, degree), rel=1e-10)


def test_torch_fidelity() -> None:
    x, y = features(300, 2, d=64), features(300, 3, d=64, shift=0.1)
    theirs = metric_kid.kernel_mmd(
        x, y, kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1
    )
    assert kernel_distance(x, y) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_block_size_does_not_matter(block: int) -> None:
    x, y = features(50, 4), features(64, 5, shift=0.2)
    assert kernel_distance(x, y, block=block) == pytest.approx(kernel_distance(x, y), rel=1e-11)


def test_unbiased_where_the_distributions_are_equal() -> None:
    values = [kernel_distance(features(40, 2 * s), features(30, 2 * s + 1)) for s in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(400)
    assert min(values) < 0 < max(values)


def test_linear_kernel_estimates_the_squared_mean_difference() -> None:
    values = [
        kernel_distance(features(40, 2 * s), features(30, 2 * s + 1, shift=0.5), degree=1) for s in range(400)
    ]
    assert np.mean(values) == pytest.approx(0.25, abs=3 * np.std(values) / np.sqrt(400))


def test_symmetric_permutation_invariant_and_takes_torch() -> None:
    rng = np.random.default_rng(6)
    x, y = features(60, 7), features(45, 8, shift=0.3)
    expected = kernel_distance(x, y)
    assert kernel_distance(y, x) == pytest.approx(expected, rel=1e-11)
    assert kernel_distance(rng.permutation(x), rng.permutation(y)) == pytest.approx(expected, rel=1e-11)
    assert kernel_distance(torch.from_numpy(x), torch.from_numpy(y)) == expected


def test_same_set_twice_is_close_to_zero_and_never_above() -> None:
    x = features(200, 9)
    assert -0.2 < kernel_distance(x, x) <= 0  # the pairs of a sample with itself count in the cross term only


def test_score_is_the_distance_with_an_interval_around_it() -> None:
    x, y = features(90, 10), features(75, 11, shift=0.3)
    (score,) = kernel_score(Exam(x, y))
    assert score.value == pytest.approx(kernel_distance(x, y), rel=1e-11)
    assert score.ci_low is not None and score.ci_high is not None
    assert score.ci_low < score.value < score.ci_high
    (few,) = kernel_score(Exam(x[:30], y))
    assert (few.value, few.ci_low) == (pytest.approx(kernel_distance(x[:30], y)), None)


def test_replicates_are_distances_without_a_block() -> None:
    blocks = [features(n, 20 + n) for n in (3, 4, 6)]
    y = features(8, 12)
    k = [[(a @ b.T / 10 + 1) ** 3 for b in (*blocks, y)] for a in (*blocks, y)]
    sums = np.array(
        [[m.sum() - (np.trace(m) if i == j else 0) for j, m in enumerate(r)] for i, r in enumerate(k)]
    )
    whole = KernelSums(sums[:3, :3], sums[3:, 3:], sums[:3, 3:], 13, 8)
    assert unbiased_mmd(whole) == pytest.approx(double_sum(np.concatenate(blocks), y))
    for a, value in enumerate(_replicates(whole, (3, 4, 6))):
        rest = np.concatenate([b for i, b in enumerate(blocks) if i != a])
        assert value == pytest.approx(double_sum(rest, y))
