"""Flow matching: the straight line and its velocity, the law of times, and the denoiser it amounts to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from models.base import to_float
from models.diffusion.edm import SIGMA_MAX, SIGMA_MIN
from models.diffusion.flow_matching import (
    LOGIT_MEAN,
    LOGIT_STD,
    UNIFORM_SHARE,
    draw_times,
    interpolate,
    sigma_of,
    time_of,
    x_0_from_velocity,
)
from models.diffusion.network import NoiseConditionalUNet
from models.diffusion.oracles import IndependentPixels
from tests.models.tiny import SHAPE, random_model, tiny_data, tiny_model

PMF = torch.zeros(256, dtype=torch.float64)
PMF[[10, 90, 200, 255]] = torch.tensor([0.1, 0.4, 0.3, 0.2]).double()
SOURCE = IndependentPixels(PMF / PMF.sum())


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_time_and_noise_level_are_inverse() -> None:
    sigma = torch.logspace(-3, 2, 20, dtype=torch.float64)
    torch.testing.assert_close(sigma_of(time_of(sigma)), sigma, rtol=1e-12, atol=0)
    torch.testing.assert_close(time_of(sigma).logit(), sigma.log(), rtol=1e-9, atol=1e-12)
    assert float(time_of(torch.tensor(1.0))) == 0.5


def test_the_line_from_picture_to_noise() -> None:
    x_0, eps, t = normal(0, 5, *SHAPE), normal(1, 5, *SHAPE), torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0]).double()
    x_t = interpolate(x_0, eps, t)
    assert torch.equal(x_t[0], x_0[0]) and torch.equal(x_t[4], eps[4])
    step = 1e-6  # the velocity is the derivative
    found = (interpolate(x_0, eps, t + step) - x_t) / step
    torch.testing.assert_close(found, eps - x_0, rtol=0, atol=1e-8)
    sigma = sigma_of(t[:4])[:, None, None, None]
    torch.testing.assert_close(x_t[:4] / (1 - t[:4])[:, None, None, None], x_0[:4] + sigma * eps[:4])


def test_the_true_velocity_gives_the_picture() -> None:
    x_0, eps = normal(0, 4, *SHAPE), normal(1, 4, *SHAPE)
    sigma = torch.tensor([0.002, 0.5, 3.0, 80.0], dtype=torch.float64)
    x = x_0 + sigma[:, None, None, None] * eps
    torch.testing.assert_close(x_0_from_velocity(eps - x_0, x, sigma), x_0, rtol=0, atol=1e-10)
    assert float((x_0_from_velocity(x_0 - eps, x, sigma)[1:] - x_0[1:]).abs().mean()) > 0.1


class Oracle(NoiseConditionalUNet):
    """The velocity E[eps - x_0 | x_t]."""

    def forward(
        self, x: torch.Tensor, c_noise: torch.Tensor, labels: torch.Tensor, augmented: torch.Tensor | None = None
    ) -> torch.Tensor:
        t = (c_noise / 1000)[:, None, None, None]
        x_0 = SOURCE.denoise(x / (1 - t), sigma_of(c_noise / 1000))
        return (x - x_0) / t


def test_the_best_velocity_is_the_best_denoiser() -> None:
    model = tiny_model("flow_matching")
    model.denoiser = Oracle(SHAPE, 3, width=8, blocks=1, patch_size=1)
    sigma, labels = torch.tensor([0.005, 0.1, 1.0, 60.0], dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    x = sigma[:, None, None, None] * normal(0, 4, *SHAPE)
    torch.testing.assert_close(model.denoise(x, sigma, labels), SOURCE.denoise(x, sigma), rtol=0, atol=1e-9)
    found = model.sample(20, generator=torch.Generator().manual_seed(0), num_steps=100, sampler="heun").images
    shares = torch.bincount(found.flatten().long(), minlength=256).double() / found.numel()
    assert float((shares - SOURCE.pmf).abs().max()) < 4 * math.sqrt(0.25 / found.numel())


def test_levels_are_equally_spaced_in_time() -> None:
    for num_steps in (1, 2, 10, 1000):
        sigmas = tiny_model("flow_matching").noise_levels(num_steps)
        assert sigmas.dtype == torch.float64 and sigmas.shape == (num_steps + 1,)
        assert float(sigmas[0]) == pytest.approx(SIGMA_MAX) and float(sigmas[-1]) == 0
        expected = np.linspace(SIGMA_MAX / (1 + SIGMA_MAX), 0, num_steps + 1)
        np.testing.assert_allclose(time_of(sigmas), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("n", [1, 7, 8, 32, 4096])
def test_times_follow_both_laws(n: int) -> None:
    torch.manual_seed(0)
    t, uniform = draw_times(n, torch.device("cpu")), int(n * UNIFORM_SHARE)
    assert t.shape == (n,) and t.dtype == torch.float32 and bool(((t > 0) & (t < 1)).all())
    logit = t.double().logit()
    rest = (logit[n - uniform :] - math.log(SIGMA_MIN)) / math.log(SIGMA_MAX / SIGMA_MIN)
    assert bool(((rest > -1e-5) & (rest < 1 + 1e-5)).all())
    if n > 1000:
        assert stats.kstest((logit[: n - uniform] - LOGIT_MEAN) / LOGIT_STD, "norm").statistic < 2e-3
        assert stats.kstest(rest, "uniform").statistic < 5e-3
        assert abs(float(np.corrcoef(logit[1 : n - uniform], logit[: n - uniform - 1])[0, 1])) < 0.1


@torch.no_grad()
def test_the_loss_by_hand() -> None:
    stage, (images, labels) = random_model("flow_matching").stages()[0], tiny_data(8)
    x_0, eps = to_float(images), normal(0, 8, *SHAPE).float()
    torch.manual_seed(3)
    found = stage.loss(x_0, labels, eps, None)
    torch.manual_seed(3)
    t, total = draw_times(8, x_0.device), 0.0
    for i in range(8):
        x_t = (1 - t[i]) * x_0[i] + t[i] * eps[i]
        velocity = stage.network(x_t[None], 1000 * t[i : i + 1], labels[i : i + 1])[0]
        total += float((velocity - (eps[i] - x_0[i])).square().mean()) / 8
    assert float(found) == pytest.approx(total, rel=1e-4)
