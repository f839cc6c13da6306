"""The probability-flow ODE against densities in closed form, scipy's solver and itself in other batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from models.base import LikelihoodBound, image_generators, to_float
from models.diffusion.edm import SIGMA_MIN
from models.diffusion.ode import (
    check_tolerance,
    dormand_prince,
    ode_log_density,
    ode_log_likelihood,
    step_factor,
    trace_probes,
    try_step,
)
from models.diffusion.oracles import CorrelatedGaussian, IndependentPixels
from models.diffusion.samplers import Denoise
from tests.models.tiny import random_model, tiny_data

SHAPE = (1, 3, 4)
D = 12


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian() -> CorrelatedGaussian:
    """Correlated: the largest variance is some hundred times the smallest."""
    factor = 0.15 * torch.randn(D, D, generator=generator(0), dtype=torch.float64)
    mean = 0.3 * torch.randn(D, generator=generator(1), dtype=torch.float64)
    return CorrelatedGaussian(mean, factor @ factor.T + 0.005 * torch.eye(D, dtype=torch.float64))


def density(denoise: Denoise, x: torch.Tensor, trace: str = "exact", probes: int = 1, **options: object):
    vectors = trace_probes(tuple(x.shape[1:]), image_generators(len(x), generator(3)), trace=trace, probes=probes)
    arguments: dict = {"rtol": 1e-4, "atol": 1e-4, "prior_variance": 0.25} | options
    return ode_log_density(denoise, x, vectors, **arguments)


def bits(nats: torch.Tensor, dimensions: int = D) -> torch.Tensor:
    return nats / (dimensions * math.log(2))


def test_the_gaussian_oracle_against_scipy() -> None:
    """Its density is scipy's, its denoiser x + sigma^2 grad log p (Tweedie's formula)."""
    source, sigma = gaussian(), torch.tensor([0.3], dtype=torch.float64)
    x = source.sample(1, SHAPE, generator(2)).requires_grad_()
    found = source.log_density(x, sigma)
    covariance = source.covariance.numpy() + 0.09 * np.eye(D)
    expected = stats.multivariate_normal.logpdf(x.detach().flatten().numpy(), source.mean.numpy(), covariance)
    assert found.item() == pytest.approx(float(expected), rel=1e-9)
    (score,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(source.denoise(x, sigma), x + 0.09 * score, rtol=1e-9, atol=1e-9)
    draws = source.sample(20_000, SHAPE, generator(5)).flatten(1)
    torch.testing.assert_close(torch.cov(draws.T), source.covariance, rtol=0, atol=0.02)
    with pytest.raises(ValueError, match="must fit"):
        CorrelatedGaussian(torch.zeros(3), torch.eye(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_correlated_gaussian_with_exact_trace(dtype: torch.dtype) -> None:
    source = gaussian()
    x = source.sample(32, SHAPE, generator(2))
    truth = source.log_density(x, torch.full((32,), SIGMA_MIN, dtype=torch.float64))
    found = density(source.denoise, x, dtype=dtype)
    error = bits(found.prior_density + found.divergence - truth)
    assert float(error.abs().mean()) < 0.002
    assert 0 < float(found.nfe.mean()) < 200


def test_hutchinson_is_unbiased_and_more_probes_have_less_noise() -> None:
    source = gaussian()
    x = source.sample(1, SHAPE, generator(2)).expand(400, -1, -1, -1)
    exact = density(source.denoise, x[:1]).divergence
    one, four = (bits(density(source.denoise, x, "hutchinson", k).divergence - exact) for k in (1, 4))
    for found in (one, four):
        assert abs(float(found.mean())) < 4 * float(found.std()) / math.sqrt(400)
    assert float(one.std()) > 0.05
    assert float(one.std() / four.std()) == pytest.approx(2, rel=0.2)  # 1 / sqrt(K)


def test_a_flow_that_is_not_linear() -> None:
    """Independent pixels of ten levels: the density at sigma_min is a mixture, all of it known."""
    pmf = torch.zeros(256, dtype=torch.float64)
    pmf[[10, 11, 12, 90, 91, 92, 93, 200, 202, 255]] = torch.tensor([3.0, 1, 2, 5, 1, 1, 2, 4, 2, 1]).double() / 22
    source = IndependentPixels(pmf)
    images = source.sample(24, (1, 2, 3), generator(5))
    x = to_float(images).double() + SIGMA_MIN * torch.randn(24, 1, 2, 3, generator=generator(6), dtype=torch.float64)
    truth = source.log_density(x, torch.full((24,), SIGMA_MIN, dtype=torch.float64))
    errors = []
    for tolerance in (1e-3, 1e-5):
        found = density(
            source.denoise, x, rtol=tolerance, atol=tolerance, prior_variance=source.second_moment, dtype=torch.float64
        )
        errors.append(float(bits(found.prior_density + found.divergence - truth, 6).abs().mean()))
    assert errors[1] < 0.002 and errors[1] < errors[0]


def test_scipy_finds_the_same_for_a_network() -> None:
    """Other coordinates (x and sigma), another solver, the whole Jacobian; a smooth network of two layers."""
    weights = [0.3 * torch.randn(4, 4, generator=generator(k), dtype=torch.float64) for k in (7, 8)]

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = sigma[:, None]
        hidden = torch.tanh(x.flatten(1) @ weights[0] / (1 + level) + level.log())
        return (x.flatten(1) / (1 + level**2) + hidden @ weights[1]).reshape(x.shape)

    def slope(sigma: float, state: np.ndarray) -> np.ndarray:
        def drift(y: torch.Tensor) -> torch.Tensor:
            level = torch.tensor([sigma], dtype=torch.float64)
            return (y - denoise(y.reshape(1, 1, 2, 2), level).flatten()) / sigma

        y = torch.from_numpy(state[:4].copy())
        jacobian = torch.autograd.functional.jacobian(drift, y)
        return np.append(drift(y).numpy(), jacobian.trace().item())

    x = torch.randn(1, 1, 2, 2, generator=generator(9), dtype=torch.float64)
    levels = {"sigma_min": 0.05, "sigma_max": 10.0}
    found = density(denoise, x, rtol=1e-8, atol=1e-8, dtype=torch.float64, **levels)
    start = np.append(x.flatten().numpy(), 0.0)
    solution = integrate.solve_ivp(slope, (0.05, 10.0), start, method="DOP853", rtol=1e-10, atol=1e-10)
    end = solution.y[:, -1]
    expected = stats.norm.logpdf(end[:4], 0, math.sqrt(100 + 0.25)).sum() + end[4]
    assert float(found.prior_density + found.divergence) == pytest.approx(float(expected), abs=1e-5)


def test_the_solver_has_order_five() -> None:
    """One step of dz / d tau = z cos(tau) against exp(sin): halving it divides the error by 2^6."""
    def field(z: torch.Tensor, tau: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return z * tau.cos()[:, None]

    z, tau, h = torch.ones(2, 1).double(), torch.zeros(2).double(), torch.tensor([0.4, 0.2]).double()
    new, error, slope = try_step(field, z, tau, h, field(z, tau, torch.arange(2)), torch.arange(2))
    true = (new[:, 0] - h.sin().exp()).abs()
    assert 40 < float(true[0] / true[1]) < 100
    assert (error[:, 0].abs() > true).all()  # the estimate is that of the lower order
    torch.testing.assert_close(slope, field(new, h, torch.arange(2)))


def test_each_row_has_its_own_steps() -> None:
    """Slow and fast oscillations side by side: each as accurate, and as costly, as alone; failures stay apart."""
    rates = torch.tensor([0.5, 20.0, math.nan, 3.0], dtype=torch.float64)

    def field(z: torch.Tensor, tau: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (rates[rows] * (rates[rows] * tau).cos())[:, None].expand(-1, 2)

    end, nfe = dormand_prince(field, torch.zeros(4, 2).double(), 0.0, 5.0, rtol=1e-7, atol=1e-7)
    good = [0, 1, 3]
    torch.testing.assert_close(end[good, 0], (5 * rates[good]).sin(), rtol=0, atol=1e-5)
    assert end[2].isnan().all()
    assert nfe[1] > 3 * nfe[0]
    for row in good:
        def alone(z: torch.Tensor, tau: torch.Tensor, rows: torch.Tensor, row: int = row) -> torch.Tensor:
            return field(z, tau, rows + row)

        single, count = dormand_prince(alone, torch.zeros(1, 2).double(), 0.0, 5.0, rtol=1e-7, atol=1e-7)
        assert torch.equal(single[0], end[row]) and count[0] == nfe[row]


def test_steps_grow_and_shrink_on_a_ladder() -> None:
    size = torch.tensor([0.0, 1e-3, 1.0, 40.0, math.inf], dtype=torch.float64)
    factor = step_factor(size)
    assert factor[[0, 4]].tolist() == [4, 0.25]
    assert factor[2] < 1 and (factor.diff() < 0).all()
    torch.testing.assert_close(2 * factor.log2(), (2 * factor.log2()).round())
    assert torch.equal(step_factor(size * (1 + 1e-6)), factor)


def bound_of(denoise: Denoise, images: torch.Tensor, seed: int = 4, **options: object) -> LikelihoodBound:
    arguments = {"trace": "exact", "rtol": 1e-4, "atol": 1e-4, "prior_variance": 0.25} | options
    return ode_log_likelihood(denoise, images, image_generators(len(images), generator(seed)), **arguments)


def test_an_image_does_not_depend_on_its_batch() -> None:
    """A network with random weights, as rough as can be: steps and result are those of the image alone."""
    model = random_model("diffusion")
    images, _ = tiny_data(2)
    options = {"trace": "hutchinson", "probes": 1, "rtol": 1e-3, "atol": 1e-3}
    whole = bound_of(model.denoise_unlabelled, images, **options)
    shared = generator(4)
    for i in range(2):
        one = ode_log_likelihood(
            model.denoise_unlabelled, images[i : i + 1], image_generators(1, shared), prior_variance=0.25, **options
        )
        assert one.nfe[0] == whole.nfe[i]
        torch.testing.assert_close(one.log_likelihood[0], whole.log_likelihood[i], rtol=1e-6, atol=0)
    assert len(set(whole.nfe.tolist())) > 1, "images of equal cost would prove nothing"


def test_dequantisation_is_on_the_scale_of_the_levels() -> None:
    """Smooth independent pixels: E_u log p(x + u) + D ln(2 / 255) is log P(cell) but for the curvature in a cell."""
    mean, deviation = 0.1, 0.2
    source = CorrelatedGaussian(torch.full((D,), mean).double(), deviation**2 * torch.eye(D, dtype=torch.float64))
    levels = torch.tensor([0, 60, 100, 128, 140, 170, 200, 210, 220, 230, 240, 255])
    images = levels.to(torch.uint8).reshape(1, *SHAPE).expand(50, -1, -1, -1)
    found = bound_of(source.denoise, images, rtol=1e-5, atol=1e-5)
    edges = levels.double().numpy()[:, None] / 127.5 - 1 + np.array([-1, 1]) / 255
    cells = np.diff(stats.norm.cdf(edges, mean, math.hypot(deviation, SIGMA_MIN)), axis=1)
    error = bits(found.log_likelihood - float(np.log(cells).sum()))
    assert abs(float(error.mean())) < 0.002 + 4 * float(error.std()) / math.sqrt(50)
    assert float(found.parts["dequantisation"][0]) == pytest.approx(D * math.log(2 / 255))
    torch.testing.assert_close(sum(found.parts.values()), found.log_likelihood)


def test_draws_are_averaged_and_counted() -> None:
    images = torch.randint(256, (4, *SHAPE), generator=generator(0)).to(torch.uint8)
    one, three = (bound_of(gaussian().denoise, images, draws=k) for k in (1, 3))
    assert (three.nfe > 2 * one.nfe).all()
    assert not torch.equal(one.log_likelihood, three.log_likelihood)
    assert three.settings["dequantisation draws"] == 3 and three.settings["trace"] == "exact"
    assert three.settings["probes"] == D and three.kind == "ode"
    other = bound_of(gaussian().denoise, images, seed=5)
    assert not torch.equal(one.log_likelihood, other.log_likelihood)


def test_it_works_where_gradients_are_off() -> None:
    images = torch.randint(256, (2, *SHAPE), generator=generator(0)).to(torch.uint8)
    expected = bound_of(gaussian().denoise, images).log_likelihood
    for context in (torch.inference_mode(), torch.no_grad()):
        with context:
            found = bound_of(gaussian().denoise, images.clone()).log_likelihood
        assert torch.equal(found, expected) and not found.requires_grad


def test_the_self_check_compares_tolerances() -> None:
    images = torch.randint(256, (2, *SHAPE), generator=generator(0)).to(torch.uint8)
    tight = bound_of(gaussian().denoise, images, rtol=1e-5, atol=1e-5)
    good = check_tolerance(bound_of(gaussian().denoise, images), tight, D)
    assert good.passed and "rtol 1e-04 and 1e-05 differ by 0.00" in good.text
    for shift, passed in ((0.009, True), (0.011, False), (-0.011, False)):  # bits per dimension, of every image
        moved = LikelihoodBound(tight.log_likelihood + shift * D * math.log(2), "ode", settings=tight.settings)
        assert check_tolerance(moved, tight, D).passed == passed
    failed = LikelihoodBound(torch.full((2,), math.nan).double(), "ode", settings=tight.settings)
    assert not check_tolerance(failed, tight, D).passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trace": "estimated"}, "trace must be one of exact, hutchinson, not 'estimated'"),
        ({"trace": "hutchinson", "probes": 0}, "probes must be at least 1, not 0"),
        ({"rtol": 0.0}, "rtol and atol must be above 0"),
        ({"draws": 0}, "draws must be at least 1, not 0"),
        ({"sigma_min": 90.0}, "0 < sigma_min < sigma_max"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bound_of(gaussian().denoise, torch.zeros(1, *SHAPE, dtype=torch.uint8), **options)
