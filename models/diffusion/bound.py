"""Variational bounds of a denoiser on log p(x) of uint8 images, in continuous time and in T steps.

Kingma et al. 2021, "Variational Diffusion Models" (arXiv:2107.00630), Eq. 11-15, and Ho et al. 2020 (DDPM,
arXiv:2006.11239), Eq. 5-7, written for x_sigma = x_0 + sigma * eps, whose signal-to-noise ratio is
1 / sigma^2. Any function that estimates x_0 from x_sigma gives a valid bound (``parameterisation.py``
makes one of a network that predicts eps, x_0 or v); labels are not used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, get_args

import torch
from scipy.special import stdtrit
from torch import Tensor

from models.base import LikelihoodBound, SelfCheck, normal_noise, to_float
from models.diffusion.edm import SIGMA_MAX, SIGMA_MIN, per_image
from models.diffusion.samplers import Denoise

Variance = Literal["posterior", "beta"]
BLOCK = 16  # images whose 256 levels per pixel are held in memory at once


def per_image_sum(x: Tensor) -> Tensor:
    """Sum over everything but the first axis, float64 (B,)."""
    return x.double().flatten(1).sum(1)


def log_uniform_sigmas(num_steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> Tensor:
    """Ascending noise levels whose logarithms are equally spaced, float64 (num_steps + 1,)."""
    return torch.linspace(math.log(sigma_min), math.log(sigma_max), num_steps + 1, dtype=torch.float64).exp()


def prior_term(x_0: Tensor, prior_variance: float, sigma_max: float = SIGMA_MAX) -> Tensor:
    """KL(q(x_T | x_0) || N(0, sigma_max^2 + prior_variance)) in nats, (B,); VDM Eq. 11, DDPM Eq. 5, L_T."""
    variance = sigma_max**2 + prior_variance
    ratio = sigma_max**2 / variance
    return per_image_sum(0.5 * (ratio - 1 - math.log(ratio) + x_0.double().square() / variance))


def reconstruction_term(images: Tensor, eps: Tensor, sigma_min: float = SIGMA_MIN) -> Tensor:
    """-log p(x | x_{sigma_min}) in nats, (B,), normalised over the 256 levels; VDM Eq. 13.

    p(x_i = k | z_i) is proportional to N(z_i; level k, sigma_min^2), pixel by pixel.
    """
    levels = to_float(torch.arange(256, device=images.device)).double()
    totals = []
    for block, noise in zip(images.split(BLOCK), eps.split(BLOCK), strict=True):
        z = to_float(block).double() + sigma_min * noise.double()
        log_p = -0.5 * ((z[..., None] - levels) / sigma_min).square()  # (B, C, H, W, 256)
        chosen = log_p.gather(-1, block[..., None].long()).squeeze(-1)
        totals.append(per_image_sum(log_p.logsumexp(-1) - chosen))
    return torch.cat(totals)


def squared_error(denoise: Denoise, x_0: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
    """|x_0 - D(x_0 + sigma eps, sigma)|^2, float64 (B,), for sigma float64 (B,)."""
    estimate = denoise((x_0 + per_image(sigma) * eps).float(), sigma.float())
    return per_image_sum((x_0.double() - estimate.double()).square())


def diffusion_term(
    denoise: Denoise, x_0: Tensor, log_sigma: Tensor, eps: Tensor, sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
) -> Tensor:
    """One-sample estimate of the diffusion loss in nats, (B,); VDM Eq. 15.

    1/2 int |x_0 - D|^2 d(1 / sigma^2) = int |x_0 - D|^2 / sigma^2 d(ln sigma), ln sigma uniform.
    """
    sigma = log_sigma.exp()
    return math.log(sigma_max / sigma_min) * squared_error(denoise, x_0, sigma, eps) / sigma.square()


def step_term(error: Tensor, dimensions: int, s: Tensor, t: Tensor, variance: Variance) -> Tensor:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) in nats, (B,), for noise levels s < t, float64 (B,).

    q has the variance beta-tilde = s^2 (t^2 - s^2) / t^2 and p's mean has D in place of x_0, so that with
    equal variances the divergence is |x_0 - D|^2 (1 / s^2 - 1 / t^2) / 2 (VDM Eq. 14). DDPM Sec. 3.2:
    beta-tilde ("posterior") is the best variance for data of one point, beta ("beta") for N(0, I);
    on this scale beta = (1 + s^2) (t^2 - s^2) / (1 + t^2).

    Args:
        error: |x_0 - D(x_t, t)|^2, float64 (B,).
        dimensions: C * H * W.
    """
    mean = 0.5 * error * (1 / s.square() - 1 / t.square())
    if variance == "posterior":
        return mean
    ratio = (1 + s.square()) * t.square() / (s.square() * (1 + t.square()))  # beta / beta-tilde
    return mean / ratio + 0.5 * dimensions * (1 / ratio - 1 + ratio.log())


def stratified(
    num_strata: int, shape: tuple[int, ...], generators: list[torch.Generator], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each stratum of [0, 1) one uniform point, float64 (B,), and noise eps (B, *shape); all per image."""
    for i in range(num_strata):
        u = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
        yield ((i + u) / num_strata).to(device), normal_noise(shape, generators).to(device)


def check_levels(sigma_min: float, sigma_max: float, prior_variance: float) -> None:
    """Raise ``ValueError`` unless 0 < sigma_min < sigma_max and the prior's variance is not negative."""
    if not (0 < sigma_min < sigma_max < math.inf and prior_variance >= 0):
        raise ValueError(
            "noise levels need 0 < sigma_min < sigma_max and prior_variance >= 0, "
            f"not {sigma_min}, {sigma_max} and {prior_variance}"
        )


def variational_bound(
    denoise: Denoise,
    images: Tensor,
    generators: list[torch.Generator],
    *,
    num_levels: int,
    prior_variance: float,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
) -> LikelihoodBound:
    """Continuous-time lower bound on log p(x) in nats for uint8 images (N, C, H, W).

    The integral over ln sigma is estimated with one draw from each of ``num_levels`` strata,
    which is unbiased for every image.

    Args:
        denoise: D(x_sigma, sigma), called with float32 (N, C, H, W) and (N,).
        images: uint8 (N, C, H, W).
        generators: One for each image; its bound depends on nothing else that is random.
        num_levels: Network evaluations for each image, at least 1.
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
    total = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for u, eps in stratified(num_levels, shape, generators, images.device):
        total += diffusion_term(denoise, x_0, math.log(sigma_min) + u * span, eps, sigma_min, sigma_max)
    eps = normal_noise(shape, generators).to(images.device)
    parts = {
        "prior": -prior_term(x_0, prior_variance, sigma_max),
        "diffusion": -total / num_levels,
        "reconstruction": -reconstruction_term(images, eps, sigma_min),
    }
    settings: dict[str, float | str] = {
        "noise levels": num_levels, "sigma_min": sigma_min, "sigma_max": sigma_max, "prior variance": prior_variance,
    }
    nfe = torch.full_like(total, num_levels)
    return LikelihoodBound(sum(parts.values(), torch.zeros_like(total)), "elbo", parts, settings, nfe)


def discrete_bound(
    denoise: Denoise,
    images: Tensor,
    generators: list[torch.Generator],
    *,
    sigmas: Tensor,
    num_terms: int,
    prior_variance: float,
    variance: Variance = "posterior",
) -> LikelihoodBound:
    """T-step lower bound on log p(x) in nats for uint8 images (N, C, H, W); DDPM Eq. 5.

    Steps are drawn from ``num_terms`` strata of equal size, which is unbiased for every image; with
    num_terms = T each step is evaluated once.

    Args:
        denoise: D(x_sigma, sigma), called with float32 (N, C, H, W) and (N,).
        images: uint8 (N, C, H, W).
        generators: One for each image; its bound depends on nothing else that is random.
        sigmas: Strictly ascending noise levels > 0, (T + 1,); the first is that of the reconstruction.
        num_terms: Steps evaluated for each image, 1..T.
        prior_variance: Of the data, about 0; the prior is N(0, sigmas[-1]^2 + prior_variance).
        variance: Of p(x_s | x_t), see ``step_term``.

    Raises:
        ValueError: if levels do not ascend from above 0 or the other arguments are out of range.
    """
    sigmas = sigmas.double().to(images.device)
    num_steps, shape, x_0 = len(sigmas) - 1, tuple(images.shape[1:]), to_float(images)
    check_steps(sigmas, num_terms, prior_variance, variance)
    total = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for u, eps in stratified(num_terms, shape, generators, images.device):
        step = (u * num_steps).long().clamp(max=num_steps - 1)
        s, t = sigmas[step], sigmas[step + 1]
        total += step_term(squared_error(denoise, x_0, t, eps), math.prod(shape), s, t, variance)
    eps = normal_noise(shape, generators).to(images.device)
    parts = {
        "prior": -prior_term(x_0, prior_variance, float(sigmas[-1])),
        "diffusion": -total * num_steps / num_terms,
        "reconstruction": -reconstruction_term(images, eps, float(sigmas[0])),
    }
    settings: dict[str, float | str] = {
        "T": num_steps, "terms": num_terms, "variance": variance, "sigma_min": float(sigmas[0]),
        "sigma_max": float(sigmas[-1]), "prior variance": prior_variance,
    }
    nfe = torch.full_like(total, num_terms)
    return LikelihoodBound(sum(parts.values(), torch.zeros_like(total)), "elbo_discrete", parts, settings, nfe)


def check_steps(sigmas: Tensor, num_terms: int, prior_variance: float, variance: str) -> None:
    """Raise ``ValueError`` unless the arguments of ``discrete_bound`` are in range."""
    if len(sigmas) < 2 or not bool((sigmas.diff() > 0).all()):
        raise ValueError("sigmas must be at least two strictly ascending noise levels")
    check_levels(float(sigmas[0]), float(sigmas[-1]), prior_variance)
    if not 1 <= num_terms < len(sigmas):
        raise ValueError(f"num_terms must lie in 1..{len(sigmas) - 1}, not {num_terms}")
    if variance not in get_args(Variance):
        raise ValueError(f"variance must be one of {', '.join(get_args(Variance))}, not {variance!r}")


def normalisation_error(generator: torch.Generator, sigma_min: float = SIGMA_MIN) -> float:
    """Greatest |sum_k p(k | z) - 1| of the reconstruction over 64 latents z in and around [-1, 1]."""
    z = 2.2 * torch.rand(64, 1, generator=generator, dtype=torch.float64) - 1.1
    levels = torch.arange(256, dtype=torch.uint8)
    eps = ((z - to_float(levels).double()) / sigma_min).reshape(-1, 1, 1, 1)  # z stays, the level moves
    log_p = -reconstruction_term(levels.repeat(len(z)).reshape(-1, 1, 1, 1), eps, sigma_min)
    return float((log_p.reshape(-1, 256).exp().sum(1) - 1).abs().max())


def check_bound(few: LikelihoodBound, many: LikelihoodBound, dimensions: int, normalisation: float) -> SelfCheck:
    """Two independent estimates of one bound, the second with more evaluations, must agree within their error.

    The criterion is the paired difference's Student interval of 99.9 %; fewer than two images have no error
    and do not pass. ``normalisation`` (``normalisation_error``) must stay below 1e-9.
    """
    difference = (few.log_likelihood - many.log_likelihood) / (dimensions * math.log(2))
    n = len(difference)
    mean, error = float(difference.mean()), float(difference.std()) / math.sqrt(n)
    agree = n > 1 and abs(mean) <= float(stdtrit(n - 1, 0.9995)) * error
    assert few.nfe is not None and many.nfe is not None
    text = (
        f"{int(few.nfe[0])} and {int(many.nfe[0])} evaluations differ by {mean:.4f} ± {error:.4f} bits/dim on "
        f"{n} images; the reconstruction sums to 1 within {normalisation:.0e}"
    )
    return SelfCheck(text, agree and normalisation < 1e-9)
