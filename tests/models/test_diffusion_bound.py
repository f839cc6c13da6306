"""The variational bound against a source whose entropy, and whose every gap, is known by quadrature."""

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
    diffusion_term,
    per_image_sum,
    prior_term,
    reconstruction_term,
    variational_bound,
)
from models.diffusion.samplers import Denoise

LEVELS = torch.tensor([10, 11, 12, 90, 91, 92, 93, 200, 202, 255])
PMF = torch.tensor([3.0, 1, 2, 5, 1, 1, 2, 4, 2, 1], dtype=torch.float64)
PMF /= PMF.sum()
VALUES = to_float(LEVELS).double()
SHAPE = (1, 3, 3)
PIXELS = 9
ENTROPY = -float((PMF * PMF.log()).sum()) * PIXELS
PRIOR_VARIANCE = float((PMF * VALUES**2).sum())


def source(n: int, seed: int = 0) -> torch.Tensor:
    """Images of independent pixels, uint8 (n, 1, 3, 3)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(PMF, n * PIXELS, replacement=True, generator=generator)
    return LEVELS[drawn].to(torch.uint8).reshape(n, *SHAPE)


def bayes(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x_sigma] of the source, the best denoiser there is."""
    s = sigma.double()[:, None, None, None, None]
    weights = torch.softmax(PMF.log() - 0.5 * ((x.double()[..., None] - VALUES) / s) ** 2, dim=-1)
    return (weights * VALUES).sum(-1)


def bound(denoise: Denoise, n: int = 300, num_levels: int = 64) -> LikelihoodBound:
    generators = image_generators(n, torch.Generator().manual_seed(1))
    return variational_bound(
        denoise, source(n), generators, num_levels=num_levels, prior_variance=PRIOR_VARIANCE
    )


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
