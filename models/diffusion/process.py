"""The forward chain in closed form: schedules, marginals, posteriors, and what a network may predict.

Ho et al. 2020 (arXiv:2006.11239), Eq. 2, 4, 6 and 7; cosine schedule of Nichol and Dhariwal 2021
(arXiv:2102.09672), Eq. 17; v of Salimans and Ho 2022 (arXiv:2202.00512), Sec. 4; score of Song et al. 2021
(arXiv:2011.13456). ``t`` is zero-based: t = 0 is one noising step. Everything is float64 unless it is an image.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from models.diffusion.edm import per_image
from models.diffusion.parameterisation import from_x_0, sigma_from_alpha_bar, to_x_0

Schedule = Literal["linear", "cosine"]
Quantity = Literal["eps", "x_0", "v", "score"]

REFERENCE_STEPS = 1000  # the length for which the linear schedule's ends were given
LARGEST_BETA = 0.999  # Nichol and Dhariwal, Sec. 3.2: keeps the last step of the cosine from being singular


def linear_betas(num_steps: int) -> Tensor:
    """beta rising linearly from 1e-4 to 0.02, float64 (T,); Ho et al. 2020, Sec. 4, rescaled for T other than 1000."""
    scale = REFERENCE_STEPS / num_steps
    return torch.linspace(1e-4 * scale, 0.02 * scale, num_steps, dtype=torch.float64).clamp(max=LARGEST_BETA)


def cosine_betas(num_steps: int, offset: float = 0.008) -> Tensor:
    """beta whose alpha_bar follows a squared cosine, float64 (T,); Nichol and Dhariwal 2021, Eq. 17."""
    t = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    alpha_bar = ((t + offset) / (1 + offset) * math.pi / 2).cos().square()
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=LARGEST_BETA)


def alpha_bars(schedule: Schedule, num_steps: int) -> Tensor:
    """alpha_bar_t = prod_{s <= t} (1 - beta_s) of a schedule by name, float64 (T,), descending.

    Raises:
        ValueError: if there is no such schedule or ``num_steps`` is below 1.
    """
    if num_steps < 1:
        raise ValueError(f"the number of steps must be at least 1, not {num_steps}")
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule must be one of {', '.join(get_args(Schedule))}, not {schedule!r}")
    betas = linear_betas(num_steps) if schedule == "linear" else cosine_betas(num_steps)
    return (1 - betas).cumprod(0)


def log_snr(alpha_bar: Tensor) -> Tensor:
    """ln(alpha_bar / (1 - alpha_bar)), the logarithm of the signal-to-noise ratio, same shape."""
    return torch.logit(alpha_bar.double())


def before(alpha_bar: Tensor, t: Tensor) -> Tensor:
    """alpha_bar one step earlier, float64 (B,); 1 before the first step."""
    return torch.where(t > 0, alpha_bar[(t - 1).clamp(min=0)], torch.ones((), dtype=torch.float64))


def beta_at(alpha_bar: Tensor, t: Tensor) -> Tensor:
    """beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, float64 (B,)."""
    return 1 - alpha_bar[t] / before(alpha_bar, t)


def q_mean_variance(x_0: Tensor, t: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C, H, W) and variance (B, 1, 1, 1) of q(x_t | x_0), float64; Ho et al. 2020, Eq. 4."""
    product = per_image(alpha_bar[t].double())
    return product.sqrt() * x_0.double(), 1 - product


def q_sample(x_0: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """Draw x_t ~ q(x_t | x_0).

    Ho et al. 2020 (arXiv:2006.11239), Eq. 4.

    Args:
        x_0: Clean images in [-1, 1], float32, (B, C, H, W).
        t: Zero-based timesteps, int64, (B,); t = 0 is one noising step.
        eps: Standard normal noise, (B, C, H, W).
        alpha_bar: Cumulative signal product, float64, (T,).

    Returns:
        Noised images, of the type of x_0, (B, C, H, W).
    """
    mean, variance = q_mean_variance(x_0, t, alpha_bar)
    return (mean + variance.sqrt() * eps.double()).to(x_0.dtype)


def q_posterior(x_0: Tensor, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C, H, W) and variance beta-tilde (B, 1, 1, 1) of q(x_{t-1} | x_t, x_0), float64.

    Ho et al. 2020, Eq. 6-7. At t = 0 the law is the point x_0: mean x_0, variance 0.

    Args:
        x_0: Clean images, (B, C, H, W).
        x_t: Noised images, (B, C, H, W).
        t: Zero-based timesteps, int64, (B,).
        alpha_bar: Cumulative signal product, float64, (T,).
    """
    now, earlier, beta = (per_image(v) for v in (alpha_bar[t], before(alpha_bar, t), beta_at(alpha_bar, t)))
    weight_0 = earlier.sqrt() * beta / (1 - now)
    weight_t = (1 - beta).sqrt() * (1 - earlier) / (1 - now)
    return weight_0 * x_0.double() + weight_t * x_t.double(), beta * (1 - earlier) / (1 - now)


def convert(value: Tensor, x_t: Tensor, alpha_bar: Tensor, source: Quantity, target: Quantity) -> Tensor:
    """One of eps, x_0, v and the score of x_t, computed from another, float64 (B, C, H, W).

    x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps, v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0,
    score = -eps / sqrt(1 - alpha_bar).

    Args:
        value: What ``source`` names, (B, C, H, W).
        x_t: Noised images, (B, C, H, W).
        alpha_bar: Of each image, in (0, 1), float64 (B,).
        source: Name of what is given.
        target: Name of what is wanted.

    Raises:
        ValueError: if a name is unknown or an alpha_bar is not within (0, 1).
    """
    for name in (source, target):
        if name not in get_args(Quantity):
            raise ValueError(f"a prediction must be one of {', '.join(get_args(Quantity))}, not {name!r}")
    alpha_bar = alpha_bar.double()
    if not bool(((alpha_bar > 0) & (alpha_bar < 1)).all()):
        raise ValueError(f"alpha_bar must lie within (0, 1), not {alpha_bar.tolist()}")
    sigma, noise = sigma_from_alpha_bar(alpha_bar), per_image((1 - alpha_bar).sqrt())
    x = x_t.double() / per_image(alpha_bar.sqrt())
    given = -noise * value.double() if source == "score" else value
    x_0 = to_x_0(given, x, sigma, "eps" if source == "score" else source)
    found = from_x_0(x_0, x, sigma, "eps" if target == "score" else target)
    return -found / noise if target == "score" else found
