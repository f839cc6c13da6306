"""EDM: preconditioned denoiser and training loss.

Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
(arXiv:2206.00364). x_sigma = x_0 + sigma * eps; the denoiser D(x_sigma, sigma) estimates x_0.
Deviations: an eighth of the training noise levels is drawn uniformly (``draw_log_sigma``), and sigma_data is
measured, about 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from models.diffusion.fourier import FREQUENCIES, fourier_features
from models.diffusion.network import NoiseConditionalUNet

P_MEAN, P_STD = -1.2, 1.2  # Table 1: ln(sigma) ~ N(P_mean, P_std^2) during training
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # Table 1
UNIFORM_SHARE = 0.125


def per_image(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), to multiply images with."""
    return values[:, None, None, None]


def c_skip(sigma: Tensor, sigma_data: float | Tensor) -> Tensor:
    """Weight of the noisy image in D; Table 1."""
    return sigma_data**2 / (sigma**2 + sigma_data**2)


def c_out(sigma: Tensor, sigma_data: float | Tensor) -> Tensor:
    """Weight of the network's output in D; Table 1."""
    return sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()


def c_in(sigma: Tensor, sigma_data: float | Tensor) -> Tensor:
    """Scale of the network's input, which gives it unit variance; Table 1."""
    return 1 / (sigma**2 + sigma_data**2).sqrt()


def loss_weight(sigma: Tensor, sigma_data: float | Tensor) -> Tensor:
    """lambda(sigma), which makes the loss at initialisation 1 at every sigma; Table 1."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


class Denoiser(NoiseConditionalUNet):
    """D(x; sigma, label) = c_skip x + c_out F(c_in x; c_noise, label), Eq. 7; ``fourier``: F sees waves of x too."""

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, *, fourier: bool = False, **network: Any
    ) -> None:
        told = 2 * len(FREQUENCIES) * image_shape[0] if fourier else 0
        super().__init__(image_shape, num_classes, told=told, **network)
        self.fourier = fourier

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor, augmented: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), sigma (B,), labels int64 (B,) -> estimate of x_0 (B, C, H, W)."""
        c_noise = 250 * sigma.log()  # ln(sigma) / 4 in thousands, the scale sinusoids are made for
        seen = per_image(c_in(sigma, self.sigma_data)) * x
        if self.fourier:
            seen = torch.cat([seen, fourier_features(x, sigma)], dim=1)
        out = super().forward(seen, c_noise, labels, augmented)
        skip = per_image(c_skip(sigma, self.sigma_data)) * x
        return skip + per_image(c_out(sigma, self.sigma_data)) * out


def edm_losses(
    denoiser: Denoiser, x_0: Tensor, labels: Tensor, log_sigma: Tensor, eps: Tensor, augmented: Tensor | None = None
) -> Tensor:
    """lambda(sigma) * mean_pixels |D(x_0 + sigma eps) - x_0|^2 of every image, (B,); Eq. 8.

    Args:
        denoiser: D(x, sigma, labels).
        x_0: Clean images in [-1, 1], (B, C, H, W).
        labels: int64 (B,).
        log_sigma: ln(sigma), (B,).
        eps: Standard normal noise, (B, C, H, W).
        augmented: What was done to the images, (B, 3).
    """
    sigma = log_sigma.exp()
    error = denoiser(x_0 + per_image(sigma) * eps, sigma, labels, augmented) - x_0
    return loss_weight(sigma, denoiser.sigma_data) * error.square().mean(dim=(1, 2, 3))


def draw_log_sigma(n: int, device: torch.device) -> Tensor:
    """n values of ln(sigma), float32 (n,), stratified within each of two groups, in random order.

    Most follow N(P_MEAN, P_STD^2) (Table 1). One in ``1 / UNIFORM_SHARE`` is uniform over all noise
    levels: the likelihood bound weighs each e-fold of sigma alike, and the normal law never visits
    the lowest ones. Stratification makes losses less noisy.
    """
    uniform = int(n * UNIFORM_SHARE)
    u = (torch.randperm(n - uniform, device=device) + torch.rand(n - uniform, device=device)) / (n - uniform)
    normal = P_MEAN + P_STD * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))
    v = (torch.randperm(uniform, device=device) + torch.rand(uniform, device=device)) / max(uniform, 1)
    log_min, log_max = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    return torch.cat([normal, log_min + v * (log_max - log_min)])
