"""The discretised Gaussian is a distribution, and the GAN's estimate agrees with quadrature over its latent."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from models.base import image_generators
from models.gan import likelihood
from models.gan.likelihood import (
    Calibration,
    Density,
    calibrate,
    discretized_normal_log_prob,
    sigma_sweep,
    simulate_levels,
)
from tests.models.tiny import random_model, tiny_data

LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("mean", [-30.0, -1.0, -0.3, 0.0, 0.7, 1.02, 30.0])
def test_it_sums_to_one(mean: float, sigma: float) -> None:
    masses = discretized_normal_log_prob(LEVELS, torch.full((256,), mean, dtype=torch.float64), sigma).exp()
    assert float(masses.sum()) == pytest.approx(1, abs=1e-12)


def test_it_is_the_difference_of_two_normal_distributions() -> None:
    mean, sigma = torch.full((256,), 0.2, dtype=torch.float64), 0.3
    edges = (torch.arange(1, 256).double().numpy() - 0.5) / 127.5 - 1
    below = [0.0, *stats.norm(0.2, sigma).cdf(edges).tolist(), 1.0]
    expected = torch.tensor(below, dtype=torch.float64).diff()
    torch.testing.assert_close(discretized_normal_log_prob(LEVELS, mean, sigma).exp(), expected, rtol=1e-9, atol=1e-16)


def test_far_tails_keep_their_digits_and_gradients() -> None:
    """100 standard deviations out a difference of distribution functions is 0; its logarithm is the tail's."""
    mean = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64, requires_grad=True)
    images, sigma = torch.tensor([50, 205, 0], dtype=torch.uint8), 0.01
    found = discretized_normal_log_prob(images, mean, sigma)
    near = (1 - (50.5 / 127.5 - 1)) / sigma  # the bin's nearer edge; its mass is nearly that beyond it
    assert found[0].item() == pytest.approx(float(stats.norm.logsf(near)), abs=1e-6)
    assert found[1].item() == pytest.approx(found[0].item(), rel=1e-12)
    assert found[2].item() == pytest.approx(float(stats.norm.logcdf((-1 + 1 / 255 - 1) / sigma)), rel=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), mean)
    assert gradient.isfinite().all() and (gradient.sign() == torch.tensor([-1, 1, -1])).all()


def test_simulated_levels_follow_it() -> None:
    mean = torch.full((20_000,), 0.95)
    levels = simulate_levels(mean, 0.05, torch.randn(20_000, generator=torch.Generator().manual_seed(0)))
    expected = 20_000 * discretized_normal_log_prob(LEVELS, torch.full((256,), 0.95), 0.05).exp()
    often = expected > 5
    seen = torch.bincount(levels.long(), minlength=256)
    statistic = float(((seen - expected).square() / expected)[often].sum())
    assert stats.chi2(int(often.sum())).sf(statistic) > 1e-3


def tiny_decoder(z: Tensor, classes: Tensor) -> Tensor:
    """One latent dimension and three classes to 1 x 1 x 3 images, not linear."""
    phases = torch.tensor([0.0, 1.0, 2.5], dtype=z.dtype)[classes]
    return torch.stack([torch.sin(z[:, 0] + phases), 0.4 * z[:, 0], torch.tanh(phases - z[:, 0])], 1)[:, None, None]


def quadrature(density: Density, images: Tensor) -> Tensor:
    """log p(x) by the trapezoidal rule over z in -8..8 and the sum over classes, float64 (N,)."""
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    log_prior = -0.5 * grid.square() - 0.5 * math.log(2 * math.pi) + math.log(16 / 4000) - math.log(3)
    totals = []
    for image in images:
        joint = []
        for c in range(3):
            mean = density.generator(grid[:, None], torch.full((4001,), c))
            pixels = discretized_normal_log_prob(image.expand(4001, -1, -1, -1), mean, density.sigma)
            joint.append(pixels.flatten(1).sum(1) + log_prior)
        totals.append(torch.stack(joint).flatten().logsumexp(0))
    return torch.stack(totals)


@pytest.fixture
def density(monkeypatch: pytest.MonkeyPatch) -> Density:
    monkeypatch.setattr(likelihood, "TEMPERATURES", 120)
    monkeypatch.setattr(likelihood, "TUNING_TEMPERATURES", 40)
    monkeypatch.setattr(likelihood, "CHAINS", 20)
    return Density(tiny_decoder, latent_dim=1, num_classes=3, sigma=0.2)


def test_the_estimate_agrees_with_quadrature(density: Density) -> None:
    _, _, images = density.simulate(image_generators(6, torch.Generator().manual_seed(0)))
    exact = quadrature(density, images)
    found = likelihood.estimate(density, images, image_generators(6, torch.Generator().manual_seed(1)))
    assert found.log_likelihood.shape == (6,) and found.log_likelihood.dtype == torch.float64
    torch.testing.assert_close(found.log_likelihood, exact, rtol=0, atol=0.5)
    assert float((found.log_likelihood - exact).mean()) == pytest.approx(0, abs=0.2)
    sandwich = likelihood.sandwich(density, 6, torch.Generator().manual_seed(2))
    assert -3 * sandwich.error <= sandwich.gap < 1


def test_calibration_finds_the_noise_of_the_data(density: Density, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "TUNING_TEMPERATURES", 120)
    monkeypatch.setattr(likelihood, "SIGMAS", (0.08, 0.18, 0.42))
    truth = Density(tiny_decoder, 1, 3, sigma=0.18)
    _, _, images = truth.simulate(image_generators(8, torch.Generator().manual_seed(3)))
    found = calibrate(density, images, torch.Generator().manual_seed(4))
    assert found.sigma == 0.18 and set(found.sweep) == {0.08, 0.18, 0.42}
    assert found.sweep[found.sigma] == min(found.sweep.values())
    for sigma in (0.18, 0.42):
        exact = float(-quadrature(Density(tiny_decoder, 1, 3, sigma), images).mean() / (3 * math.log(2)))
        assert found.sweep[sigma] == pytest.approx(exact, abs=0.1)
    with pytest.raises(ValueError, match="at least one validation image"):
        calibrate(density, images[:0], torch.Generator())


def test_the_sweep_over_the_noise_is_that_of_quadrature(density: Density, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "TUNING_TEMPERATURES", 120)
    _, _, images = density.simulate(image_generators(4, torch.Generator().manual_seed(3)))
    sigmas = (0.1, 0.2, 0.5)
    found = sigma_sweep(density, images, torch.Generator().manual_seed(4), sigmas)
    assert tuple(found) == sigmas
    for sigma in sigmas:
        exact = float(-quadrature(Density(tiny_decoder, 1, 3, sigma), images).mean() / (3 * math.log(2)))
        assert found[sigma] == pytest.approx(exact, abs=0.15)
    alone = sigma_sweep(density, images, torch.Generator().manual_seed(4), (0.5,))
    assert alone[0.5] == found[0.5], "all see the same noise"
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"sigma must be a number above 0, not 0\.2, "):
            sigma_sweep(density, images, torch.Generator(), (0.2, wrong))


def test_a_model_is_looked_at_around_its_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "TUNING_TEMPERATURES", 10)
    model, (images, _) = random_model("gan"), tiny_data(9)
    model.calibration = Calibration(0.4)
    with torch.inference_mode():
        found = model.observation_sweep(images, generator=torch.Generator().manual_seed(0))
    assert list(found) == pytest.approx([0.4 * factor for factor in likelihood.FACTORS])
    assert all(math.isfinite(bits) for bits in found.values()) and model.calibration.sigma == 0.4
    one = model.observation_sweep(images[:8], generator=torch.Generator().manual_seed(0), factors=(2.0,))
    assert one == {0.8: found[0.8]}, "the first eight images count"
    with pytest.raises(ValueError, match="images must be uint8"):
        model.observation_sweep(images.float(), generator=torch.Generator())


def test_what_calibration_tried_is_told_where_it_is_finite() -> None:
    assert Calibration(0.3, {0.3: 4.0, 0.9: 5.5, 1.0: math.inf}).tried() == {"sigma": {0.3: 4.0, 0.9: 5.5}}
    assert Calibration().tried() == {} == Calibration(0.3, {0.3: math.inf}).tried()


def test_the_model_says_what_its_number_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "SIGMAS", (0.3, 0.9))
    monkeypatch.setattr(likelihood, "TEMPERATURES", 20)
    monkeypatch.setattr(likelihood, "TUNING_TEMPERATURES", 10)
    model, (images, _) = random_model("gan"), tiny_data(9)
    assert model.likelihood_kinds == model.slow_likelihood_kinds == ("ais",)
    with torch.inference_mode():
        bound = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(0), kind="ais")
    assert bound.settings["sigma is"] == "the default, not calibrated" and bound.kind == "ais"
    assert bound.log_likelihood.isfinite().all() and 0 < bound.settings["acceptance"] < 1
    model.calibrate_likelihood(images, generator=torch.Generator().manual_seed(0))
    again = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(0))
    assert again.settings["sigma"] == model.calibration.sigma
    swept = model.calibration.sweep
    assert tuple(swept) == likelihood.SIGMAS and min(swept.values()) == swept[model.calibration.sigma]
    shown = str(again.settings["validation bits/dim by sigma"]).split(", ")
    assert shown == [f"{bits:.2f} at {sigma:g}" for sigma, bits in swept.items()]
    assert bound.tried == {} and again.tried == {"sigma": swept}
    with pytest.raises(ValueError, match="unknown kind of likelihood 'elbo'; allowed: ais"):
        model.log_likelihood_bound(images, generator=torch.Generator(), kind="elbo")
    check = model.check_likelihood(images, kind="ais", generator=torch.Generator().manual_seed(1))
    assert check.text.startswith("BDMC on 8 simulated images: between ") and "nats" in check.text


def test_an_image_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "TEMPERATURES", 20)
    monkeypatch.setattr(likelihood, "TUNING_TEMPERATURES", 10)
    model, (images, _) = random_model("gan"), tiny_data(10)
    model.calibration = Calibration(0.12)
    whole = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(0)).log_likelihood
    g = torch.Generator().manual_seed(0)
    parts = [model.log_likelihood_bound(part, generator=g).log_likelihood for part in images.split([3, 7])]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=0)


def test_network_evaluations_are_those_that_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "TEMPERATURES", 20)
    monkeypatch.setattr(likelihood, "TUNING_TEMPERATURES", 10)
    model, (images, _) = random_model("gan"), tiny_data(8)
    rows: list[int] = []
    model.generator.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    bound = model.log_likelihood_bound(images, generator=torch.Generator())
    assert bound.nfe is not None and sum(rows) == float(bound.nfe.sum())
