"""Fourier features: closed forms, what noise leaves of a wave, and that fine grey levels become visible."""

from __future__ import annotations

import math

import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss

from models.diffusion.edm import Denoiser, edm_losses
from models.diffusion.fourier import FREQUENCIES, fourier_features
from tests.models.tiny import SHAPE

F = len(FREQUENCIES)


def test_without_noise_they_are_cosines_and_sines() -> None:
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 2 - 1
    found = fourier_features(x, torch.zeros(2, dtype=torch.float64))
    assert found.shape == (2, 2 * F * 3, 4, 4)
    for i, omega in enumerate(FREQUENCIES):
        torch.testing.assert_close(found[:, 3 * i : 3 * i + 3], (omega * x).cos())
        torch.testing.assert_close(found[:, 3 * (F + i) : 3 * (F + i) + 3], (omega * x).sin())


def test_the_finest_tells_neighbouring_grey_levels_apart() -> None:
    levels = (torch.arange(256, dtype=torch.float64) / 127.5 - 1)[:, None, None, None]
    waves = fourier_features(levels, torch.zeros(256, dtype=torch.float64)).flatten(1)
    assert float((waves[1:] - waves[:-1]).norm(dim=1).min()) > 1.9  # beside 2 / 255 of the pixels themselves


@pytest.mark.parametrize("sigma", [0.001, 0.01, 0.05])
def test_they_fade_as_the_mean_wave_does(sigma: float) -> None:
    """E[cos(omega (x_0 + sigma eps))] = exp(-(omega sigma)^2 / 2) cos(omega x_0), by Gauss-Hermite quadrature."""
    nodes, weights = map(torch.from_numpy, hermegauss(60))
    x_0 = 0.3
    noisy = (x_0 + sigma * nodes)[:, None, None, None]
    mean = (weights[:, None] / math.sqrt(2 * math.pi) * torch.stack([
        torch.cat([(omega * noisy).cos(), (omega * noisy).sin()], dim=1).flatten(1) for omega in FREQUENCIES
    ], dim=1).flatten(1)).sum(0).reshape(F, 2)  # fmt: skip
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    damped = fourier_features(x_0 * one, sigma * one.flatten()).reshape(2, F).T
    known = torch.tensor(FREQUENCIES, dtype=torch.float64) * sigma < 8  # beyond, 60 nodes do not resolve the wave
    torch.testing.assert_close(damped[known], mean[known], rtol=1e-6, atol=1e-9)


def test_at_high_noise_nothing_is_left() -> None:
    assert float(fourier_features(torch.rand(1, 1, 2, 2), torch.tensor([1.0])).abs().max()) < 1e-30


def test_an_untrained_denoiser_still_has_a_loss_of_one_and_more_inputs() -> None:
    torch.manual_seed(0)
    plain, seeing = (Denoiser(SHAPE, 3, width=8, blocks=1, patch_size=2, fourier=f) for f in (False, True))
    more = sum(p.numel() for p in seeing.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == 2 * F * SHAPE[0] * 2**2 * 8 * 9
    x_0 = 0.5 * torch.randn(500, *SHAPE)
    loss = edm_losses(seeing, x_0, torch.zeros(500, dtype=torch.int64), torch.full((500,), -4.0), torch.randn_like(x_0))
    assert float(loss.mean().detach()) == pytest.approx(1, abs=0.05)


def test_grey_levels_far_below_the_images_scale_are_learned_sooner() -> None:
    """Pixels are one of two neighbouring levels; at a third of a level of noise they can be told apart."""
    errors = []
    for fourier in (False, True):
        torch.manual_seed(0)
        network = Denoiser((1, 8, 8), 1, width=8, blocks=1, patch_size=1, fourier=fourier)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        labels = torch.zeros(32, dtype=torch.int64)
        losses = []
        for _ in range(150):
            x_0 = (torch.randint(0, 2, (32, 1, 8, 8)) + 100) / 127.5 - 1
            loss = edm_losses(network, x_0, labels, torch.full((32,), math.log(0.0026)), torch.randn_like(x_0)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        errors.append(sum(losses[-30:]) / 30)
    assert errors[1] < 0.8 * errors[0]
