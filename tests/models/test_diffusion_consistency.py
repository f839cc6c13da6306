"""Consistency: neighbouring noise levels, the loss of a perfect jump and by hand, and the two stages' budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from models.base import to_float
from models.diffusion.consistency import (
    LEAST_DISTANCE,
    MIDDLE_SIGMA,
    P_MEAN,
    P_STD,
    TuningStage,
    draw_log_sigma,
    neighbour,
)
from models.diffusion.edm import SIGMA_MAX, Denoiser
from models.diffusion.samplers import karras_sigmas
from tests.models.tiny import SHAPE, random_model, tiny_data, tiny_model

SIGMAS = torch.logspace(-3, 1.9, 200, dtype=torch.float64)
OPTIONS = {"num_classes": 3, "label_dropout": 0.1, "batch_size": 8, "lr": 1e-3, "ema_half_life": 100.0}


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Neighbours.


def test_neighbours_against_the_formula() -> None:
    """Geng et al. 2024, Eq. 11, q = 2, k = 8, b = 1, with the exponent from 1 to 8 over the budget."""
    for progress, exponent in ((0.0, 1.0), (0.5, 4.5), (1.0, 8.0)):
        s = SIGMAS.numpy()
        expected = np.maximum(s * (1 - (1 + 8 / (1 + np.exp(s))) / 2**exponent), 0)
        np.testing.assert_allclose(neighbour(SIGMAS, progress), expected, rtol=1e-9, atol=1e-15)


def test_neighbours_start_far_apart_and_come_together() -> None:
    walk = torch.stack([neighbour(SIGMAS, p) for p in np.linspace(0, 1, 50)])
    assert bool((walk >= 0).all()) and bool((walk < SIGMAS).all())
    assert bool((walk.diff(dim=0) >= 0).all()), "never further apart"
    assert bool((walk.diff(dim=1) >= 0).all()), "lower levels have lower neighbours"
    assert bool((walk[0][SIGMAS < 1.9] == 0).all()), "at first the target is the picture itself"
    assert bool((walk[-1] > 0.96 * SIGMAS).all())
    assert float(neighbour(torch.tensor([1e4]), 0.0)) == pytest.approx(5e3, rel=1e-6)


def test_noise_levels_of_tuning() -> None:
    torch.manual_seed(0)
    found = draw_log_sigma(4096, torch.device("cpu"))
    assert found.shape == (4096,) and float(found.max()) <= math.log(SIGMA_MAX) + 1e-6
    standard, most = (found - P_MEAN) / P_STD, (4.3 - P_MEAN) / P_STD
    assert stats.kstest(standard[standard < most], stats.truncnorm(-9, most).cdf).statistic < 5e-3
    assert draw_log_sigma(1, torch.device("cpu")).shape == (1,)


# The loss.


class Jump(Denoiser):
    """For a picture that is always the same: the perfect jump, and one that errs in proportion to sigma."""

    error = 0.0

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor, augmented: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.full_like(x, 0.25) + self.error * sigma[:, None, None, None] + 0 * self.label.weight.sum()


def jumping(error: float = 0.0, progress: float = 0.0) -> float:
    """Tuning loss of a jump to 0.25 on pictures that are 0.25."""
    network = Jump(SHAPE, 3, width=8, blocks=1, patch_size=1)
    network.error = error
    stage = TuningStage(network, **OPTIONS)
    stage.progress = progress
    torch.manual_seed(0)
    labels = torch.zeros(64, dtype=torch.int64)
    return float(stage.loss(torch.full((64, *SHAPE), 0.25), labels, normal(1, 64, *SHAPE), None).detach())


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.7, 1.0])
def test_a_perfect_jump_loses_nothing(progress: float) -> None:
    assert jumping(0.0, progress) == pytest.approx(0, abs=1e-5)
    assert jumping(0.1, progress) > 0.1
    assert jumping(0.2, progress) > 1.5 * jumping(0.1, progress)


def test_an_error_that_grows_with_sigma_costs_the_same_at_any_distance() -> None:
    """|f(sigma) - f(r)| / (sigma - r) is its slope times the root of the 64 pixels, but for the rounded corner."""
    assert jumping(10.0, 0.0) == pytest.approx(80, rel=0.05)
    assert jumping(10.0, 1.0) == pytest.approx(80, rel=0.1)


@pytest.mark.parametrize("progress", [0.0, 0.6])
def test_the_loss_by_hand(progress: float) -> None:
    stage, (images, labels) = random_model("consistency").stages()[1], tiny_data(8)
    x_0, eps = to_float(images), normal(0, 8, *SHAPE)
    stage.progress = progress
    torch.manual_seed(3)
    loss = stage.loss(x_0, labels, eps, None)
    torch.manual_seed(3)
    sigma, total, corner = draw_log_sigma(8, x_0.device).exp(), 0.0, LEAST_DISTANCE * 8
    lower = neighbour(sigma, progress)
    assert bool((lower > 0).any()) and (progress > 0 or bool((lower == 0).any()))
    with torch.no_grad():
        for i in range(8):
            row = slice(i, i + 1)
            found = stage.network(x_0[row] + sigma[i] * eps[row], sigma[row], labels[row])
            target = x_0[row]
            if lower[i] > 0:
                target = stage.network(x_0[row] + lower[i] * eps[row], lower[row], labels[row])
            distance = math.sqrt(float((found - target).square().sum()) + corner**2) - corner
            total += distance / float(sigma[i] - lower[i]) / 8
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)


def test_the_target_is_not_trained() -> None:
    """The network at the lower level gets no gradient: it is a target."""
    stage, (images, labels) = random_model("consistency").stages()[1], tiny_data(8)
    x_0, eps = to_float(images), normal(0, 8, *SHAPE)
    stage.progress, calls = 0.9, []
    handle = stage.network.register_forward_hook(lambda module, args, out: calls.append(out.requires_grad))
    torch.manual_seed(3)
    stage.loss(x_0, labels, eps, None).backward()
    handle.remove()
    assert calls == [False, True]


# The model.


def test_teacher_and_tuning_share_the_budget() -> None:
    for share in (0.1, 0.6, 0.9):
        teacher, tuning = tiny_model("consistency", teacher_share=share).stages()
        assert (teacher.name, tuning.name) == ("teacher", "tuning")
        assert teacher.share == pytest.approx(share) and teacher.share + tuning.share == pytest.approx(1)
        assert teacher.network is tuning.network
    teacher, tuning = tiny_model("consistency", lr=1e-2, tuning_lr=1e-5).stages()
    assert (teacher.lr, tuning.lr) == (1e-2, 1e-5)


def test_levels_of_one_two_and_more_jumps() -> None:
    model = tiny_model("consistency")
    assert model.noise_levels(1).tolist() == pytest.approx([SIGMA_MAX, 0])
    assert model.noise_levels(2).tolist() == pytest.approx([SIGMA_MAX, MIDDLE_SIGMA, 0])
    assert torch.equal(model.noise_levels(5), karras_sigmas(5, 0.1))
    assert torch.equal(model.noise_levels(50), karras_sigmas(50, 0.02))
    samples = random_model("consistency").sample(2, generator=torch.Generator().manual_seed(0), num_steps=2)
    assert samples.nfe == 2
