"""Do 95 % intervals hold the true value in about 95 % of cases? Counted, on simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evaluation.metrics import Exam, frechet_distance, frechet_infinity, kernel_distance
from evaluation.metrics.frechet import _replicates, frechet_score
from evaluation.metrics.frechet_infinity import frechet_infinity_score
from evaluation.metrics.intervals import (
    METHOD,
    SECOND_ORDER,
    Replicates,
    enough_for_interval,
    jackknife_interval,
    random_groups,
    replicate,
    score_interval,
)
from evaluation.metrics.kernel import kernel_score

Setting = tuple[int, int, int, float, float]
METHODS = {"fd": (frechet_distance, frechet_score), "kd": (kernel_distance, kernel_score)}
# d, n real, n fake, mean shift, scale: different laws, slightly different ones and the same law
DIFFERENT = [(4, 100, 100, 0.5, 1.0), (8, 200, 150, 0.3, 0.8), (4, 100, 100, 0.0, 1.5)]
CLOSE = [(4, 100, 100, 0.1, 1.0), (4, 100, 100, 0.2, 1.0), (20, 400, 400, 0.05, 1.0)]
SAME = [(1, 100, 100, 0.0, 1.0), (4, 100, 100, 0.0, 1.0), (20, 400, 400, 0.0, 1.0)]


def draw(setting: Setting, rng: np.random.Generator) -> Exam:
    """Two normal sets."""
    d, n, m, shift, scale = setting
    return Exam("toy", rng.normal(size=(n, d)), rng.normal(size=(m, d)) * scale + shift)


def true_distance(setting: Setting) -> float:
    """Between the laws."""
    d, _, _, shift, scale = setting
    return d * (shift**2 + (scale - 1) ** 2)


def coverage_at_n(method: str, setting: Setting, draws: int, cases: int) -> float:
    """How often the interval holds the expected value at this n, known from other draws."""
    distance, score = METHODS[method]
    rng = np.random.default_rng(0)
    exams = (draw(setting, rng) for _ in range(draws))
    expected = np.mean([distance(exam.real, exam.fake) for exam in exams])
    scores = [score(draw(setting, rng))[0] for _ in range(cases)]
    return float(np.mean([s.ci_low <= expected <= s.ci_high for s in scores]))


@pytest.mark.parametrize("setting", [DIFFERENT[0], CLOSE[1], SAME[1]], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_coverage(method: str, setting: Setting) -> None:
    assert 0.90 <= coverage_at_n(method, setting, draws=1_000, cases=120) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("setting", DIFFERENT + CLOSE + SAME, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_coverage_in_every_setting(method: str, setting: Setting) -> None:
    assert 0.90 <= coverage_at_n(method, setting, draws=5_000, cases=1_000) <= 0.99


def infinity_coverage(setting: Setting, cases: int) -> float:
    """How often the interval of the extrapolated distance holds the distance between the laws."""
    rng = np.random.default_rng(1)
    scores = [frechet_infinity_score(draw(setting, rng))[0] for _ in range(cases)]
    return float(np.mean([s.ci_low <= true_distance(setting) <= s.ci_high for s in scores]))


def test_coverage_of_the_extrapolated_distance() -> None:
    assert 0.90 <= infinity_coverage((4, 200, 200, 0.3, 1.0), cases=120) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("setting", DIFFERENT + CLOSE + SAME, ids=str)
def test_coverage_of_the_extrapolated_distance_in_every_setting(setting: Setting) -> None:
    assert 0.90 <= infinity_coverage(setting, cases=500) <= 0.99


@pytest.mark.parametrize("setting", [(6, 120, 120, 0.0, 1.0), (6, 120, 90, 0.4, 1.0)], ids=str)
def test_extrapolation_takes_the_bias_off(setting: Setting) -> None:
    rng = np.random.default_rng(2)
    exams = [draw(setting, rng) for _ in range(100)]
    found = [frechet_infinity(exam.real, exam.fake, seed=s) for s, exam in enumerate(exams)]
    values, error = [f.value for f in found], np.std([f.value for f in found])
    biased = np.mean([frechet_distance(exam.real, exam.fake) for exam in exams])
    truth = true_distance(setting)
    assert np.mean(values) == pytest.approx(truth, abs=4 * error / 10)
    assert biased - truth > 20 * abs(np.mean(values) - truth) or biased - truth > 6 * error / 10
    assert np.mean([f.error for f in found]) == pytest.approx(error, rel=0.3)


def test_extrapolation_is_seeded_and_needs_more_samples_than_dimensions() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 100, 5))
    assert frechet_infinity(x, y, seed=1) == frechet_infinity(x, y, seed=1) != frechet_infinity(x, y, seed=2)
    with pytest.raises(ValueError, match="smallest subset, 30 samples, must have more samples than"):
        frechet_infinity(*np.ones((2, 100, 30)))
    with pytest.raises(ValueError, match="at least 3 points"):
        frechet_infinity(x, y, points=2)


def test_second_order_is_the_variance_from_pairs() -> None:
    """|mean x - mean y|² of the same law: all variance is from pairs, and the first order counts it twice."""
    rng = np.random.default_rng(4)
    values, jackknife, pairs = [], [], []
    for _ in range(400):
        x, y = rng.normal(size=(2, 20, 3))

        def statistic(kept: np.ndarray, kept_fake: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
            means = [mask @ z / mask.sum(1, keepdims=True) for mask, z in ((kept, x), (kept_fake, y))]
            return ((means[0] - means[1]) ** 2).sum(1)

        found = replicate(statistic)
        values.append(((x.mean(0) - y.mean(0)) ** 2).sum())
        jackknife.append(19 * (found.real.var() + found.fake.var()))
        pairs.append(found.second_order)
    # 20 rows a side: pairs of a row with itself are a first-order part, 1/20 of the second-order one.
    assert np.mean(pairs) == pytest.approx(np.var(values), rel=0.2)
    assert np.mean(jackknife) == pytest.approx(2 * np.var(values), rel=0.2)


def test_linear_statistics_have_no_second_order() -> None:
    x, y = np.random.default_rng(5).normal(size=(2, 20))

    def difference(kept: np.ndarray, kept_fake: np.ndarray) -> np.ndarray:
        return kept @ x / kept.sum(1) - kept_fake @ y / kept_fake.sum(1)

    found = replicate(difference)
    assert found.second_order == pytest.approx(0, abs=1e-25)
    assert found.real == pytest.approx([np.delete(x, i).mean() - y.mean() for i in range(20)])


def test_score_interval_is_where_the_value_is_t_errors_off() -> None:
    rng = np.random.default_rng(6)
    found = Replicates(5 + 0.1 * rng.normal(size=20), 5 + 0.05 * rng.normal(size=20), 0.01)
    first = jackknife_interval(5.0, found.real, found.fake)
    low, high = score_interval(5.0, 0.2, found)
    variance = 19 * (found.real.var() + found.fake.var())
    t = (first[1] - 5) / variance**0.5
    for end in (low, high):  # the definition, at both ends
        own = variance * (end + 0.2) / 5.2 - 0.01
        assert abs(5.0 - end) == pytest.approx(t * own**0.5)
    flat = score_interval(5.0, 0.2, found._replace(second_order=10.0))
    assert flat == pytest.approx((5 - t * 10**0.5, 5 + t * 10**0.5))


def test_method_is_named() -> None:
    rng = np.random.default_rng(7)
    assert {score(draw(CLOSE[0], rng))[0].ci_method for score in (frechet_score, kernel_score)} == {SECOND_ORDER}
    wide = Exam("toy", *rng.normal(size=(2, 40, 140)))
    assert frechet_score(wide)[0].ci_method == METHOD


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
    assert score_interval(2.0, 0.0, Replicates(np.full(20, 2.0), np.full(20, 2.0), 0.0)) == (2.0, 2.0)


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
    assert frechet_score(Exam("toy", x, x + 1))[0].ci_low is None


@pytest.mark.parametrize("d", [3, 200])  # by eigenvalues of merged statistics; by singular values
def test_replicates_are_distances_without_a_group(d: int) -> None:
    x, y = np.random.default_rng(4).normal(size=(2, 60, d))
    found = _replicates(x, y)
    for side, pair in ((found.real, (x, y)), (found.fake, (y, x))):
        expected = [frechet_distance(np.delete(pair[0], members, 0), pair[1]) for members in random_groups(60)]
        assert side == pytest.approx(expected, rel=1e-8)


def test_lower_end_of_a_distance_is_not_negative() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 60, 3))
    low = frechet_score(Exam("toy", x, y))[0].ci_low
    assert low is not None and low >= 0
