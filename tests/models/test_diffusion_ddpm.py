"""DDPM: every combination learns, losses by hand, gradients of the hybrid, time, three networks as one denoiser."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from models.base import to_float
from models.diffusion.chain_bound import first_step, log_variances, step_divergence
from models.diffusion.ddpm import LEARNED, NUM_TIMESTEPS, VLB_WEIGHT, ChainNetwork, DDPMStage, draw_timesteps
from models.diffusion.network import NoiseConditionalUNet
from models.diffusion.oracles import IndependentPixels
from models.diffusion.parameterisation import from_x_0, sigma_from_alpha_bar
from models.diffusion.process import alpha_bars, q_sample
from models.diffusion.samplers import beta_variance, posterior_variance
from tests.models.tiny import SHAPE, randomised, tiny_data, tiny_model

PREDICTIONS, OBJECTIVES = ("eps", "x_0", "v"), ("simple", "vlb", "hybrid")
COMBINATIONS = list(itertools.product(("linear", "cosine"), PREDICTIONS, OBJECTIVES))


def stage_of(schedule: str = "cosine", prediction: str = "v", objective: str = "hybrid") -> DDPMStage:
    """A stage with random weights."""
    return randomised(tiny_model("ddpm", schedule=schedule, prediction=prediction, objective=objective)).stages()[0]


def batch(n: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images in [-1, 1], labels and noise."""
    images, labels = tiny_data(n)
    return to_float(images), labels, torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(5))


def loss_of(stage: DDPMStage, seed: int, n: int) -> torch.Tensor:
    """The loss of a batch, with timesteps that the seed decides."""
    x_0, labels, eps = batch(n)
    torch.manual_seed(seed)
    return stage.loss(x_0, labels, eps, None)


# Training.


def learned(stage: DDPMStage, loss: Callable[[int, int], torch.Tensor], judge: str) -> tuple[float, float]:
    """The objective ``judge`` of many images before and after a few steps on a loss, a function of seed and batch.

    The bound is mostly that of the first few levels, which few timesteps meet: it is judged on more of them.
    """
    optimizer, trained = torch.optim.Adam(stage.network.parameters(), lr=3e-3), stage.objective
    found = []
    for steps in (0, 20):
        for step in range(steps):
            optimizer.zero_grad()
            loss(step + 1, 16).backward()
            optimizer.step()
        stage.objective = judge
        with torch.no_grad():
            found.append(sum(float(loss_of(stage, 1000 * k, 128)) for k in range(6 if judge == "vlb" else 1)))
        stage.objective = trained
    assert all(map(math.isfinite, found))
    return found[0], found[1]


@pytest.mark.parametrize(("schedule", "prediction", "objective"), COMBINATIONS)
def test_every_combination_learns(schedule: str, prediction: str, objective: str) -> None:
    """The hybrid is judged by its simple part; the next test is about the other."""
    stage = tiny_model("ddpm", schedule=schedule, prediction=prediction, objective=objective).stages()[0]
    before, after = learned(stage, lambda seed, n: loss_of(stage, seed, n), objective.replace("hybrid", "simple"))
    assert after < 0.97 * before


def test_the_bound_teaches_the_variances() -> None:
    """With the mean held fixed it falls too."""
    stage = tiny_model("ddpm", objective="vlb").stages()[0]

    def loss(seed: int, n: int) -> torch.Tensor:
        x_0, labels, eps = batch(n)
        torch.manual_seed(seed)
        return stage.bound(stage.look(x_0, labels, eps, None, draw_timesteps(n, x_0.device)), fixed_mean=True)

    before, after = learned(stage, loss, "vlb")
    assert after < 0.99 * before


# Losses by hand.


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@torch.no_grad()
def test_the_simple_loss_by_hand(schedule: str, prediction: str) -> None:
    """Ho et al. 2020, Eq. 14: x_t and the targets by their definitions, the U-Net told x_t and t."""
    stage, (x_0, labels, eps) = stage_of(schedule, prediction, "simple"), batch()
    torch.manual_seed(3)
    found = stage.loss(x_0, labels, eps, None)
    torch.manual_seed(3)
    t, alpha_bar = draw_timesteps(16, x_0.device), alpha_bars(schedule, NUM_TIMESTEPS)
    signal, noise = (s.float()[:, None, None, None] for s in (alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()))
    target = {"eps": eps, "x_0": x_0, "v": signal * eps - noise * x_0}[prediction]
    output = NoiseConditionalUNet.forward(stage.network, q_sample(x_0, t, eps, alpha_bar), t.float(), labels)
    expected = sum(float((output[i] - target[i]).square().mean()) for i in range(16)) / 16
    assert float(found) == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_the_bound_by_hand() -> None:
    """T times the term of a step in bits per dimension; over all steps it averages to their sum."""
    stage, sigmas = stage_of(objective="vlb"), stage_of().network.sigmas
    images, t = tiny_data(1)[0].expand(NUM_TIMESTEPS, -1, -1, -1), torch.arange(NUM_TIMESTEPS)
    x_0, labels = to_float(images), torch.full((NUM_TIMESTEPS,), 3)
    eps = torch.randn(NUM_TIMESTEPS, *SHAPE, generator=torch.Generator().manual_seed(5))
    found = stage.bound(stage.look(x_0, labels, eps, None, t))
    chain = stage.network.chain(labels[1:])
    nats = step_divergence(chain, x_0[1:], t[1:], eps[1:], sigmas).sum()
    nats += first_step(stage.network.chain(labels[:1]), images[:1], eps[:1], sigmas)[0]
    assert float(found) == pytest.approx(float(nats) / (64 * math.log(2)), rel=1e-5)
    torch.manual_seed(3)
    objective = stage.loss(x_0[:16], labels[:16], eps[:16], None)
    torch.manual_seed(3)
    drawn = draw_timesteps(16, x_0.device)
    assert float(objective) == float(stage.bound(stage.look(x_0[:16], labels[:16], eps[:16], None, drawn)))


@torch.no_grad()
def test_the_hybrid_is_the_simple_loss_and_a_thousandth_of_the_bound() -> None:
    stage, (x_0, labels, eps) = stage_of(objective="hybrid"), batch()
    torch.manual_seed(3)
    found = stage.loss(x_0, labels, eps, None)
    stage.objective = "simple"
    torch.manual_seed(3)
    simple = stage.loss(x_0, labels, eps, None)
    torch.manual_seed(3)
    bound = stage.bound(stage.look(x_0, labels, eps, None, draw_timesteps(16, x_0.device)))
    assert float(found) == pytest.approx(float(simple + VLB_WEIGHT * bound), rel=1e-6) and VLB_WEIGHT == 1e-3


# Gradients.


def head_gradients(stage: DDPMStage, fixed_mean: bool) -> tuple[float, float]:
    """Largest gradient of the bound in the last layer's weights of the prediction and of the variances."""
    x_0, labels, eps = batch()
    stage.zero_grad()
    stage.bound(stage.look(x_0, labels, eps, None, torch.arange(16) * 60), fixed_mean=fixed_mean).backward()
    head = next(m for m in reversed(list(stage.network.net.head)) if isinstance(m, torch.nn.Conv2d))
    assert head.out_channels == 2, "one for the prediction, one for the variances"
    mean, variance = head.weight.grad.abs().flatten(1).amax(1).tolist()
    return mean, variance


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_bound_in_the_hybrid_trains_the_variances_alone(prediction: str) -> None:
    """Nichol and Dhariwal 2021, Sec. 3.1."""
    stage = stage_of(prediction=prediction)
    mean, variance = head_gradients(stage, fixed_mean=True)
    assert mean == 0 and variance > 0
    mean, free = head_gradients(stage, fixed_mean=False)
    assert mean > 0 and free == pytest.approx(variance, rel=1e-4)


def test_the_hybrid_objective_holds_the_gradient_back() -> None:
    """Its gradient in the prediction's half of the head is that of the simple loss."""
    stage, (x_0, labels, eps) = stage_of(), batch()
    found = []
    for objective in ("hybrid", "simple"):
        stage.objective = objective
        stage.zero_grad()
        torch.manual_seed(3)
        stage.loss(x_0, labels, eps, None).backward()
        found.append(next(p.grad for n, p in stage.network.named_parameters() if n == "net.head.2.weight").clone())
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-8)
    assert float(found[1][1].abs().max()) == 0 < float(found[0][1].abs().max())


# Time.


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_time_and_noise_level_are_inverse(schedule: str) -> None:
    network = stage_of(schedule).network
    t = torch.arange(NUM_TIMESTEPS, dtype=torch.float64)
    torch.testing.assert_close(network.time_of(network.sigmas), t, rtol=0, atol=1e-9)
    torch.testing.assert_close(network.sigmas, sigma_from_alpha_bar(alpha_bars(schedule, NUM_TIMESTEPS)))
    middle = (network.sigmas[1:] * network.sigmas[:-1]).sqrt()
    torch.testing.assert_close(network.time_of(middle), t[:-1] + 0.5, rtol=0, atol=1e-6)
    outside = network.time_of(torch.tensor([1e-6, 1e9]))
    assert outside.tolist() == [0.0, NUM_TIMESTEPS - 1.0]
    inside = torch.linspace(*network.sigmas[[0, -1]].log().tolist(), 500, dtype=torch.float64)[1:-1]
    assert bool((network.time_of(inside.exp()).diff() > 0).all())
    torch.testing.assert_close(network.time_of(network.sigmas.float()), t, rtol=0, atol=1e-3)


def test_timesteps_are_stratified_and_in_random_order() -> None:
    torch.manual_seed(0)
    for n in (1, 7, 8, 1000, 4000):
        t = draw_timesteps(n, torch.device("cpu"))
        assert t.dtype == torch.int64 and t.shape == (n,) and 0 <= int(t.min()) <= int(t.max()) < NUM_TIMESTEPS
        expected = torch.arange(n) * NUM_TIMESTEPS // n
        assert bool(((t.sort().values - expected) <= NUM_TIMESTEPS // n + 1).all())
        assert bool((t.sort().values >= expected).all())
    assert not torch.equal(t, t.sort().values)
    assert float(t.float().mean()) == pytest.approx(499.5, abs=1)


# The denoiser.

SOURCE = IndependentPixels(F.one_hot(torch.tensor([10, 90, 200, 255]), 256).double().mean(0))


class Oracle(ChainNetwork):
    """Says what a network would whose estimate is the best."""

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor, augmented: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, None]:
        return from_x_0(SOURCE.denoise(x, sigma), x, sigma, self.prediction), None


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_three_predictions_are_one_denoiser(prediction: str) -> None:
    model = tiny_model("ddpm", prediction=prediction, objective="simple")
    options = {"width": 8, "blocks": 1, "patch_size": 1}
    model.denoiser = Oracle(SHAPE, 3, schedule="cosine", prediction=prediction, learned=False, **options)
    sigma = torch.tensor([0.005, 0.1, 1.0, 30.0], dtype=torch.float64)
    x = sigma[:, None, None, None] * torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    found = model.denoise(x, sigma, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(found, SOURCE.denoise(x, sigma), rtol=0, atol=1e-8)
    samples = model.sample(20, generator=torch.Generator().manual_seed(0), num_steps=100, sampler="dpmpp_2m")
    assert set(samples.images.unique().tolist()) <= {10, 90, 200, 255}


# Variances.


def test_learned_variances_lie_between_the_two() -> None:
    network = stage_of().network
    t, sigmas = torch.tensor([1, 10, 500, 999]), network.sigmas
    tilde, beta = posterior_variance(sigmas[t - 1], sigmas[t]), beta_variance(sigmas[t - 1], sigmas[t])
    for share, expected in ((0.0, tilde), (1.0, beta), (0.5, (tilde * beta).sqrt())):
        found = network.log_variance(t, torch.full((4, 1, 1, 1), share).double()).exp().flatten()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(network.log_variance(t, None).exp().flatten(), tilde, rtol=1e-6, atol=0)
    torch.testing.assert_close(network.log_tilde, log_variances(sigmas)[0])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_bound_and_the_sampler_know_whether_variances_are_learned(objective: str) -> None:
    model = randomised(tiny_model("ddpm", objective=objective))
    learned = objective in LEARNED
    assert model.denoiser.learned == learned
    assert ("variance" in model.sampler_options("ancestral")) == learned and not model.sampler_options("ddim")
    images = tiny_data(2)[0]
    found = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(0), kind="elbo_discrete")
    assert found.settings["variance"] == ("learned" if learned else "posterior")
    assert found.settings["decoder"] == "discretised Gaussian" and found.settings["T"] == NUM_TIMESTEPS


def test_levels_of_the_sampler_are_those_of_the_chain() -> None:
    model = tiny_model("ddpm")
    assert torch.equal(model.noise_levels(NUM_TIMESTEPS)[:-1].flip(0), model.denoiser.sigmas)
    assert float(model.noise_levels(3)[0]) == float(model.denoiser.sigmas[-1])
