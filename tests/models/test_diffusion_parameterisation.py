"""Networks that predict eps, x_0 or v are one denoiser: round trips, hand calculation and equal bounds."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from models.base import image_generators
from models.diffusion.bound import variational_bound
from models.diffusion.oracles import IndependentPixels
from models.diffusion.parameterisation import (
    Prediction,
    alpha_bar_from_sigma,
    denoiser_from,
    from_x_0,
    network_from,
    sigma_from_alpha_bar,
    to_x_0,
)

PREDICTIONS = get_args(Prediction)
SIGMAS = torch.tensor([0.002, 0.05, 0.7, 1.0, 9.0, 80.0], dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int) -> torch.Tensor:
    return torch.randn(len(SIGMAS), 2, 3, 3, generator=generator(seed), dtype=torch.float64)


def test_noise_level_and_signal_product_are_inverse() -> None:
    alpha_bar = torch.tensor([1e-4, 0.2, 0.5, 0.999], dtype=torch.float64)
    torch.testing.assert_close(alpha_bar_from_sigma(sigma_from_alpha_bar(alpha_bar)), alpha_bar, rtol=1e-12, atol=0)
    assert float(sigma_from_alpha_bar(torch.tensor(0.5))) == 1


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_true_answer_of_each_network_gives_the_true_image(prediction: Prediction) -> None:
    """x_t, eps and v are made by their definitions, with alpha_bar and not with sigma."""
    x_0, eps = normal(0), normal(1)
    alpha_bar = (1 / (1 + SIGMAS**2))[:, None, None, None]
    x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
    answers = {"eps": eps, "x_0": x_0, "v": alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0}

    def network(seen: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        torch.testing.assert_close(seen, x_t, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(log_snr, (alpha_bar / (1 - alpha_bar)).log().flatten(), rtol=1e-9, atol=1e-9)
        return answers[prediction]

    x_sigma = x_0 + SIGMAS[:, None, None, None] * eps
    found = denoiser_from(network, prediction)(x_sigma, SIGMAS)
    torch.testing.assert_close(found, x_0, rtol=0, atol=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_round_trips(prediction: Prediction) -> None:
    output, x = normal(2), normal(3)
    x_0 = to_x_0(output, x, SIGMAS, prediction)
    torch.testing.assert_close(from_x_0(x_0, x, SIGMAS, prediction), output, rtol=1e-9, atol=1e-9)
    source = IndependentPixels(torch.full((256,), 1 / 256, dtype=torch.float64))
    denoise = denoiser_from(network_from(source.denoise, prediction), prediction)
    torch.testing.assert_close(denoise(x, SIGMAS), source.denoise(x, SIGMAS), rtol=0, atol=1e-9)


def test_predictions_differ() -> None:
    """A round trip alone would hold if the name were ignored."""
    output, x = normal(2), normal(3)
    found = [to_x_0(output, x, SIGMAS, p) for p in PREDICTIONS]
    assert all(float((a - b).abs().max()) > 0.1 for a, b in [found[:2], found[1:], found[::2]])


def test_all_parameterisations_have_the_same_bound() -> None:
    """Float32 networks: what they say is rounded differently, the bound hardly moves."""
    pmf = torch.zeros(256, dtype=torch.float64)
    pmf[[10, 90, 200]] = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    source = IndependentPixels(pmf)
    images = source.sample(20, (1, 2, 2), generator(0))

    def bound(prediction: Prediction | None) -> torch.Tensor:
        def network(x_t: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
            return network_from(source.denoise, prediction)(x_t, log_snr).float()

        denoise = source.denoise if prediction is None else denoiser_from(network, prediction)
        generators = image_generators(20, generator(1))
        return variational_bound(denoise, images, generators, num_levels=32, prior_variance=0.5).log_likelihood

    reference = bound(None)
    for prediction in PREDICTIONS:
        difference = (bound(prediction) - reference).abs().max() / (4 * math.log(2))
        assert float(difference) < 1e-2, prediction


def test_another_prediction_is_refused() -> None:
    for function in (denoiser_from, network_from):
        with pytest.raises(ValueError, match="prediction must be one of eps, x_0, v, not 'score'"):
            function(lambda x, sigma: x, "score")
