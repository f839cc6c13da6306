"""Kernel distances and CMMD against torch-fidelity, plain double sums and their expectations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch_fidelity import metric_kid

from evaluation.metrics import Exam, cmmd, kernel_distance, kernel_distance_subsets
from evaluation.metrics.intervals import without_one
from evaluation.metrics.kernel import bias_taken_off, kernel_score, kernel_sums, unbiased_mmd

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
    (score,) = kernel_score(Exam("toy", x, y))
    assert score.value == pytest.approx(kernel_distance(x, y), rel=1e-11)
    assert score.ci_low is not None and score.ci_high is not None
    assert score.ci_low < score.value < score.ci_high
    (few,) = kernel_score(Exam("toy", x[:30], y))
    assert (few.value, few.ci_low) == (pytest.approx(kernel_distance(x[:30], y)), None)


def test_masked_sums_are_distances_without_a_part() -> None:
    real, fake = [features(n, 20 + n) for n in (3, 4, 6)], [features(n, 30 + n, shift=0.3) for n in (8, 2, 5)]
    sums = kernel_sums(real, fake)
    assert float(unbiased_mmd(sums)[0]) == pytest.approx(double_sum(np.concatenate(real), np.concatenate(fake)))
    values = unbiased_mmd(sums, without_one(3), without_one(3)[::-1])
    for a, value in enumerate(values):
        rest = [np.concatenate([p for i, p in enumerate(side) if i != b]) for side, b in ((real, a), (fake, 2 - a))]
        assert value == pytest.approx(double_sum(*rest))


def test_bias_taken_off_makes_it_the_squared_norm() -> None:
    x, y = features(13, 40), features(9, 41, shift=0.2)

    def mean(a: Array, b: Array) -> float:
        return float(((a @ b.T / 10 + 1) ** 3).mean())

    sums = kernel_sums([x[:5], x[5:]], [y])
    biased = mean(x, x) + mean(y, y) - 2 * mean(x, y)
    assert float(unbiased_mmd(sums)[0]) + bias_taken_off(sums) == pytest.approx(biased, rel=1e-10)


def theirs_in_subsets(x: Array, y: Array, subsets: int, size: int, seed: int) -> tuple[float, float]:
    found = metric_kid.kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=subsets, kid_subset_size=size, rng_seed=seed,
        verbose=False, kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1,
    )  # fmt: skip
    return found[metric_kid.KEY_METRIC_KID_MEAN], found[metric_kid.KEY_METRIC_KID_STD]


@pytest.mark.parametrize("seed", [2020, 3])
def test_subsets_are_torch_fidelitys(seed: int) -> None:
    x, y = features(300, 50, d=48), features(260, 51, d=48, shift=0.1)
    ours = kernel_distance_subsets(x, y, subsets=20, size=100, seed=seed)
    assert ours == pytest.approx(theirs_in_subsets(x, y, 20, 100, seed), rel=1e-9)
    single = kernel_distance_subsets(x.astype(np.float32), y.astype(np.float32), subsets=20, size=100, seed=seed)
    theirs = theirs_in_subsets(x.astype(np.float32), y.astype(np.float32), 20, 100, seed)
    assert single == pytest.approx(theirs, rel=1e-4)  # they compute in float32


def test_subsets_need_as_many_samples() -> None:
    with pytest.raises(ValueError, match="60 real samples are too few; at least 100 are needed"):
        kernel_distance_subsets(features(60, 0), features(200, 1), size=100)


@pytest.mark.parametrize(("n", "m"), [(40, 30), (2_100, 50)])  # within a block; across two
def test_cmmd_is_its_definition(n: int, m: int) -> None:
    x, y = features(n, 60, d=12, shift=0.5), features(m, 61, d=12)
    u, v = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))

    def mean(a: Array, b: Array) -> float:
        return float(np.exp(-cdist(a, b, "sqeuclidean") / (2 * 10.0**2)).mean())

    expected = 1000 * (mean(u, u) + mean(v, v) - 2 * mean(u, v))
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-8)
    assert cmmd(7 * x, torch.from_numpy(y)) == pytest.approx(expected, rel=1e-8)
    assert cmmd(x, y, scale=1.0) == pytest.approx(expected / 1000, rel=1e-8)


def test_cmmd_of_two_opposite_points_by_hand() -> None:
    assert cmmd([[2.0, 0]], [[-1.0, 0]], sigma=1.0, scale=1.0) == pytest.approx(2 - 2 * np.exp(-2))
    assert cmmd(features(20, 0), features(20, 0)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: cmmd(np.zeros((3, 2)), np.ones((3, 2))), "a row of zeros has no direction"),
        (lambda: cmmd(np.ones((3, 2)), np.ones((3, 2)), sigma=0), "sigma must be positive, not 0"),
        (lambda: kernel_distance(np.ones((3, 2)), np.ones((3, 2)), degree=0), "degree and block must be at least 1"),
    ],
)
def test_bad_input(call: Callable[[], float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
