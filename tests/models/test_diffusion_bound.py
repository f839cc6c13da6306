"""Variational bounds against a source whose entropy, and whose every gap, is known by quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from models.base import LikelihoodBound, image_generators, to_float
from models.diffusion.bound import (
    SIGMA_MAX,
    SIGMA_MIN,
    Variance,
    check_bound,
    diffusion_term,
    discrete_bound,
    log_uniform_sigmas,
    normalisation_error,
    per_image_sum,
    prior_term,
    reconstruction_term,
    step_term,
    variational_bound,
)
from models.diffusion.oracles import IndependentPixels
from models.diffusion.samplers import Denoise

LEVELS = torch.tensor([10, 11, 12, 90, 91, 92, 93, 200, 202, 255])
PMF = torch.tensor([3.0, 1, 2, 5, 1, 1, 2, 4, 2, 1], dtype=torch.float64)
PMF /= PMF.sum()
VALUES = to_float(LEVELS).double()
SHAPE = (1, 3, 3)
PIXELS = 9
ENTROPY = -float((PMF * PMF.log()).sum()) * PIXELS
PRIOR_VARIANCE = float((PMF * VALUES**2).sum())


SOURCE = IndependentPixels(torch.zeros(256, dtype=torch.float64).index_put((LEVELS,), PMF))
FINE = 5e-4  # a noise level at which neighbouring levels, 2 / 255 apart, are never confused
bayes = SOURCE.denoise


def source(n: int, seed: int = 0) -> torch.Tensor:
    """Images of independent pixels, uint8 (n, 1, 3, 3)."""
    return SOURCE.sample(n, SHAPE, torch.Generator().manual_seed(seed))


def bound(denoise: Denoise, n: int = 300, num_levels: int = 64, sigma_min: float = SIGMA_MIN) -> LikelihoodBound:
    generators = image_generators(n, torch.Generator().manual_seed(1))
    return variational_bound(
        denoise, source(n), generators, num_levels=num_levels, prior_variance=PRIOR_VARIANCE, sigma_min=sigma_min
    )


def steps(
    num_steps: int, num_terms: int, n: int = 300, variance: Variance = "posterior", denoise: Denoise = bayes,
    sigma_min: float = SIGMA_MIN,
) -> LikelihoodBound:
    generators = image_generators(n, torch.Generator().manual_seed(1))
    return discrete_bound(
        denoise, source(n), generators, sigmas=log_uniform_sigmas(num_steps, sigma_min), num_terms=num_terms,
        prior_variance=PRIOR_VARIANCE, variance=variance,
    )


def mean_and_error(found: LikelihoodBound) -> tuple[float, float]:
    """-E bound in nats and its standard error."""
    values = -found.log_likelihood
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def prior_gap() -> float:
    """KL(q(x_T) || p(x_T)) of one pixel in nats: the source's mixture against one normal distribution."""
    deviation = math.sqrt(SIGMA_MAX**2 + PRIOR_VARIANCE)

    def integrand(x: float) -> float:
        q = float((PMF.numpy() * stats.norm.pdf(x, VALUES.numpy(), SIGMA_MAX)).sum())
        return q * (math.log(q) - stats.norm.logpdf(x, 0, deviation))

    return integrate.quad(integrand, -8 * SIGMA_MAX, 8 * SIGMA_MAX, epsabs=1e-9)[0]


def reconstruction_gap() -> float:
    """E KL(p(x | z) || decoder) of one pixel in nats at sigma_min: the decoder does not know the PMF."""
    eps = np.linspace(-9, 9, 20001)
    everything = to_float(torch.arange(256)).double().numpy()
    total = 0.0
    for level, p in zip(VALUES.tolist(), PMF.tolist(), strict=True):
        z = level + SIGMA_MIN * eps

        def log_mean(values: np.ndarray, weights: np.ndarray, z: np.ndarray = z) -> np.ndarray:
            exponents = np.log(weights) - 0.5 * ((z[:, None] - values) / SIGMA_MIN) ** 2
            return np.logaddexp.reduce(exponents, axis=1)

        difference = log_mean(everything, np.ones(256)) - log_mean(VALUES.numpy(), PMF.numpy()) + math.log(p)
        total += p * integrate.simpson(difference * stats.norm.pdf(eps), x=eps)
    return total


def test_with_the_best_denoiser_the_bound_is_the_entropy_plus_the_known_gaps() -> None:
    """-E bound = H + KL(prior) + E KL(reconstruction) exactly, and the estimate is unbiased."""
    expected = ENTROPY + PIXELS * (prior_gap() + reconstruction_gap())
    found = -bound(bayes, n=400).log_likelihood
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean()) - expected) < 4 * error
    assert expected > ENTROPY and error < 0.03 * expected
    assert PIXELS * prior_gap() < 1e-3


@pytest.mark.parametrize("factor", [0.9, 1.02])
def test_any_other_denoiser_gives_a_looser_bound(factor: float) -> None:
    best, other = bound(bayes), bound(lambda x, sigma: factor * bayes(x, sigma))
    assert other.log_likelihood.mean() < best.log_likelihood.mean() - 1
    for part in ("prior", "reconstruction"):  # these do not look at the denoiser
        assert torch.equal(best.parts[part], other.parts[part])


def test_the_number_of_levels_changes_the_noise_and_not_the_mean() -> None:
    few, many = (-bound(bayes, n=1000, num_levels=k).log_likelihood for k in (2, 16))
    error = math.hypot(float(few.std()), float(many.std())) / math.sqrt(1000)
    assert abs(float(few.mean() - many.mean())) < 4 * error
    assert many.std() < few.std()


def test_the_reconstruction_is_normalised_over_the_levels() -> None:
    """For any z, sum_k p(k | z) = 1: z is held fixed by moving eps with the level."""
    levels = torch.arange(256, dtype=torch.uint8)
    for z in (-1.0, -0.99, 0.0123, 0.5, 1.0, 1.004):
        eps = ((z - to_float(levels).double()) / SIGMA_MIN)[:, None, None, None]
        total = (-reconstruction_term(levels[:, None, None, None], eps)).exp().sum()
        assert float(total) == pytest.approx(1, abs=1e-9)


def test_the_reconstruction_by_brute_force() -> None:
    images, eps = source(3), torch.randn(3, *SHAPE)
    values = to_float(torch.arange(256)).double()
    for i in range(3):
        total = 0.0
        for level, e in zip(images[i].flatten().tolist(), eps[i].flatten().double().tolist(), strict=True):
            z = float(to_float(torch.tensor(level)).double()) + SIGMA_MIN * e
            density = stats.norm.logpdf(z, values.numpy(), SIGMA_MIN)
            total -= float(density[level] - np.logaddexp.reduce(density))
        assert float(reconstruction_term(images, eps)[i]) == pytest.approx(total, rel=1e-6)


def test_the_prior_term_is_the_divergence_of_two_normals() -> None:
    x_0 = to_float(source(4)).double()
    q = torch.distributions.Normal(x_0, SIGMA_MAX)
    p = torch.distributions.Normal(0.0, math.sqrt(SIGMA_MAX**2 + PRIOR_VARIANCE))
    expected = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(prior_term(x_0, PRIOR_VARIANCE), expected, rtol=1e-6, atol=1e-12)


def test_the_diffusion_term_by_hand() -> None:
    x_0, eps = to_float(source(2)), torch.randn(2, *SHAPE)
    log_sigma = torch.tensor([-2.0, 1.0], dtype=torch.float64)
    found = diffusion_term(lambda x, sigma: torch.zeros_like(x), x_0, log_sigma, eps)
    squares = x_0.double().square().sum((1, 2, 3))
    expected = math.log(SIGMA_MAX / SIGMA_MIN) * squares * torch.tensor([math.e**4, math.e**-2])
    torch.testing.assert_close(found, expected)


def test_sums_are_float64() -> None:
    big = torch.full((1, 1, 100, 100), 1e-4)
    big[0, 0, 0, 0] = 1e5
    assert per_image_sum(big).dtype == torch.float64
    assert float(per_image_sum(big)) == pytest.approx(1e5 + 0.9999, rel=1e-9)


def test_the_oracle_is_the_posterior_mean() -> None:
    """Against numerical integration's definition: sum_k v_k p_k N(x; v_k) / sum_k p_k N(x; v_k) by scipy."""
    x, sigma = torch.tensor([-0.9, 0.0, 0.55], dtype=torch.float64), 0.2
    weights = PMF.numpy() * stats.norm.pdf(x.numpy()[:, None], VALUES.numpy(), sigma)
    expected = (weights * VALUES.numpy()).sum(1) / weights.sum(1)
    at, level = x.reshape(1, 1, 1, 3), torch.tensor([sigma], dtype=torch.float64)
    np.testing.assert_allclose(bayes(at, level).flatten(), expected, rtol=1e-9)
    assert float(SOURCE.log_density(at, level)) == pytest.approx(np.log(weights.sum(1)).sum(), rel=1e-9)
    assert SOURCE.entropy * PIXELS == pytest.approx(ENTROPY) and SOURCE.second_moment == pytest.approx(PRIOR_VARIANCE)
    with pytest.raises(ValueError, match="256 probabilities that sum to 1"):
        IndependentPixels(torch.ones(256))


def test_both_bounds_reach_the_entropy() -> None:
    """With sigma_min far below the spacing of the levels no gap is left but that of finitely many steps."""
    continuous, error = mean_and_error(bound(bayes, n=300, sigma_min=FINE))
    assert abs(continuous - ENTROPY) < 4 * error and error < 0.03 * ENTROPY
    discrete, error = mean_and_error(steps(5000, 64, n=300, sigma_min=FINE))
    assert abs(discrete - ENTROPY) < 4 * error and error < 0.03 * ENTROPY


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_few_steps_are_looser_and_never_below_the_entropy(variance: Variance) -> None:
    found = [mean_and_error(steps(t, min(t, 64), variance=variance)) for t in (8, 40, 200)]
    assert all(mean > ENTROPY - 4 * error for mean, error in found)
    assert found[0][0] > found[1][0] + 1 > found[2][0] + 1
    worse, _ = mean_and_error(steps(200, 64, variance=variance, denoise=lambda x, sigma: 0.95 * bayes(x, sigma)))
    assert worse > found[2][0] + 1


def test_many_steps_are_continuous_time() -> None:
    """The same draws: one term in each of 64 strata of ln sigma, of which T = 10^5 steps are a fine grid."""
    for variance in ("posterior", "beta"):
        many, continuous = steps(100_000, 64, variance=variance), bound(bayes)
        torch.testing.assert_close(many.parts["prior"], continuous.parts["prior"])
        torch.testing.assert_close(many.parts["reconstruction"], continuous.parts["reconstruction"])
        difference = mean_and_error(many)[0] - mean_and_error(continuous)[0]
        assert abs(difference) < 0.01 * ENTROPY


def test_stratified_steps_are_unbiased_and_all_of_them_are_the_plain_sum() -> None:
    few, every = steps(50, 7, n=1500), steps(50, 50, n=300)
    error = math.hypot(mean_and_error(few)[1], mean_and_error(every)[1])
    assert abs(mean_and_error(few)[0] - mean_and_error(every)[0]) < 4 * error
    sigmas, zeros = log_uniform_sigmas(50), lambda x, sigma: torch.zeros_like(x)
    found = steps(50, 50, n=5, denoise=zeros).parts["diffusion"]
    weights = (1 / sigmas[0] ** 2 - 1 / sigmas[-1] ** 2) / 2  # the sum telescopes
    squares = to_float(source(5)).double().square().sum((1, 2, 3))
    torch.testing.assert_close(-found, weights * squares, rtol=1e-9, atol=0)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_a_step_is_the_divergence_of_two_normals(variance: Variance) -> None:
    """In DDPM's own terms: Eq. 6, 7 and beta of Sec. 3.2, on x_t = sqrt(alpha_bar) x_sigma."""
    s, t = torch.tensor([0.1, 3.0], dtype=torch.float64), torch.tensor([0.15, 5.0], dtype=torch.float64)
    x_0, estimate, x = (torch.randn(2, 4, generator=torch.Generator().manual_seed(k)).double() for k in range(3))
    before, now = 1 / (1 + s**2)[:, None], 1 / (1 + t**2)[:, None]  # alpha_bar at s and t
    beta = 1 - now / before
    tilde = (1 - before) / (1 - now) * beta
    means = [before.sqrt() * beta / (1 - now) * y + (1 - beta).sqrt() * (1 - before) / (1 - now) * x
             for y in (x_0, estimate)]
    q = torch.distributions.Normal(means[0], tilde.sqrt())
    p = torch.distributions.Normal(means[1], (tilde if variance == "posterior" else beta).sqrt())
    expected = torch.distributions.kl_divergence(q, p).sum(1)
    error = (x_0 - estimate).square().sum(1)
    torch.testing.assert_close(step_term(error, 4, s, t, variance), expected, rtol=1e-9, atol=0)


def test_the_best_variance_is_known_for_the_two_extremes() -> None:
    """DDPM Sec. 3.2: beta for N(0, I), beta-tilde for data of one point."""
    s, t = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64)
    normal_error = 4 * t.square() / (1 + t.square())  # D Var(x_0 | x_t) with the best D
    for error, best in ((normal_error, "beta"), (torch.zeros(1).double(), "posterior")):
        other = "posterior" if best == "beta" else "beta"
        assert step_term(error, 4, s, t, best) < step_term(error, 4, s, t, other)


def test_bounds_state_their_settings_and_evaluations() -> None:
    calls = []

    def counted(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return bayes(x, sigma)

    found = steps(100, 10, n=4, variance="beta", denoise=counted, sigma_min=0.01)
    assert found.kind == "elbo_discrete" and found.settings["variance"] == "beta" and found.settings["T"] == 100
    assert found.settings["sigma_min"] == pytest.approx(0.01) and found.settings["sigma_max"] == pytest.approx(80)
    assert sum(calls) == float(found.nfe.sum()) == 40
    assert bound(bayes, n=2, num_levels=5).nfe.tolist() == [5, 5]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_terms must lie in 1\.\.4, not 5"):
        steps(4, 5, n=1)
    with pytest.raises(ValueError, match="variance must be one of posterior, beta, not 'learned'"):
        steps(4, 4, n=1, variance="learned")
    with pytest.raises(ValueError, match="num_levels must be at least 1, not 0"):
        bound(bayes, n=1, num_levels=0)
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        bound(bayes, n=1, sigma_min=100)
    for sigmas in (log_uniform_sigmas(4).flip(0), torch.ones(1)):
        with pytest.raises(ValueError, match="strictly ascending"):
            discrete_bound(
                bayes, source(1), image_generators(1, torch.Generator()), sigmas=sigmas, num_terms=1, prior_variance=1
            )


def test_the_self_check_sees_a_bound_that_moves_and_a_pmf_that_does_not_sum_to_one() -> None:
    assert normalisation_error(torch.Generator().manual_seed(0)) < 1e-12
    few, many = bound(bayes, n=8, num_levels=32), bound(bayes, n=8, num_levels=128)
    good = check_bound(few, many, PIXELS, 1e-15)
    assert good.passed and "32 and 128 evaluations differ by" in good.text
    moved = LikelihoodBound(many.log_likelihood - 30, "elbo", nfe=many.nfe)
    assert not check_bound(few, moved, PIXELS, 1e-15).passed
    assert not check_bound(few, many, PIXELS, 0.01).passed
