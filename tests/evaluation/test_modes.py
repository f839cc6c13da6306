"""Mode coverage against counts by hand, binomial sums, chi-square errors of true draws, and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, entropy

from datamodules import known_density
from evaluation.modes import (
    FLOOR_DRAWS,
    OFF_MODE_SHARE,
    ModeCoverage,
    coverage_floor,
    expected_modes,
    mode_coverage,
    mode_kl,
    off_mode,
)
from evaluation.truth import measure_truth

N = 2_000


@pytest.fixture(scope="module")
def density() -> known_density.TemplateMixture:
    made = known_density.load(known_density.Config()).density
    assert isinstance(made, known_density.TemplateMixture)
    return made


@pytest.fixture(scope="module")
def small() -> known_density.TemplateMixture:
    """Four components of one pixel at the levels 0, 85, 170 and 255."""
    log_pmf = known_density.discretised_logistic(np.array([0.0, 85.0, 170.0, 255.0]), scale=4.0)
    return known_density.TemplateMixture(np.arange(4).reshape(4, 1, 1, 1), log_pmf)


def test_a_small_mixture_by_hand(small: known_density.TemplateMixture) -> None:
    images = np.array([3, 0, 90, 80, 88, 85, 176, 165], np.uint8).reshape(-1, 1, 1, 1)  # 2, 4, 2 and 0 of each
    found = mode_coverage(small, images)
    assert found.reached == 3
    assert found.distance == pytest.approx((0 + 1 / 4 + 0 + 1 / 4) / 2)
    assert found.kl == pytest.approx(2 * 0.25 * math.log(0.25 / 0.25) + 0.5 * math.log(0.5 / 0.25))


def test_kl_of_unequal_weights_is_of_the_histogram_from_the_weights() -> None:
    counts, weights = [2, 6, 0], [0.5, 0.25, 0.25]
    assert mode_kl(counts, weights) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(3))
    assert mode_kl(counts, weights) == pytest.approx(entropy([0.25, 0.75, 0], weights))
    assert mode_kl([2, 1, 1], weights) == 0


@pytest.mark.parametrize(
    ("counts", "weights"),
    [([0, 0], [0.5, 0.5]), ([1, 2], [1.0, 0.0]), ([1, 2], [0.2, 0.3, 0.5]), ([3, -1], [0.5, 0.5])],
)
def test_histograms_that_are_none_are_refused(counts: list[int], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="must be of at least one image"):
        mode_kl(counts, weights)


def test_expected_modes_by_enumeration() -> None:
    weights = np.array([0.5, 0.3, 0.2])
    draws = np.stack(np.meshgrid(*[range(3)] * 4, indexing="ij")).reshape(4, -1)  # every way to draw four times
    chances = weights[draws].prod(0)
    assert chances.sum() == pytest.approx(1)
    distinct = np.array([len(set(ways)) for ways in draws.T])
    assert expected_modes(weights, 4) == pytest.approx(float(distinct @ chances))
    assert expected_modes(weights, 0) == 0 and expected_modes(weights, 1) == pytest.approx(1)
    assert expected_modes([1.0], 5) == 1


@pytest.mark.parametrize("n", [100, N])
def test_true_draws_have_what_binomial_counts_have(density: known_density.TemplateMixture, n: int) -> None:
    """Each component's count is Binomial(n, 1 / K): the mean KL, the modes reached and the errors of both follow."""
    k, x = density.num_modes, np.arange(1, n + 1)
    chances = binom.pmf(x, n, 1 / k)
    terms = x / n * np.log(x * k / n)
    expected_kl = k * float(chances @ terms)
    # Counts of different components are negatively correlated, so that their independent errors are above the true.
    kl_error = math.sqrt(k * (float(chances @ terms**2) - float(chances @ terms) ** 2))
    missed = (1 - 1 / k) ** n
    reached_error = math.sqrt(k * missed * (1 - missed))
    expected_reached = expected_modes(density.weights, n)
    assert expected_reached == pytest.approx(k * (1 - missed))
    floor, sets = coverage_floor(density, n), math.sqrt(FLOOR_DRAWS)
    drawn = mode_coverage(density, density.sample(n, seed=77))
    for found, errors in ((drawn, 4.0), (floor, 4 / sets)):
        assert abs(found.reached - expected_reached) < errors * reached_error
        assert abs(found.kl - expected_kl) < errors * kl_error
    assert isinstance(floor, ModeCoverage)


def test_the_floor_of_many_draws_is_half_a_chi_square() -> None:
    """2 n KL of n draws over K components has the mean K - 1 (Wilks), which is the bias (K - 1) / (2 n)."""
    rng, k, n, sets = np.random.default_rng(5), 50, 20_000, 400
    weights = rng.dirichlet(np.full(k, 5.0))
    found = [mode_kl(counts, weights) for counts in rng.multinomial(n, weights, size=sets)]
    assert abs(np.mean(found) - (k - 1) / (2 * n)) < 4 * math.sqrt(2 * (k - 1) / sets) / (2 * n)


def test_one_template_for_all(density: known_density.TemplateMixture) -> None:
    images = density.draw(np.full(500, 17), np.random.Generator(np.random.PCG64(1)))
    truth = measure_truth(density, images, [])
    assert truth.modes_hit == pytest.approx(1 / 1000) and truth.n_samples == 500
    assert truth.modes_hit_expected == pytest.approx(1 - 0.999**500)
    assert truth.mode_kl == pytest.approx(math.log(1000))
    assert truth.mode_distance == pytest.approx(1 - 1 / 1000)


def test_components_do_not_overlap_so_that_posteriors_would_count_the_same(
    density: known_density.TemplateMixture,
) -> None:
    rng = np.random.Generator(np.random.PCG64(9))
    drawn_from = rng.integers(0, density.num_modes, N)
    images = density.draw(drawn_from, rng)
    assert (density.mode(images) == drawn_from).all()
    counts = np.bincount(drawn_from, minlength=density.num_modes)
    assert mode_coverage(density, images).kl == pytest.approx(mode_kl(counts, density.weights))


def test_a_thousandth_of_true_draws_and_all_noise_is_off_mode(density: known_density.TemplateMixture) -> None:
    drawn = density.log_prob(density.sample(5_000, seed=31))
    # 5 of 5,000 are expected, and the threshold is itself of 20 draws: relative errors of 1/sqrt(5) and 1/sqrt(20).
    assert abs(off_mode(density, drawn) - OFF_MODE_SHARE) < 4 * OFF_MODE_SHARE * math.hypot(5**-0.5, 20**-0.5)
    noise = np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8)).astype(np.uint8)
    between = density.sample(100, seed=1).astype(np.uint16).reshape(50, 2, 1, 8, 8).mean(1).astype(np.uint8)
    assert off_mode(density, density.log_prob(noise)) == 1
    assert off_mode(density, density.log_prob(between)) > 0.9
    centres = known_density.LEVELS[density.templates].astype(np.uint8).reshape(-1, 1, 8, 8)
    assert off_mode(density, density.log_prob(centres)) == 0


def test_the_record_holds_them(density: known_density.TemplateMixture) -> None:
    images = np.concatenate([density.sample(300, seed=3), np.full((100, 1, 8, 8), 128, np.uint8)])
    truth, found = measure_truth(density, images, []), mode_coverage(density, images)
    assert (truth.modes_reached, truth.mode_kl) == (found.reached, found.kl)
    assert truth.modes_hit == found.reached / 1_000
    assert truth.off_mode is not None and 0.25 <= truth.off_mode < 0.26
    assert truth.mode_kl_floor == coverage_floor(density, 400).kl and truth.off_mode_floor == OFF_MODE_SHARE
