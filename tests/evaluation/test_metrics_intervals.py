"""Do 95 % intervals hold the true value in about 95 % of cases? Counted, on simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evaluation.metrics import Exam, frechet_distance, kernel_distance
from evaluation.metrics.frechet import _replicates, frechet_score
from evaluation.metrics.intervals import enough_for_interval, jackknife_interval, random_groups
from evaluation.metrics.kernel import kernel_score

CASES = 200
METHODS = {"fd": (frechet_distance, frechet_score), "kd": (kernel_distance, kernel_score)}
# d, n real, n fake, mean shift, scale: shifted, spread, unequal n, close, and the same distribution
SETTINGS = [
    (4, 100, 100, 0.5, 1.0),
    (4, 100, 100, 0.0, 1.5),
    (8, 200, 150, 0.3, 0.8),
    (4, 100, 100, 0.1, 1.0),
    (4, 100, 100, 0.0, 1.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_coverage(method: str, setting: tuple[int, int, int, float, float]) -> None:
    """The expected value at this n (mean over 2,000 other draws) lies inside in 90-99 % of cases."""
    d, n, m, shift, scale = setting
    distance, score = METHODS[method]
    rng = np.random.default_rng(0)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(n, d)), rng.normal(size=(m, d)) * scale + shift

    expected = np.mean([distance(*draw()) for _ in range(2_000)])
    scores = [score(Exam(*draw()))[0] for _ in range(CASES)]
    covered = np.mean([s.ci_low <= expected <= s.ci_high for s in scores])
    assert 0.90 <= covered <= 0.99


def test_interval_of_a_mean_difference_is_welchs() -> None:
    """For means and groups of one, the jackknife is Welch's t interval exactly."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=20), rng.normal(1, 3, size=20)
    replicates = [[np.delete(a, i).mean() for i in range(20)] for a in (x, y)]
    real = [r - y.mean() for r in replicates[0]]
    fake = [x.mean() - r for r in replicates[1]]
    low, high = jackknife_interval(x.mean() - y.mean(), real, fake)
    welch = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert (low, high) == pytest.approx((welch.low, welch.high), rel=1e-9)


def test_no_variation_no_width() -> None:
    assert jackknife_interval(2.0, [2.0] * 20, [2.0] * 20) == (2.0, 2.0)


def test_groups_are_a_random_partition() -> None:
    groups = random_groups(1003)
    assert sorted(np.concatenate(groups)) == list(range(1003))
    assert {len(g) for g in groups} == {50, 51}
    for labels in (np.arange(1003) % 10, np.arange(1003) // 101):  # in turn; sorted
        assert all(len(set(labels[g])) >= 8 for g in groups)
    assert all((a == b).all() for a, b in zip(groups, random_groups(1003), strict=True))


def test_no_interval_from_too_few_samples() -> None:
    assert enough_for_interval(40, 40) and not enough_for_interval(39, 400)
    x = np.random.default_rng(2).normal(size=(39, 3))
    assert frechet_score(Exam(x, x + 1))[0].ci_low is None


@pytest.mark.parametrize("d", [3, 200])  # by eigenvalues of merged statistics; by singular values
def test_replicates_are_distances_without_a_group(d: int) -> None:
    x, y = np.random.default_rng(4).normal(size=(2, 60, d))
    expected = [frechet_distance(np.delete(x, members, 0), y) for members in random_groups(60)]
    assert _replicates(x, y) == pytest.approx(expected, rel=1e-9)


def test_lower_end_of_a_distance_is_not_negative() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 60, 3))
    low = frechet_score(Exam(x, y))[0].ci_low
    assert low is not None and low >= 0
