"""Samplers where the answer is known: orders of convergence, variances, frequencies, costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from models.base import to_uint8
from models.diffusion.ddpm import NUM_TIMESTEPS
from models.diffusion.oracles import CorrelatedGaussian, IndependentPixels
from models.diffusion.parameterisation import sigma_from_alpha_bar
from models.diffusion.process import alpha_bars, q_posterior
from models.diffusion.samplers import (
    S_MAX,
    S_MIN,
    SAMPLERS,
    SIGMA_MAX,
    SIGMA_MIN,
    STOCHASTIC,
    Denoise,
    Noise,
    Sampler,
    ancestral,
    beta_variance,
    churn,
    ddim,
    dpmpp_2m,
    euler,
    evaluations,
    heun,
    karras_sigmas,
    multistep_consistency,
    posterior_variance,
    sampler_named,
    spread,
)
from tests.models.tiny import tiny_model

VARIANCE = 0.3
CHAIN = sigma_from_alpha_bar(alpha_bars("cosine", NUM_TIMESTEPS))


def gaussian(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x] for x_0 ~ N(0, VARIANCE)."""
    return x * (VARIANCE / (VARIANCE + sigma**2))[:, None, None, None]


def jump(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The end of the ODE that starts at x, for x_0 ~ N(0, VARIANCE): the perfect consistency function."""
    return x * (VARIANCE / (VARIANCE + sigma**2)).sqrt()[:, None, None, None]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def stream(seed: int, *shape: int) -> Noise:
    """Noise that is the same for the same seed."""
    source = generator(seed)
    return lambda: torch.randn(*shape, generator=source, dtype=torch.float64)


def log_sigmas(num_steps: int) -> torch.Tensor:
    """Noise levels equally spaced in ln sigma down to 1e-4, and 0."""
    levels = torch.linspace(math.log(SIGMA_MAX), math.log(1e-4), num_steps, dtype=torch.float64).exp()
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


# The ODE.


@pytest.mark.parametrize(
    ("sampler", "levels", "order"),
    [(euler, karras_sigmas, 1), (heun, karras_sigmas, 2), (dpmpp_2m, log_sigmas, 2), (dpmpp_2m, karras_sigmas, 2)],
)
def test_order_of_convergence(sampler: Sampler, levels: Callable[[int], torch.Tensor], order: int) -> None:
    """x(0) = x sqrt(v / (v + sigma^2)): twice the steps, 2^order times less error."""
    x = SIGMA_MAX * normal(0, 2, 1, 2, 2)
    truth = x * math.sqrt(VARIANCE / (VARIANCE + SIGMA_MAX**2))
    errors = [float((sampler(gaussian, x, levels(n)) - truth).abs().max()) for n in (32, 64, 128, 256)]
    ratios = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(abs(ratio - order) < 0.25 for ratio in ratios), ratios


def correlated() -> CorrelatedGaussian:
    factor = normal(3, 4, 4)
    return CorrelatedGaussian(normal(4, 4) / 2, 0.2 * factor @ factor.T)


@pytest.mark.parametrize(("sampler", "tolerance"), [(euler, 2e-2), (heun, 1e-3), (dpmpp_2m, 1e-3)])
def test_a_correlated_source_by_the_ode(sampler: Sampler, tolerance: float) -> None:
    """Along every eigenvector the deviation shrinks from sqrt(lambda + sigma^2) to sqrt(lambda)."""
    source, x = correlated(), SIGMA_MAX * normal(0, 8, 1, 2, 2)
    values, vectors = source.spectrum
    shrunk = source.rotated(x) * (values / (values + SIGMA_MAX**2)).sqrt()
    truth = (source.mean + shrunk @ vectors.T).reshape(x.shape)
    found = sampler(source.denoise, x, karras_sigmas(200))
    assert float((found - truth).abs().max()) < tolerance


# Stochastic samplers.


def linear_chain(sigmas: torch.Tensor, keep: Callable[[float, float], float], added: Callable) -> float:
    """Variance at the end of x_s = D + keep (x - D) + noise of variance ``added``, in closed form for ``gaussian``."""
    variance = float(sigmas[0]) ** 2
    for t, s in itertools.pairwise(sigmas.tolist()):
        gain = VARIANCE / (VARIANCE + t**2)
        variance = (gain + keep(s, t) * (1 - gain)) ** 2 * variance + (added(s, t) if s > 0 else 0)
    return variance


def ddim_like(eta: float) -> tuple[Sampler, Callable[[float, float], float], Callable[[float, float], float]]:
    def added(s: float, t: float) -> float:
        return eta**2 * s**2 * (1 - s**2 / t**2)

    return (
        lambda *a, **k: ddim(*a, eta=eta, **k), lambda s, t: math.sqrt(s**2 - added(s, t)) / t, added,
    )


STOCHASTIC_CASES = {
    "ancestral": (ancestral, lambda s, t: s**2 / t**2, posterior_variance),
    "ancestral, beta": (
        lambda *a, **k: ancestral(*a, variance=beta_variance, **k), lambda s, t: s**2 / t**2, beta_variance,
    ),
    "ddim, eta 0.5": ddim_like(0.5),
    "ddim, eta 1": ddim_like(1.0),
}


@pytest.mark.parametrize("name", STOCHASTIC_CASES)
def test_samples_have_the_variance_that_the_steps_add_up_to(name: str) -> None:
    sampler, keep, added = STOCHASTIC_CASES[name]
    n, sigmas = 20_000, spread(CHAIN, 250)
    expected = linear_chain(sigmas, keep, added)
    assert expected == pytest.approx(VARIANCE, rel=0.05)
    assert linear_chain(spread(CHAIN, 1000), keep, added) == pytest.approx(VARIANCE, rel=0.02)
    found = sampler(gaussian, float(sigmas[0]) * normal(0, n, 1, 1, 1), sigmas, noise=stream(1, n, 1, 1, 1))
    low, high = stats.chi2.ppf([0.0005, 0.9995], n - 1) / (n - 1)
    assert low < float(found.var()) / expected < high
    assert abs(float(found.mean())) < 4 * math.sqrt(expected / n)


def test_churning_keeps_the_variance() -> None:
    n = 20_000
    found = churn(gaussian, SIGMA_MAX * normal(0, n, 1, 1, 1), karras_sigmas(64), noise=stream(1, n, 1, 1, 1))
    assert float(found.var()) == pytest.approx(VARIANCE, rel=0.04)  # noise is inflated by 1.003
    plain = heun(gaussian, SIGMA_MAX * normal(0, n, 1, 1, 1), karras_sigmas(64))
    assert abs(float(np.corrcoef(found.flatten(), plain.flatten())[0, 1])) < 0.5, "the start is mostly forgotten"


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_a_perfect_consistency_function_keeps_the_variance_in_any_number_of_steps(num_steps: int) -> None:
    n = 20_000
    start = math.sqrt(SIGMA_MAX**2 + VARIANCE) * normal(0, n, 1, 1, 1)
    sigmas = karras_sigmas(num_steps)
    found = multistep_consistency(jump, start, sigmas, noise=stream(1, n, 1, 1, 1))
    assert float(found.var()) == pytest.approx(VARIANCE, rel=0.04)
    if num_steps == 1:
        torch.testing.assert_close(found, jump(start, torch.full((n,), SIGMA_MAX).double()), rtol=1e-12, atol=0)


def test_consistency_by_hand() -> None:
    x, eps = normal(0, 2, 1, 2, 2), normal(1, 2, 1, 2, 2)
    sigmas, ones = torch.tensor([9.0, 0.5, 0.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    expected = jump(jump(x, 9 * ones) + 0.5 * eps, 0.5 * ones)
    assert torch.equal(multistep_consistency(jump, x, sigmas, noise=lambda: eps), expected)


def test_a_correlated_source_by_the_chain() -> None:
    source, n, sigmas = correlated(), 20_000, spread(CHAIN, 500)
    noise = stream(1, n, 1, 2, 2)
    found = ancestral(source.denoise, float(sigmas[0]) * normal(0, n, 1, 2, 2), sigmas, noise=noise).flatten(1)
    torch.testing.assert_close(found.mean(0), source.mean, rtol=0, atol=0.05)
    error = (torch.cov(found.T) - source.covariance).abs().max()
    assert float(error) < 0.05 * float(source.covariance.diag().max())


PMF = torch.zeros(256, dtype=torch.float64)
PMF[[10, 90, 93, 200, 255]] = torch.tensor([0.3, 0.25, 0.1, 0.25, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "euler", "ancestral", "churn"])
def test_independent_pixels_come_out_with_their_frequencies(name: str) -> None:
    """A law with five atoms: every sample is one of them, and as often as it should be."""
    source, n = IndependentPixels(PMF), 3000
    x = SIGMA_MAX * normal(0, n, 1, 1, 1)
    sigmas = karras_sigmas(60 if name in ("heun", "churn") else 150)
    found = to_uint8(SAMPLERS[name](source.denoise, x, sigmas, noise=stream(1, n, 1, 1, 1))).flatten()
    counts = torch.bincount(found.long(), minlength=256)
    assert int(counts[PMF == 0].sum()) == 0
    assert stats.chisquare(counts[PMF > 0].numpy(), (n * PMF[PMF > 0]).numpy()).pvalue > 1e-3


# How samplers relate.


@pytest.mark.parametrize("sigmas", [karras_sigmas(7), spread(CHAIN, 9)], ids=["karras", "chain"])
def test_ddim_lies_between_euler_and_the_ancestral_sampler(sigmas: torch.Tensor) -> None:
    source, x, shape = IndependentPixels(PMF), float(sigmas[0]) * normal(0, 3, 1, 2, 2), (3, 1, 2, 2)
    plain = ddim(source.denoise, x, sigmas, eta=0.0)
    assert torch.equal(plain, euler(source.denoise, x, sigmas))
    noisy = ddim(source.denoise, x, sigmas, eta=1.0, noise=stream(1, *shape))
    walked = ancestral(source.denoise, x, sigmas, noise=stream(1, *shape))
    torch.testing.assert_close(noisy, walked, rtol=0, atol=1e-9)
    assert float((noisy - plain).abs().max()) > 0.1
    by_hand = x  # Euler's method as first written
    for t, s in itertools.pairwise(sigmas.tolist()):
        level = torch.full((3,), t, dtype=torch.float64)
        by_hand = by_hand + (s - t) * (by_hand - source.denoise(by_hand, level)) / t
    torch.testing.assert_close(plain, by_hand, rtol=0, atol=1e-9)


def test_all_steps_of_the_chain_are_its_posteriors() -> None:
    """``num_steps`` = T: every step draws from q(x_{t-1} | x_t, D), on the chain's own scale."""
    length, source = 40, IndependentPixels(PMF)
    alpha_bar = alpha_bars("linear", length)
    levels = sigma_from_alpha_bar(alpha_bar)
    x_t, noise = normal(0, 2, 1, 2, 2), stream(1, 2, 1, 2, 2)
    scale = alpha_bar.sqrt()
    states: list[torch.Tensor] = []
    ancestral(
        source.denoise, x_t / scale[-1], spread(levels, length), noise=stream(1, 2, 1, 2, 2), on_step=states.append
    )
    for i, t in enumerate(reversed(range(length))):
        times = torch.full((2,), t)
        mean, variance = q_posterior(source.denoise(x_t / scale[t], levels[times]), x_t, times, alpha_bar)
        x_t = mean + variance.sqrt() * noise() if t > 0 else mean
        torch.testing.assert_close(states[i] * (scale[t - 1] if t > 0 else 1), x_t, rtol=1e-8, atol=1e-8)


def test_the_variance_of_a_step_may_depend_on_the_pixel_and_is_asked_after_the_denoiser() -> None:
    asked: list[str] = []
    wide = torch.tensor([[1e-12, 4.0], [1e-12, 1e-12]], dtype=torch.float64).expand(2, 1, 2, 2)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        asked.append("denoiser")
        return torch.zeros_like(x)

    def variance(s: float, t: float) -> torch.Tensor:
        assert (s, t) == (0.5, 2.0)
        asked.append("variance")
        return wide

    states: list[torch.Tensor] = []
    sigmas = torch.tensor([2.0, 0.5, 0.0], dtype=torch.float64)
    x = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    ones = torch.ones_like(x)
    ancestral(denoise, x, sigmas, noise=lambda: ones, variance=variance, on_step=states.append)
    assert asked == ["denoiser", "variance", "denoiser"]
    torch.testing.assert_close(states[0], wide.sqrt())


def test_churn_raises_the_noise_only_between_its_limits() -> None:
    """Seen from the denoiser: sigma (1 + gamma) within [S_MIN, S_MAX], sigma elsewhere; no noise is drawn there."""
    seen: list[float] = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(float(sigma[0]))
        return gaussian(x, sigma)

    sigmas, drawn = karras_sigmas(18), []
    churn(denoise, normal(0, 1, 1, 2, 2), sigmas, noise=lambda: drawn.append(1) or torch.zeros(1, 1, 2, 2))
    gamma = min(40 / 18, math.sqrt(2) - 1)
    inside = (sigmas[:-1] >= S_MIN) & (sigmas[:-1] <= S_MAX)
    assert 0 < int(inside.sum()) < 18 and len(drawn) == int(inside.sum())
    expected = torch.where(inside, sigmas[:-1] * (1 + gamma), sigmas[:-1])
    np.testing.assert_allclose(seen[::2], expected, rtol=1e-12)
    assert torch.equal(churn(gaussian, x := normal(0, 1, 1, 2, 2), sigmas, s_churn=0.0), heun(gaussian, x, sigmas))


# Costs and arguments.


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 10])
def test_evaluations_and_steps_are_counted(name: str, num_steps: int) -> None:
    calls: list[tuple[int, ...]] = []
    states: list[torch.Tensor] = []

    def counting(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert sigma.shape == (3,) and sigma.dtype == x.dtype and bool((sigma > 0).all())
        calls.append(tuple(x.shape))
        return gaussian(x, sigma)

    x = SIGMA_MAX * normal(0, 3, 1, 2, 2)
    final = sampler_named(name)(
        counting, x, karras_sigmas(num_steps), noise=stream(1, 3, 1, 2, 2), on_step=states.append
    )
    assert len(calls) == evaluations(name, num_steps)
    assert len(states) == num_steps and torch.equal(states[-1], final)
    assert final.shape == x.shape and final.dtype == x.dtype


def test_only_the_stochastic_ones_draw_noise() -> None:
    sigmas, x = karras_sigmas(6), SIGMA_MAX * normal(0, 3, 1, 2, 2)
    for name, sampler in SAMPLERS.items():
        if name in STOCHASTIC:
            with pytest.raises(ValueError, match="this sampler draws noise: give it noise="):
                sampler(gaussian, x, sigmas)
        else:
            drawn: list[int] = []
            found = sampler(gaussian, x, sigmas, noise=lambda drawn=drawn: drawn.append(1) or torch.zeros_like(x))
            assert drawn == [] and torch.equal(found, sampler(gaussian, x, sigmas))
    with pytest.raises(ValueError, match="draws noise"):
        ddim(gaussian, x, sigmas, eta=0.1)


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sampler must be one of heun, euler, .*, not 'plms'"):
        sampler_named("plms")


def test_steps_of_a_shortened_chain() -> None:
    for num_steps in (1, 2, 7, 250, 999, 1000):
        chosen = np.linspace(NUM_TIMESTEPS - 1, 0, num_steps).round().astype(int)
        found = spread(CHAIN, num_steps)
        np.testing.assert_array_equal(found[:-1], CHAIN[chosen])
        assert found.dtype == torch.float64 and float(found[-1]) == 0 and bool((found.diff() < 0).all())
        assert float(found[0]) == float(CHAIN[-1]), "the walk starts from the chain's last level"
    for wrong in (0, 1001):
        with pytest.raises(ValueError, match=rf"num_steps must lie in 1\.\.1000, not {wrong}"):
            spread(CHAIN, wrong)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 1000])
def test_one_two_and_a_thousand_steps_stay_finite(name: str, num_steps: int) -> None:
    """On every schedule of the family, in float32 as the models walk."""

    def single(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return gaussian(x, sigma).float()

    flow = tiny_model("flow_matching").noise_levels(num_steps)
    for sigmas in (karras_sigmas(num_steps), spread(CHAIN, num_steps), flow):
        x = float(sigmas[0]) * normal(0, 8, 1, 2, 2).float()
        denoise: Denoise = single
        noise = stream(1, 8, 1, 2, 2)
        found = SAMPLERS[name](denoise, x, sigmas, noise=lambda noise=noise: noise().float())
        assert bool(found.isfinite().all())
        assert num_steps == 2 or float(found.abs().max()) < 8  # the slopes of two Heun steps are far apart
        assert found.dtype == torch.float32


def test_noise_levels_span_the_range() -> None:
    assert float(karras_sigmas(2)[1]) == pytest.approx(SIGMA_MIN)
    assert float(CHAIN[-1]) > 1e4 and float(CHAIN[0]) < 0.01
