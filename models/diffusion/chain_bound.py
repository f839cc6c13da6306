"""The variational bound of a chain as first written: with the chain's own variances, also learned ones.

Ho et al. 2020 (DDPM, arXiv:2006.11239), Eq. 5, 8 and 13; learned variances of Nichol and Dhariwal 2021
(arXiv:2102.09672), Eq. 15. Everything is on the scale of x_sigma = x_t / sqrt(alpha_bar_t), on which the step from
noise level t to s has the posterior mean x_0 + (s / t)^2 (x_t - x_0); divergences do not depend on the scale.
Nothing here draws or holds gradients back: the same terms are the training objective.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from models.base import LikelihoodBound, normal_noise, to_float
from models.diffusion.bound import per_image_sum, prior_term, stratified
from models.diffusion.edm import per_image
from models.diffusion.samplers import beta_variance, posterior_variance

Chain = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Estimate of x_0 and log-variance of the step down, on the scale of x_sigma, from x_sigma and zero-based t (B,)."""
HALF_CELL = 1 / 255  # half the distance of two levels


def log_variances(sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """log beta-tilde and log beta of every step, on the scale of x_sigma, float64 (T,) each.

    The first step has beta-tilde = 0; as in Nichol and Dhariwal's code it takes the second's.

    Args:
        sigmas: Ascending noise levels of the chain, (T,).
    """
    before = torch.cat([torch.zeros_like(sigmas[:1]), sigmas[:-1]])
    tilde, beta = posterior_variance(before, sigmas), beta_variance(before, sigmas)
    tilde = torch.cat([tilde[1:2] if len(sigmas) > 1 else beta[:1], tilde[1:]])
    return tilde.log(), beta.log()


def gaussian_kl(gap: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(N(m, q) || N(m + gap, p)) in nats, summed over pixels, float64 (B,), for log-variances."""
    return per_image_sum(0.5 * (log_p - log_q - 1 + (log_q - log_p).exp() + gap.square() * (-log_p).exp()))


def decoder_term(images: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log p(x_0 | x_1) in nats, (B,): a Gaussian summed over each level's cell, the outermost to infinity; Eq. 13.

    Args:
        images: uint8 (B, C, H, W).
        mean: On the scale [-1, 1], (B, C, H, W).
        log_variance: (B, 1, 1, 1) or (B, C, H, W).
    """
    x, std = images.double() / 127.5 - 1, (log_variance.double() / 2).exp()  # float64: cells must not overlap
    upper = torch.where(images == 255, math.inf, (x + HALF_CELL - mean.double()) / std)
    lower = torch.where(images == 0, -math.inf, (x - HALF_CELL - mean.double()) / std)
    return -per_image_sum(log_mass(lower, upper))


def log_mass(lower: Tensor, upper: Tensor) -> Tensor:
    """log(Phi(upper) - Phi(lower)) of the standard normal law for lower < upper, far into both tails."""
    flip = lower > 0  # work in the left tail, where log_ndtr is exact
    left, right = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    high, low = torch.special.log_ndtr(right), torch.special.log_ndtr(left)
    low = low.masked_fill(left == -math.inf, -math.inf)
    return high + torch.log1p(-torch.exp((low - high).clamp(max=-1e-12)))


def divergence(estimate: Tensor, log_p: Tensor, x_0: Tensor, t: Tensor, sigmas: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) in nats, float64 (B,), for steps t >= 1 and an estimate of x_0.

    Args:
        estimate: Of x_0, (B, C, H, W).
        log_p: log-variance of p, (B, C, H, W) or (B, 1, 1, 1).
        x_0: (B, C, H, W) in [-1, 1].
        t: int64 (B,), 1..T-1.
        sigmas: Ascending noise levels, float64 (T,).
    """
    now, after = sigmas[t], sigmas[t - 1]
    gap = per_image(1 - (after / now).square()) * (x_0.double() - estimate.double())
    log_q = per_image(posterior_variance(after, now).log())
    return gaussian_kl(gap, log_q.expand_as(gap), log_p.double().expand_as(gap))


def term(estimate: Tensor, log_p: Tensor, images: Tensor, t: Tensor, sigmas: Tensor) -> Tensor:
    """The term of the bound at any t, in nats, float64 (B,): the decoder at t = 0, a divergence above.

    ``images`` are uint8 (B, C, H, W); other arguments as of ``divergence``.
    """
    terms = divergence(estimate, log_p, to_float(images), t.clamp(min=1), sigmas)
    first = (t == 0).nonzero().squeeze(1)
    return terms.index_copy(0, first, decoder_term(images[first], estimate[first], log_p[first]))


def step_divergence(chain: Chain, x_0: Tensor, t: Tensor, eps: Tensor, sigmas: Tensor) -> Tensor:
    """``divergence`` at x_t = x_0 + sigma_t eps, for eps standard normal, (B, C, H, W)."""
    estimate, log_p = chain((x_0 + per_image(sigmas[t]) * eps).float(), t)
    return divergence(estimate, log_p, x_0, t, sigmas)


def first_step(chain: Chain, images: Tensor, eps: Tensor, sigmas: Tensor) -> Tensor:
    """-log p(x_0 | x_1) in nats, float64 (B,): the decoder of uint8 images (B, C, H, W) at the first noise level."""
    t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    estimate, log_p = chain((to_float(images) + per_image(sigmas[t]) * eps).float(), t)
    return decoder_term(images, estimate, log_p)


def chain_bound(
    chain: Chain, images: Tensor, generators: list[torch.Generator], *, sigmas: Tensor, num_terms: int, variance: str
) -> LikelihoodBound:
    """T-step lower bound on log p(x) in nats of uint8 images (N, C, H, W), prior N(0, I) on the scale of x_t.

    Steps 1..T-1 are drawn from ``num_terms`` strata, which is unbiased for every image; the decoder and the
    prior are always evaluated.

    Args:
        chain: See ``Chain``.
        images: uint8 (N, C, H, W).
        generators: One for each image; its bound depends on nothing else that is random.
        sigmas: Ascending noise levels, float64 (T,), T >= 2.
        num_terms: Steps evaluated for each image, 1..T-1.
        variance: What the settings call the variances.

    Raises:
        ValueError: if ``num_terms`` is out of range.
    """
    count, shape, x_0 = len(sigmas) - 1, tuple(images.shape[1:]), to_float(images)
    if not 1 <= num_terms <= count:
        raise ValueError(f"num_terms must lie in 1..{count}, not {num_terms}")
    total = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for u, eps in stratified(num_terms, shape, generators, images.device):
        t = 1 + (u * count).long().clamp(max=count - 1)
        total += step_divergence(chain, x_0, t, eps, sigmas)
    eps = normal_noise(shape, generators).to(images.device)
    parts = {
        "prior": -prior_term(x_0, 1.0, float(sigmas[-1])),
        "diffusion": -total * count / num_terms,
        "reconstruction": -first_step(chain, images, eps, sigmas),
    }
    settings: dict[str, float | str] = {
        "T": len(sigmas), "terms": num_terms, "variance": variance, "decoder": "discretised Gaussian",
        "sigma_min": float(sigmas[0]), "sigma_max": float(sigmas[-1]), "prior variance": 1.0,
    }
    nfe = torch.full_like(total, num_terms + 1)
    return LikelihoodBound(sum(parts.values(), torch.zeros_like(total)), "elbo_discrete", parts, settings, nfe)
