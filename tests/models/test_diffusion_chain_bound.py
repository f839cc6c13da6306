"""The chain's bound: every term against another route to it, the whole against a source of known entropy."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from models.base import image_generators, to_float
from models.diffusion.bound import discrete_bound, log_uniform_sigmas
from models.diffusion.chain_bound import (
    Chain,
    chain_bound,
    decoder_term,
    first_step,
    gaussian_kl,
    log_mass,
    log_variances,
    step_divergence,
)
from models.diffusion.oracles import IndependentPixels
from models.diffusion.parameterisation import sigma_from_alpha_bar
from models.diffusion.process import alpha_bars, beta_at, q_posterior

SHAPE = (1, 3, 3)
PMF = torch.zeros(256, dtype=torch.float64)
PMF[[0, 10, 11, 12, 90, 91, 200, 202, 255]] = torch.tensor([2.0, 3, 1, 2, 5, 1, 4, 2, 2]).double() / 22
SOURCE = IndependentPixels(PMF)
ENTROPY = 9 * SOURCE.entropy
FINE = 5e-4  # a first noise level at which neighbouring levels are never confused


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def oracle(sigmas: torch.Tensor, variance: str = "posterior", factor: float = 1.0) -> Chain:
    """The chain of the best denoiser, or of a worse one, with one of the two fixed variances."""
    values = log_variances(sigmas)[variance == "beta"]

    def step(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return factor * SOURCE.denoise(x, sigmas[t]), values[t][:, None, None, None]

    return step


# The parts.


def test_the_divergence_of_two_normals() -> None:
    log_q, log_p, gap = normal(0, 2, *SHAPE), normal(1, 2, *SHAPE), normal(2, 2, *SHAPE)
    q = torch.distributions.Normal(0.0, (log_q / 2).exp())
    p = torch.distributions.Normal(gap, (log_p / 2).exp())
    expected = torch.distributions.kl_divergence(q, p).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_kl(gap, log_q, log_p), expected, rtol=1e-10, atol=1e-10)
    assert float(gaussian_kl(0 * gap, log_q, log_q).abs().max()) < 1e-12


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_log_variances_are_those_of_the_chain_over_alpha_bar(schedule: str) -> None:
    """x_{t-1} = sqrt(alpha_bar_{t-1}) x_sigma, so variances differ by alpha_bar_{t-1}."""
    alpha_bar, t = alpha_bars(schedule, 1000), torch.arange(1000)
    tilde, beta = log_variances(sigma_from_alpha_bar(alpha_bar))
    one = torch.zeros(1000, 1, 1, 1)
    earlier = torch.cat([torch.ones(1).double(), alpha_bar[:-1]])
    expected = q_posterior(one, one, t, alpha_bar)[1].flatten() / earlier
    torch.testing.assert_close(tilde[1:].exp(), expected[1:], rtol=1e-7, atol=0)
    torch.testing.assert_close(beta.exp(), beta_at(alpha_bar, t) / earlier, rtol=1e-7, atol=0)
    assert tilde[0] == tilde[1] and bool((tilde[1:] < beta[1:]).all())
    assert log_variances(torch.tensor([0.5]).double())[0].isfinite().all()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_step_is_the_divergence_on_the_scale_of_x_t(schedule: str) -> None:
    """Ho et al. 2020, Eq. 6-8 and Nichol and Dhariwal 2021, Eq. 15, with torch.distributions."""
    alpha_bar, t = alpha_bars(schedule, 1000), torch.tensor([1, 7, 500, 998])
    sigmas, x_0, eps = sigma_from_alpha_bar(alpha_bar), normal(0, 4, *SHAPE).clamp(-1, 1), normal(1, 4, *SHAPE)
    estimate, share = x_0 + 0.1 * normal(2, 4, *SHAPE), torch.rand(4, *SHAPE, generator=generator(3)).double()
    tilde, beta = (values[t][:, None, None, None] for values in log_variances(sigmas))

    def chain(x: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert torch.equal(at, t)
        torch.testing.assert_close(x.double(), x_0 + sigmas[t][:, None, None, None] * eps, rtol=1e-6, atol=1e-6)
        return estimate, share * beta + (1 - share) * tilde

    product = alpha_bar[t][:, None, None, None]
    x_t = product.sqrt() * x_0 + (1 - product).sqrt() * eps
    mean, variance = q_posterior(x_0, x_t, t, alpha_bar)
    own_beta = beta_at(alpha_bar, t)[:, None, None, None]
    p_variance = own_beta**share * variance ** (1 - share)
    q = torch.distributions.Normal(mean, variance.sqrt().expand_as(mean))
    p = torch.distributions.Normal(q_posterior(estimate, x_t, t, alpha_bar)[0], p_variance.sqrt())
    expected = torch.distributions.kl_divergence(q, p).sum((1, 2, 3))
    torch.testing.assert_close(step_divergence(chain, x_0, t, eps, sigmas), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(-1.0, 2.0), (-0.1, 0.1), (0.0, 0.5), (3.0, 3.1), (8.0, 9.0), (40.0, 40.5), (300.0, 301.0), (-301.0, -300.0),
     (-45.0, -40.0), (-9.0, 30.0), (-math.inf, -12.0), (12.0, math.inf), (-math.inf, 0.3), (5.0, 5.0 + 1e-4)],
)  # fmt: skip
def test_log_mass_into_both_tails(lower: float, upper: float) -> None:
    """Against arithmetic of 60 digits; scipy agrees where its cdf does not round to 1."""
    with mpmath.workdps(60):
        expected = float(mpmath.log((mpmath.erfc(lower / mpmath.sqrt(2)) - mpmath.erfc(upper / mpmath.sqrt(2))) / 2)
                         if lower > 0 else mpmath.log(mpmath.ncdf(upper) - mpmath.ncdf(lower)))
    found = float(log_mass(*(torch.tensor([v], dtype=torch.float64) for v in (lower, upper))))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    if abs(lower) < 8:
        assert found == pytest.approx(math.log(stats.norm.cdf(upper) - stats.norm.cdf(lower)), rel=1e-3)


def test_the_decoder_is_normalised_over_the_levels() -> None:
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None, None]
    for mean in (-1.3, -1.0, -0.2, 0.0123, 1.0, 4.0):
        for std in (1e-3, 0.02, 1.0, 30.0):
            log_variance = torch.full((256, 1, 1, 1), 2 * math.log(std), dtype=torch.float64)
            terms = decoder_term(levels, torch.full((256, 1, 1, 1), mean), log_variance)
            assert terms.dtype == torch.float64 and bool(terms.isfinite().all())
            assert float((-terms).exp().sum()) == pytest.approx(1, abs=1e-11)


def test_the_decoder_by_scipy() -> None:
    images = torch.tensor([[[[0, 1, 127, 254, 255]]]], dtype=torch.uint8)
    mean, std = torch.tensor([[[[-0.9, -0.9, 0.0, 0.98, 0.9]]]]), 0.05
    edges = images.double().numpy()[..., None] / 127.5 - 1 + np.array([-1, 1]) / 255
    edges[0, 0, 0, 0, 0], edges[0, 0, 0, 4, 1] = -np.inf, np.inf
    cells = np.diff(stats.norm.cdf(edges, mean.double().numpy()[..., None], std))
    found = decoder_term(images, mean, torch.full((1, 1, 1, 1), 2 * math.log(std), dtype=torch.float64))
    assert float(found) == pytest.approx(-np.log(cells).sum(), rel=1e-6)


def test_the_decoder_has_finite_gradients_for_all_levels_and_the_wildest_means() -> None:
    images = torch.tensor([0, 0, 0, 128, 128, 255, 255, 255], dtype=torch.uint8).reshape(1, 1, 2, 4)
    mean = torch.tensor([-3.0, -1, 5, 0, 9, -7, 1, 3]).reshape(1, 1, 2, 4).requires_grad_()
    log_variance = torch.full((1, 1, 2, 4), -12.0, requires_grad=True)
    decoder_term(images, mean, log_variance).sum().backward()
    for gradient in (mean.grad, log_variance.grad):
        assert bool(gradient.isfinite().all())
    assert float(mean.grad.flatten()[2]) > 0 > float(mean.grad.flatten()[5]), "towards the level"


# The whole.


def bound_of(sigmas: torch.Tensor, chain: Chain, num_terms: int, n: int = 300) -> tuple:
    images = SOURCE.sample(n, SHAPE, generator(0))
    return images, chain_bound(
        chain, images, image_generators(n, generator(1)), sigmas=sigmas, num_terms=num_terms, variance="posterior"
    )


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_the_best_denoiser_comes_close_to_the_entropy_and_never_below(variance: str) -> None:
    sigmas = log_uniform_sigmas(3000, FINE)
    _, found = bound_of(sigmas, oracle(sigmas, variance), 64)
    mean, error = mean_and_error(-found.log_likelihood)
    assert error < 0.03 * ENTROPY
    assert ENTROPY - 4 * error < mean < 1.03 * ENTROPY + 4 * error
    assert float(found.parts["reconstruction"].abs().max()) < 1e-6, "the first level is known for sure"
    _, worse = bound_of(sigmas, oracle(sigmas, variance, 0.95), 64)
    assert mean_and_error(-worse.log_likelihood)[0] > mean + 1


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_real_chains_stay_above_the_entropy(schedule: str) -> None:
    """Their first noise level is coarser than the levels' spacing, so the decoder costs something."""
    sigmas = sigma_from_alpha_bar(alpha_bars(schedule, 1000))
    images, found = bound_of(sigmas, oracle(sigmas), 64)
    mean, error = mean_and_error(-found.log_likelihood)
    assert ENTROPY - 4 * error < mean < 2 * ENTROPY
    assert float(found.parts["prior"].mean()) > -0.01
    torch.testing.assert_close(sum(found.parts.values()), found.log_likelihood)
    assert found.settings["T"] == 1000 and found.settings["terms"] == 64 and found.kind == "elbo_discrete"
    assert found.nfe.tolist() == [65.0] * len(images)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_the_steps_are_those_of_the_discrete_bound(variance: str) -> None:
    """The same draws, another route: only the prior and the decoder differ."""
    sigmas = sigma_from_alpha_bar(alpha_bars("linear", 200))
    images, found = bound_of(sigmas, oracle(sigmas, variance), 20, n=50)
    other = discrete_bound(
        SOURCE.denoise, images, image_generators(50, generator(1)), sigmas=sigmas, num_terms=20, prior_variance=1.0,
        variance=variance,
    )
    torch.testing.assert_close(found.parts["diffusion"], other.parts["diffusion"], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.parts["prior"], other.parts["prior"], rtol=1e-9, atol=0)


def test_the_first_step_is_the_decoder_at_the_first_level() -> None:
    sigmas = sigma_from_alpha_bar(alpha_bars("linear", 200))
    images, eps = SOURCE.sample(4, SHAPE, generator(0)), normal(1, 4, *SHAPE)
    x = (to_float(images) + sigmas[0] * eps).float()
    log_tilde = log_variances(sigmas)[0][:1].reshape(1, 1, 1, 1)
    expected = decoder_term(images, SOURCE.denoise(x, sigmas[:1].expand(4)), log_tilde)
    torch.testing.assert_close(first_step(oracle(sigmas), images, eps, sigmas), expected)


def test_some_steps_are_an_unbiased_estimate_of_all() -> None:
    sigmas = sigma_from_alpha_bar(alpha_bars("linear", 60))
    few, every = (bound_of(sigmas, oracle(sigmas), k, n)[1].parts["diffusion"] for k, n in ((7, 1500), (59, 300)))
    (one, error), (other, rest) = mean_and_error(few), mean_and_error(every)
    assert abs(one - other) < 4 * math.hypot(error, rest)


@pytest.mark.parametrize("num_terms", [0, 60])
def test_terms_that_do_not_exist_are_refused(num_terms: int) -> None:
    sigmas = sigma_from_alpha_bar(alpha_bars("linear", 60))
    with pytest.raises(ValueError, match=rf"num_terms must lie in 1\.\.59, not {num_terms}"):
        bound_of(sigmas, oracle(sigmas), num_terms, n=2)
