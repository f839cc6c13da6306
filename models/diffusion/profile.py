"""Where the bits of a diffusion model are: the integrand of the variational bound, noise level by noise level.

Kingma et al. 2021, "Variational Diffusion Models" (arXiv:2107.00630), Eq. 15: the diffusion part of the bound is
an integral over ln(sigma) of |x_0 - D|^2 / sigma^2. ``bound.variational_bound`` keeps the sum over strata; here
every stratum is kept, from the same draws, so that the pieces add up to that bound.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.base import Profile, normal_noise, to_float
from models.diffusion.bound import check_levels, prior_term, reconstruction_term, squared_error, stratified
from models.diffusion.edm import SIGMA_MAX, SIGMA_MIN
from models.diffusion.samplers import Denoise


def strata_middles(num_levels: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> Tensor:
    """Geometric middles of strata of equal width in ln(sigma), ascending, float64 (num_levels,)."""
    share = (torch.arange(num_levels, dtype=torch.float64) + 0.5) / num_levels
    return (math.log(sigma_min) + share * math.log(sigma_max / sigma_min)).exp()


def noise_level_profile(
    denoise: Denoise,
    images: Tensor,
    generators: list[torch.Generator],
    *,
    num_levels: int,
    prior_variance: float,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
) -> Profile:
    """Squared error and nats in every stratum of ln(sigma), with the other parts of the bound "elbo".

    Args:
        denoise: D(x_sigma, sigma), called with float32 (N, C, H, W) and (N,).
        images: uint8 (N, C, H, W).
        generators: One for each image; as in ``variational_bound``, which draws the same from them.
        num_levels: Strata, at least 1, and network evaluations for each image.
        prior_variance: Of the data, about 0; the prior is N(0, sigma_max^2 + prior_variance).
        sigma_min: Noise level of the latent from which pixels are reconstructed.
        sigma_max: Noise level of the prior.

    Raises:
        ValueError: if the numbers are out of range.
    """
    check_levels(sigma_min, sigma_max, prior_variance)
    if num_levels < 1:
        raise ValueError(f"num_levels must be at least 1, not {num_levels}")
    shape, x_0, span = tuple(images.shape[1:]), to_float(images), math.log(sigma_max / sigma_min)
    errors, nats = [], []
    for u, eps in stratified(num_levels, shape, generators, images.device):
        sigma = (math.log(sigma_min) + u * span).exp()
        error = squared_error(denoise, x_0, sigma, eps)  # (N,)
        errors.append(error / math.prod(shape))
        nats.append(span / num_levels * error / sigma.square())
    eps = normal_noise(shape, generators).to(images.device)
    return Profile(
        kind="elbo", label="noise level sigma", error_label="mean squared error per pixel",
        positions=strata_middles(num_levels, sigma_min, sigma_max),
        nats=torch.stack(nats, dim=1), error=torch.stack(errors, dim=1),
        parts={
            "prior": prior_term(x_0, prior_variance, sigma_max),
            "reconstruction": reconstruction_term(images, eps, sigma_min),
        },
    )
