"""The forward chain against step-by-step Gaussians, Bayes' rule, NumPy's schedules and autograd."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from models.diffusion.process import (
    LARGEST_BETA,
    Quantity,
    Schedule,
    alpha_bars,
    before,
    beta_at,
    convert,
    cosine_betas,
    linear_betas,
    log_snr,
    q_mean_variance,
    q_posterior,
    q_sample,
)

T = 1000
SCHEDULES = get_args(Schedule)
QUANTITIES = get_args(Quantity)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Schedules.


def test_the_linear_schedule_against_numpy() -> None:
    """Ho et al. 2020, Sec. 4: L_T of about 1e-5 bits because alpha_bar_T is 4.0e-5."""
    betas = np.linspace(1e-4, 0.02, T)
    np.testing.assert_allclose(linear_betas(T), betas, rtol=1e-12)
    found = alpha_bars("linear", T)
    np.testing.assert_allclose(found, np.cumprod(1 - betas), rtol=1e-10)
    assert float(found[-1]) == pytest.approx(4.0e-5, rel=0.02)
    assert float(found[0]) == pytest.approx(1 - 1e-4)


@pytest.mark.parametrize("num_steps", [50, 250, 4000])
def test_a_linear_schedule_of_another_length_ends_at_about_the_same_noise(num_steps: int) -> None:
    found = alpha_bars("linear", num_steps)
    assert float(linear_betas(num_steps)[0]) == pytest.approx(0.1 / num_steps)
    assert math.log(float(found[-1])) == pytest.approx(math.log(4.0e-5), rel=0.3)


def test_the_cosine_schedule_against_its_formula() -> None:
    """Nichol and Dhariwal 2021, Eq. 17: f(t) / f(0), exactly wherever beta is not clipped."""
    t = np.arange(T + 1) / T
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    found, betas = alpha_bars("cosine", T).numpy(), cosine_betas(T).numpy()
    free = betas < LARGEST_BETA
    assert free[:-1].all() and not free[-1], "the last step alone is clipped"
    np.testing.assert_allclose(found[:-1], (f / f[0])[1:-1], rtol=1e-9)
    assert 0 < found[-1] < 1e-8
    assert betas.max() == LARGEST_BETA


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2, 10, T])
def test_schedules_descend_within_0_and_1(schedule: Schedule, num_steps: int) -> None:
    found = alpha_bars(schedule, num_steps)
    assert found.dtype == torch.float64 and found.shape == (num_steps,)
    assert bool(((found > 0) & (found < 1)).all()) and bool((found.diff() < 0).all())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_beta_and_the_step_before_are_those_of_the_schedule(schedule: Schedule) -> None:
    betas = linear_betas(T) if schedule == "linear" else cosine_betas(T)
    t, alpha_bar = torch.arange(T), alpha_bars(schedule, T)
    torch.testing.assert_close(beta_at(alpha_bar, t), betas, rtol=1e-9, atol=0)
    assert before(alpha_bar, t).tolist() == [1.0, *alpha_bar[:-1].tolist()]


def test_log_snr() -> None:
    alpha_bar = alpha_bars("cosine", T)
    expected = np.log(alpha_bar.numpy()) - np.log1p(-alpha_bar.numpy())
    np.testing.assert_allclose(log_snr(alpha_bar), expected, rtol=1e-12)
    assert log_snr(torch.tensor([0.5])).tolist() == [0.0]
    assert log_snr(torch.tensor([0.3])).dtype == torch.float64


def test_schedules_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="schedule must be one of linear, cosine, not 'sigmoid'"):
        alpha_bars("sigmoid", T)
    with pytest.raises(ValueError, match="number of steps must be at least 1, not 0"):
        alpha_bars("linear", 0)


# Marginals and posteriors.


def stepwise(x_0: float, betas: torch.Tensor) -> list[tuple[float, float]]:
    """Mean and variance after every step x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) eps of a point x_0."""
    mean, variance, found = x_0, 0.0, []
    for beta in betas.tolist():
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        found.append((mean, variance))
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_marginal_is_the_chain_walked_step_by_step(schedule: Schedule) -> None:
    betas = linear_betas(T) if schedule == "linear" else cosine_betas(T)
    alpha_bar, x_0 = alpha_bars(schedule, T), torch.full((T, 1, 1, 1), 0.7, dtype=torch.float64)
    mean, variance = q_mean_variance(x_0, torch.arange(T), alpha_bar)
    means, variances = zip(*stepwise(0.7, betas), strict=True)
    np.testing.assert_allclose(mean.flatten(), means, rtol=1e-9)
    np.testing.assert_allclose(variance.flatten(), variances, rtol=1e-9)
    eps = normal(0, T, 1, 1, 1)
    expected = np.array(means) + np.sqrt(variances) * eps.flatten().numpy()
    np.testing.assert_allclose(q_sample(x_0, torch.arange(T), eps, alpha_bar).flatten(), expected, rtol=1e-9)


def test_q_sample_keeps_the_type_and_the_rows_apart() -> None:
    alpha_bar, x_0, eps = alpha_bars("cosine", T), normal(0, 3, 2, 4, 4).float(), normal(1, 3, 2, 4, 4).float()
    t = torch.tensor([0, 400, 999])
    found = q_sample(x_0, t, eps, alpha_bar)
    assert found.dtype == torch.float32 and found.shape == x_0.shape
    for i in range(3):
        assert torch.equal(q_sample(x_0[i : i + 1], t[i : i + 1], eps[i : i + 1], alpha_bar)[0], found[i])
    torch.testing.assert_close(found[0], x_0[0], rtol=0, atol=0.05)  # one step of noise
    torch.testing.assert_close(found[2], eps[2], rtol=0, atol=1e-3)  # nothing but noise


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_posterior_is_the_product_of_two_gaussians(schedule: Schedule) -> None:
    """q(x_{t-1} | x_t, x_0) ~ q(x_{t-1} | x_0) q(x_t | x_{t-1}): precisions add."""
    alpha_bar, t = alpha_bars(schedule, T), torch.tensor([1, 2, 10, 500, 998, 999])
    x_0, x_t = normal(0, 6, 1, 2, 2), normal(1, 6, 1, 2, 2)
    betas = linear_betas(T) if schedule == "linear" else cosine_betas(T)
    beta, earlier = betas[t][:, None, None, None], alpha_bar[t - 1][:, None, None, None]
    precision = 1 / (1 - earlier) + (1 - beta) / beta
    expected = (earlier.sqrt() * x_0 / (1 - earlier) + (1 - beta).sqrt() * x_t / beta) / precision
    mean, variance = q_posterior(x_0, x_t, t, alpha_bar)
    torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(variance, 1 / precision, rtol=1e-8, atol=0)


@pytest.mark.parametrize("t", [1, 30, 600])
def test_the_posterior_by_numerical_integration(t: int) -> None:
    alpha_bar, x_0 = alpha_bars("cosine", T), 0.4
    beta, earlier, now = float(cosine_betas(T)[t]), float(alpha_bar[t - 1]), float(alpha_bar[t])
    x_t = math.sqrt(now) * x_0 + 1.3 * math.sqrt(1 - now)

    def density(x: float) -> float:
        step = stats.norm.pdf(x_t, math.sqrt(1 - beta) * x, math.sqrt(beta))
        return float(step * stats.norm.pdf(x, math.sqrt(earlier) * x_0, math.sqrt(1 - earlier)))

    def point(value: float) -> torch.Tensor:
        return torch.full((1, 1, 1, 1), value, dtype=torch.float64)

    mean, variance = (float(x) for x in q_posterior(point(x_0), point(x_t), torch.tensor([t]), alpha_bar))
    ends = mean - 12 * math.sqrt(variance), mean + 12 * math.sqrt(variance)
    mass, first, second = (
        integrate.quad(lambda x, k=k: (x - x_0) ** k * density(x), *ends, epsabs=0, epsrel=1e-11, limit=200)[0]
        for k in range(3)
    )
    assert mean - x_0 == pytest.approx(first / mass, rel=1e-6)
    assert variance == pytest.approx(second / mass - (first / mass) ** 2, rel=1e-4)


def test_the_first_posterior_is_the_point_x_0() -> None:
    for schedule in SCHEDULES:
        x_0, x_t = normal(0, 2, 1, 2, 2), normal(1, 2, 1, 2, 2)
        mean, variance = q_posterior(x_0, x_t, torch.zeros(2, dtype=torch.int64), alpha_bars(schedule, T))
        torch.testing.assert_close(mean, x_0, rtol=1e-12, atol=1e-12)
        assert variance.flatten().tolist() == [0, 0]


def test_marginals_and_posteriors_fit_together() -> None:
    """Integrating q(x_{t-1} | x_t, x_0) over q(x_t | x_0) gives back q(x_{t-1} | x_0)."""
    alpha_bar, t, x_0 = alpha_bars("linear", T), torch.arange(1, T), torch.full((T - 1, 1, 1, 1), -0.3).double()
    mean_t, variance_t = q_mean_variance(x_0, t, alpha_bar)
    at_mean, variance = q_posterior(x_0, mean_t, t, alpha_bar)
    slope = q_posterior(x_0, mean_t + 1, t, alpha_bar)[0] - at_mean  # the mean is linear in x_t
    expected_mean, expected_variance = q_mean_variance(x_0, t - 1, alpha_bar)
    torch.testing.assert_close(at_mean, expected_mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(variance + slope.square() * variance_t, expected_variance, rtol=1e-8, atol=0)


# What a network may predict.

LEVELS = torch.tensor([1e-6, 4e-5, 0.1, 0.5, 0.9, 0.9999], dtype=torch.float64)


def quantities() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """eps, x_0, v and the score by their definitions, and x_t."""
    x_0, eps = normal(0, len(LEVELS), 1, 3, 3), normal(1, len(LEVELS), 1, 3, 3)
    signal, noise = LEVELS.sqrt()[:, None, None, None], (1 - LEVELS).sqrt()[:, None, None, None]
    known = {"x_0": x_0, "eps": eps, "v": signal * eps - noise * x_0, "score": -eps / noise}
    return known, signal * x_0 + noise * eps


@pytest.mark.parametrize(("source", "target"), list(itertools.product(QUANTITIES, QUANTITIES)))
def test_conversion_between_all_pairs(source: Quantity, target: Quantity) -> None:
    known, x_t = quantities()
    found = convert(known[source], x_t, LEVELS, source, target)
    assert found.dtype == torch.float64
    # From noise to picture at alpha_bar = 1e-6 digits are lost, a factor 1 / sqrt(alpha_bar).
    torch.testing.assert_close(found, known[target], rtol=1e-9, atol=1e-9)
    back = convert(found, x_t, LEVELS, target, source)
    torch.testing.assert_close(back, known[source], rtol=1e-9, atol=1e-9)


def test_the_score_is_the_gradient_of_the_log_density() -> None:
    known, x_t = quantities()
    x_t = x_t.requires_grad_()
    mean = LEVELS.sqrt()[:, None, None, None] * known["x_0"]
    deviation = (1 - LEVELS).sqrt()[:, None, None, None].expand_as(mean)
    (gradient,) = torch.autograd.grad(torch.distributions.Normal(mean, deviation).log_prob(x_t).sum(), x_t)
    found = convert(known["x_0"], x_t.detach(), LEVELS, "x_0", "score")
    torch.testing.assert_close(found, gradient, rtol=1e-8, atol=1e-8)


def test_what_cannot_be_converted_is_refused() -> None:
    x, one = torch.zeros(1, 1, 2, 2), torch.tensor([0.5])
    for names in (("score", "velocity"), ("velocity", "score")):
        with pytest.raises(ValueError, match="must be one of eps, x_0, v, score, not 'velocity'"):
            convert(x, x, one, *names)
    for wrong in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"alpha_bar must lie within \(0, 1\)"):
            convert(x, x, torch.tensor([wrong]), "eps", "x_0")
