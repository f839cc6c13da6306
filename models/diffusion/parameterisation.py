"""One denoiser for every parameterisation: networks that predict eps, x_0 or v.

Variance-preserving x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps is sqrt(alpha_bar) times
x_sigma = x_0 + sigma eps with sigma^2 = (1 - alpha_bar) / alpha_bar, so that each network is a denoiser
D(x_sigma, sigma). Ho et al. 2020 (arXiv:2006.11239), Eq. 4; Salimans and Ho 2022 (arXiv:2202.00512), Sec. 4,
v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from models.diffusion.edm import per_image
from models.diffusion.samplers import Denoise

Prediction = Literal["eps", "x_0", "v"]
Network = Callable[[Tensor, Tensor], Tensor]
"""Prediction (B, C, H, W) from x_t (B, C, H, W) and log_snr = ln(alpha_bar / (1 - alpha_bar)), (B,)."""


def sigma_from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """Noise level of x_sigma at a cumulative signal product in (0, 1), same shape and dtype."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_from_sigma(sigma: Tensor) -> Tensor:
    """Inverse of ``sigma_from_alpha_bar``."""
    return 1 / (1 + sigma.square())


def signal_and_noise(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar), each (B, 1, 1, 1), without the cancellation in 1 - alpha_bar."""
    signal = per_image(alpha_bar_from_sigma(sigma.double()).sqrt())
    return signal, per_image(sigma.double()) * signal


def check_prediction(prediction: str) -> None:
    """Raise ``ValueError`` unless the name is one of the three."""
    if prediction not in get_args(Prediction):
        raise ValueError(f"prediction must be one of {', '.join(get_args(Prediction))}, not {prediction!r}")


def to_x_0(output: Tensor, x: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The estimate of x_0 (B, C, H, W) in a network's output, given x = x_sigma and sigma (B,); float64.

    eps: x_sigma - sigma eps. v: sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v = alpha_bar x_sigma - ....
    """
    check_prediction(prediction)
    signal, noise = signal_and_noise(sigma)
    if prediction == "eps":
        return x.double() - per_image(sigma.double()) * output.double()
    if prediction == "v":
        return signal.square() * x.double() - noise * output.double()
    return output.double()


def from_x_0(x_0: Tensor, x: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """Inverse of ``to_x_0`` in its first argument: what the network says whose estimate is x_0; float64."""
    check_prediction(prediction)
    signal, noise = signal_and_noise(sigma)
    if prediction == "eps":
        return (x.double() - x_0.double()) / per_image(sigma.double())
    if prediction == "v":
        return (signal.square() * x.double() - x_0.double()) / noise
    return x_0.double()


def denoiser_from(network: Network, prediction: Prediction) -> Denoise:
    """The denoiser D(x_sigma, sigma) that a variance-preserving network amounts to.

    Args:
        network: Prediction from x_t, in the dtype of x_sigma, and log_snr = -2 ln(sigma).
        prediction: What the network predicts; another name raises ``ValueError``.
    """
    check_prediction(prediction)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        signal, _ = signal_and_noise(sigma)
        output = network((signal * x).to(x.dtype), -2 * sigma.log())
        return to_x_0(output, x, sigma, prediction).to(torch.promote_types(x.dtype, output.dtype))

    return denoise


def network_from(denoise: Denoise, prediction: Prediction) -> Network:
    """The variance-preserving network that a denoiser amounts to; inverse of ``denoiser_from``."""
    check_prediction(prediction)

    def network(x_t: Tensor, log_snr: Tensor) -> Tensor:
        sigma = (-log_snr / 2).exp()
        x = (x_t / signal_and_noise(sigma)[0]).to(x_t.dtype)
        output = denoise(x, sigma)
        return from_x_0(output, x, sigma, prediction).to(torch.promote_types(x.dtype, output.dtype))

    return network
