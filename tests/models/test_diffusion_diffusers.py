"""Samplers against the schedulers of diffusers: the same network, the same noise, the same picture.

diffusers walks x_t where the schedule preserves variance and x_sigma elsewhere; here its states are put on the scale
of x_sigma. Its products of 1 - beta are float32, of which the first noise level keeps three digits; they are set to
float64 ones. Stochastic Heun (``churn``) has one counterpart, the deprecated
KarrasVeScheduler; EulerDiscreteScheduler's own s_churn is Euler's method and no reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler

from models.diffusion.ddpm import DDPM
from models.diffusion.guidance import static_threshold
from models.diffusion.model import Diffusion
from models.diffusion.network import NoiseConditionalUNet
from models.diffusion.parameterisation import denoiser_from
from models.diffusion.process import Schedule, alpha_bars, cosine_betas, linear_betas, log_snr
from models.diffusion.samplers import (
    S_CHURN,
    S_MAX,
    S_MIN,
    S_NOISE,
    Denoise,
    Noise,
    Sampler,
    ancestral,
    beta_variance,
    churn,
    ddim,
    dpmpp_2m,
    euler,
    heun,
    karras_sigmas,
    multistep_consistency,
    spread,
)
from tests.models.tiny import SHAPE, randomised, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

N = 3
LABELS = torch.tensor([0, 1, 3])
NAMES = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}
BETAS: dict[Schedule, Callable[[int], torch.Tensor]] = {"linear": linear_betas, "cosine": cosine_betas}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int) -> torch.Tensor:
    return torch.randn(N, *SHAPE, generator=generator(seed), dtype=torch.float64)


def assert_same(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Relative to the largest pixel."""
    assert found.shape == expected.shape and float(expected.std()) > 0.05
    assert float((found - expected).abs().max()) < tolerance * float(expected.abs().max())


# EDM: x_sigma on both sides, float64 networks.


@pytest.fixture(scope="module")
def edm() -> Diffusion:
    """Random weights of float64."""
    return randomised(tiny_model("diffusion")).double()


def view(model: Diffusion) -> Denoise:
    return lambda x, sigma: model.denoise(x, sigma, LABELS)


def raw(model: Diffusion, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
    """The U-Net without its preconditioning, of which the scheduler has its own."""
    return NoiseConditionalUNet.forward(model.denoiser, x, c_noise.double().expand(N), LABELS)


@torch.no_grad()
def walked_edm(scheduler: EDMEulerScheduler | EDMDPMSolverMultistepScheduler, model: Diffusion, steps: int) -> tuple:
    """The scheduler's noise levels and sample."""
    scheduler.set_timesteps(steps)
    x = normal(0) * float(scheduler.sigmas[0])
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        x = scheduler.step(raw(model, scaled, 1000 * t), t, x).prev_sample
    return scheduler.sigmas.double(), x


@pytest.mark.parametrize(
    ("sampler", "kind"), [(euler, EDMEulerScheduler), (dpmpp_2m, EDMDPMSolverMultistepScheduler)]
)
@pytest.mark.parametrize("steps", [2, 10, 25])
@torch.no_grad()
def test_edm_schedulers(edm: Diffusion, sampler: Sampler, kind: type, steps: int) -> None:
    """Levels, preconditioning, conditioning on noise and the steps, all of them the scheduler's."""
    sigmas, expected = walked_edm(kind(sigma_data=float(edm.denoiser.sigma_data)), edm, steps)
    torch.testing.assert_close(sigmas, karras_sigmas(steps), rtol=1e-5, atol=0)
    assert_same(sampler(view(edm), normal(0) * float(sigmas[0]), sigmas), expected, 1e-5)


@pytest.mark.parametrize("inside", [True, False], ids=["noise at every step", "noise within the limits"])
@torch.no_grad()
def test_churn_is_karras_ve(edm: Diffusion, inside: bool) -> None:
    """Its network predicts -eps; it draws at every step, so noise is fixed by the step."""
    sigmas = torch.tensor([40.0, 12, 3, 0.8, 0.2, 0.06, 0]).double() if inside else karras_sigmas(12)
    steps, x = len(sigmas) - 1, normal(0) * float(sigmas[0])
    scheduler = KarrasVeScheduler(s_noise=S_NOISE, s_churn=S_CHURN, s_min=S_MIN, s_max=S_MAX)
    scheduler.set_timesteps(steps)
    denoise, expected = view(edm), x

    def minus_eps(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return (denoise(x, x.new_full((N,), sigma)) - x) / sigma

    for i in range(steps):
        now, after = float(sigmas[i]), float(sigmas[i + 1])
        hat, raised = scheduler.add_noise_to_input(expected, now, generator(i))
        step = scheduler.step(minus_eps(hat, raised), raised, after, hat)
        expected = step.prev_sample
        if after > 0:
            slope = minus_eps(expected, after)
            expected = scheduler.step_correct(slope, raised, after, hat, expected, step.derivative).prev_sample
    churned = [i for i in range(steps) if S_MIN <= float(sigmas[i]) <= S_MAX]
    assert (len(churned) == steps) == inside
    noise = iter([torch.randn(N, *SHAPE, generator=generator(i)) for i in churned])
    assert_same(churn(denoise, x, sigmas, noise=lambda: next(noise)), expected, 1e-6)  # float32 noise


@torch.no_grad()
def test_multistep_consistency(edm: Diffusion) -> None:
    """diffusers stops at sigma_min = 0.002 and not at 0: its noise is sqrt(sigma^2 - sigma_min^2)."""
    sigma_data = float(edm.denoiser.sigma_data)
    scheduler = CMStochasticIterativeScheduler(sigma_data=sigma_data, clip_denoised=False)
    scheduler.set_timesteps(timesteps=[22, 12, 0])  # places in its list of 40 levels, the least noise first
    sigmas = torch.cat([scheduler.sigmas[:-1].double(), torch.zeros(1).double()])
    assert float(sigmas[0]) == 80 and float(sigmas[-2]) > 0.3
    x, source, denoise = normal(0) * 80, generator(1), view(edm)
    expected = x
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas.double(), strict=False):
        scheduler.scale_model_input(expected, t)
        skip, out = scheduler.get_scalings_for_boundary_condition(sigma)
        output = (denoise(expected, sigma.expand(N)) - skip * expected) / out
        expected = scheduler.step(output, t, expected, generator=source).prev_sample
    again = generator(1)
    found = multistep_consistency(
        denoise, x, sigmas, noise=lambda: torch.randn(N, *SHAPE, generator=again, dtype=torch.float64)
    )
    assert_same(found, expected)


# The chain: schedulers that start from betas.


def chain_model(schedule: Schedule, prediction: str, objective: str = "simple") -> DDPM:
    return randomised(tiny_model("ddpm", schedule=schedule, prediction=prediction, objective=objective))


def prediction_of(model: DDPM, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The U-Net as diffusers calls one: x_t and the time, the variances' channels last."""
    return NoiseConditionalUNet.forward(model.denoiser, x_t.float(), t.float().expand(N), LABELS).double()


def chain_view(model: DDPM) -> Denoise:
    return lambda x, sigma: model.denoise(x, sigma, LABELS)


def made(kind: type, schedule: Schedule, prediction: str, **options) -> Any:
    """A scheduler of this kind, with float64 products."""
    betas = BETAS[schedule](1000).numpy()
    scheduler = kind(trained_betas=betas, prediction_type=NAMES[prediction], **options)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), alpha_bars(schedule, 1000), rtol=1e-4, atol=1e-9)
    scheduler.alphas_cumprod = alpha_bars(schedule, 1000)
    return scheduler


CHAINS = [("linear", "eps"), ("linear", "v"), ("cosine", "v"), ("cosine", "x_0")]


@pytest.mark.parametrize(
    ("kind", "schedule", "prediction"),
    [(EulerDiscreteScheduler, *chain) for chain in CHAINS[:3]] + [(HeunDiscreteScheduler, *chain) for chain in CHAINS],
)
@torch.no_grad()
def test_ode_schedulers(kind: type, schedule: Schedule, prediction: str) -> None:
    """Noise levels of Heun's scheduler come twice, but for the first and the last."""
    model, scheduler = chain_model(schedule, prediction), made(kind, schedule, prediction)
    sampler, every = (heun, 2) if kind is HeunDiscreteScheduler else (euler, 1)
    scheduler.set_timesteps(timesteps=[int(t) for t in torch.linspace(980, 0, 15)])
    sigmas = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1:-1:every], scheduler.sigmas[-1:]]).double()
    x = normal(0) * float(sigmas[0])
    expected = x
    for t in scheduler.timesteps:
        x_t = scheduler.scale_model_input(expected, t)
        expected = scheduler.step(prediction_of(model, x_t, t), t, expected).prev_sample.double()
    assert_same(sampler(chain_view(model), x, sigmas), expected)


Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def walked_chain(scheduler: Any, predict: Predict, **options: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Levels and start on the scale of x_sigma, and the scheduler's sample from the same start."""
    alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps]
    sigmas = torch.cat([((1 - alpha_bar) / alpha_bar).sqrt(), torch.zeros(1).double()])
    x_t, source = normal(0), generator(1)
    start = x_t * (1 + sigmas[0] ** 2).sqrt()
    for t in scheduler.timesteps:
        x_t = scheduler.step(predict(x_t, t), t, x_t, generator=source, **options).prev_sample
    return sigmas, start, x_t


def same_noise() -> Noise:
    """The noise that ``walked_chain`` draws."""
    source = generator(1)
    return lambda: torch.randn(N, *SHAPE, generator=source, dtype=torch.float64)


@pytest.mark.parametrize(("schedule", "prediction"), CHAINS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@torch.no_grad()
def test_ddim(schedule: Schedule, prediction: str, eta: float) -> None:
    model = chain_model(schedule, prediction)
    scheduler = made(DDIMScheduler, schedule, prediction, clip_sample=False, timestep_spacing="leading")
    scheduler.set_timesteps(20)
    sigmas, start, expected = walked_chain(scheduler, partial(prediction_of, model), eta=eta)
    assert_same(ddim(chain_view(model), start, sigmas, eta=eta, noise=same_noise()), expected)


VARIANCES: dict[str, dict[str, Any]] = {"fixed_small": {}, "fixed_large": {"variance": beta_variance}}


@pytest.mark.parametrize(("schedule", "prediction"), CHAINS)
@pytest.mark.parametrize("variance", VARIANCES)
@torch.no_grad()
def test_ancestral(schedule: Schedule, prediction: str, variance: str) -> None:
    model = chain_model(schedule, prediction)
    scheduler = made(
        DDPMScheduler, schedule, prediction, clip_sample=False, timestep_spacing="linspace", variance_type=variance
    )
    scheduler.set_timesteps(25)
    sigmas, start, expected = walked_chain(scheduler, partial(prediction_of, model))
    torch.testing.assert_close(sigmas, spread(model.denoiser.sigmas, 25), rtol=1e-9, atol=0)
    assert_same(ancestral(chain_view(model), start, sigmas, noise=same_noise(), **VARIANCES[variance]), expected)


@pytest.mark.parametrize("schedule", BETAS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_ancestral_over_the_whole_chain(schedule: Schedule, variance: str) -> None:
    """A thousand steps of a network that costs little, in float64."""
    def network(x_t: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        share = torch.sigmoid(-log_snr)[:, None, None, None]  # 1 - alpha_bar: eps of N(0, I), and something more
        return share.sqrt() * x_t + 0.2 * (share * (1 - share)).sqrt() * torch.tanh(x_t.roll(1, -1) - 0.3)

    scheduler = made(DDPMScheduler, schedule, "eps", clip_sample=False, variance_type=variance)
    levels = log_snr(scheduler.alphas_cumprod)
    scheduler.set_timesteps(1000)
    sigmas, start, expected = walked_chain(scheduler, lambda x_t, t: network(x_t, levels[t].expand(N)))
    found = ancestral(denoiser_from(network, "eps"), start, sigmas, noise=same_noise(), **VARIANCES[variance])
    assert_same(found, expected)


@torch.no_grad()
def test_ancestral_with_learned_variances_and_clipped_estimates() -> None:
    """"learned_range" of diffusers: the second half of the channels, in [-1, 1] between the two logarithms."""
    model = chain_model("cosine", "v", "hybrid")
    scheduler = made(
        DDPMScheduler, "cosine", "v", clip_sample=True, timestep_spacing="linspace", variance_type="learned_range"
    )
    scheduler.set_timesteps(40)
    sigmas, start, expected = walked_chain(scheduler, partial(prediction_of, model))
    denoise, options = chain_view(model), model.sampler_options("ancestral")

    def clipped(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return static_threshold(denoise(x, sigma))

    assert_same(ancestral(clipped, start, sigmas, noise=same_noise(), **options), expected)
    plain = ancestral(denoise, start, sigmas, noise=same_noise(), **options)
    fixed = ancestral(clipped, start, sigmas, noise=same_noise())
    for other in (plain, fixed):  # neither clipping nor learning is without effect
        assert float((other - expected).abs().max()) > 0.01


@torch.no_grad()
def test_dpm_solver_of_the_chain() -> None:
    """DPMSolverMultistepScheduler walks x_t; ln sigma is its -lambda, so the steps are the same."""
    model = chain_model("linear", "v")
    scheduler = made(
        DPMSolverMultistepScheduler, "linear", "v", algorithm_type="dpmsolver++", solver_type="midpoint",
        final_sigmas_type="zero", timestep_spacing="leading",
    )
    scheduler.set_timesteps(20)
    sigmas, x_t = scheduler.sigmas.double(), normal(0)
    start = x_t * math.hypot(1, float(sigmas[0]))
    for t in scheduler.timesteps:
        x_t = scheduler.step(prediction_of(model, x_t, t), t, x_t).prev_sample
    assert_same(dpmpp_2m(chain_view(model), start, sigmas), x_t)
