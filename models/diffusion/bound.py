"""Variational bound of a denoiser on log p(x) of uint8 images, in continuous time.

Kingma et al. 2021, "Variational Diffusion Models" (arXiv:2107.00630), Eq. 11-15, written for
x_sigma = x_0 + sigma * eps, whose signal-to-noise ratio is 1 / sigma^2. Any function that
estimates x_0 from x_sigma gives a valid bound; labels are not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from models.base import LikelihoodBound, normal_noise, to_float
from models.diffusion.edm import SIGMA_MAX, SIGMA_MIN


def per_image_sum(x: Tensor) -> Tensor:
    """Sum over everything but the first axis, float64 (B,)."""
    return x.double().flatten(1).sum(1)


def prior_term(x_0: Tensor, prior_variance: float) -> Tensor:
    """KL(q(x_T | x_0) || N(0, SIGMA_MAX^2 + prior_variance)) in nats, (B,); Eq. 11, second term."""
    variance = SIGMA_MAX**2 + prior_variance
    ratio = SIGMA_MAX**2 / variance
    return per_image_sum(0.5 * (ratio - 1 - math.log(ratio) + x_0.double().square() / variance))


def reconstruction_term(images: Tensor, eps: Tensor) -> Tensor:
    """-log p(x | x_{sigma_min}) in nats, (B,), normalised over the 256 levels; Eq. 13.

    p(x_i = k | z_i) is proportional to N(z_i; level k, SIGMA_MIN^2), pixel by pixel.
    """
    levels = to_float(torch.arange(256, device=images.device)).double()
    z = to_float(images).double() + SIGMA_MIN * eps.double()
    log_p = -0.5 * ((z[..., None] - levels) / SIGMA_MIN).square()  # (B, C, H, W, 256)
    chosen = log_p.gather(-1, images[..., None].long()).squeeze(-1)
    return per_image_sum(log_p.logsumexp(-1) - chosen)


def diffusion_term(
    denoise: Callable[[Tensor, Tensor], Tensor], x_0: Tensor, log_sigma: Tensor, eps: Tensor
) -> Tensor:
    """One-sample estimate of the diffusion loss in nats, (B,); Eq. 15.

    1/2 int |x_0 - D|^2 d(1 / sigma^2) = int |x_0 - D|^2 / sigma^2 d(ln sigma), ln sigma uniform.
    """
    sigma = log_sigma.exp()[:, None, None, None]
    error = x_0.double() - denoise((x_0 + sigma * eps).float(), sigma.flatten().float()).double()
    return math.log(SIGMA_MAX / SIGMA_MIN) * per_image_sum((error / sigma).square())


def variational_bound(
    denoise: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    generators: list[torch.Generator],
    *,
    num_levels: int,
    prior_variance: float,
) -> LikelihoodBound:
    """Lower bound on log p(x) in nats for uint8 images (N, C, H, W).

    The integral over ln sigma is estimated with one draw from each of ``num_levels`` strata,
    which is unbiased for every image.
    """
    shape = tuple(images.shape[1:])
    x_0 = to_float(images)
    total = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for i in range(num_levels):
        u = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators]).to(images.device)
        log_sigma = math.log(SIGMA_MIN) + (i + u) / num_levels * math.log(SIGMA_MAX / SIGMA_MIN)
        eps = normal_noise(shape, generators).to(images.device)
        total += diffusion_term(denoise, x_0, log_sigma, eps)
    parts = {
        "prior": -prior_term(x_0, prior_variance),
        "diffusion": -total / num_levels,
        "reconstruction": -reconstruction_term(images, normal_noise(shape, generators).to(images.device)),
    }
    return LikelihoodBound(sum(parts.values(), torch.zeros_like(total)), "elbo", parts)
