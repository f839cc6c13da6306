"""Samplers: pure functions of a denoiser, a start and noise levels.

All of them walk x_sigma = x_0 + sigma eps from a high noise level to 0 and see the network only as a denoiser
D(x, sigma), so that any of them runs on any member of the family. On this scale, that of a variance-preserving
x_t divided by sqrt(alpha_bar), Euler's method is DDIM, and the ancestral step is that of DDPM.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from models.diffusion.edm import SIGMA_MAX, SIGMA_MIN

RHO = 7.0
S_CHURN, S_MIN, S_MAX, S_NOISE = 40.0, 0.05, 50.0, 1.003  # Karras et al. 2022, Table 5, ImageNet

Denoise = Callable[[Tensor, Tensor], Tensor]
"""D(x_sigma, sigma): estimate of x_0 (B, C, H, W) from x (B, C, H, W) and sigma (B,)."""
Noise = Callable[[], Tensor]
"""Standard normal noise (B, C, H, W), new at every call."""
Level = TypeVar("Level", float, Tensor)
OnStep = Callable[[Tensor], None]
"""Told the state after every step."""
StepVariance = Callable[[float, float], "Tensor | float"]
"""Variance of p(x_s | x_t) on the scale of x_sigma, for noise levels s < t."""


class Sampler(Protocol):
    """What all samplers are; those that draw noise need ``noise``."""

    def __call__(
        self, denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep = ...
    ) -> Tensor: ...


def nobody(x: Tensor) -> None:
    """Tell nobody."""


def karras_sigmas(num_steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> Tensor:
    """Noise levels from sigma_max to sigma_min and a final 0, float64 (num_steps + 1,); Karras et al. 2022, Eq. 5."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, not {num_steps}")
    i = torch.arange(num_steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / RHO), sigma_min ** (1 / RHO)
    sigmas = (high + i / max(num_steps - 1, 1) * (low - high)) ** RHO
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])


def lowest_level(num_steps: int) -> float:
    """The noise level of the last estimate of a walk: 1 / num_steps, within [SIGMA_MIN, 0.1].

    Below it a picture changes by less than a few grey levels; a short walk spends its steps better above.
    """
    return min(max(1 / num_steps, SIGMA_MIN), 0.1)


def spread(levels: Tensor, num_steps: int) -> Tensor:
    """``num_steps`` of some ascending noise levels, evenly spread with both ends, descending, and a final 0.

    Nichol and Dhariwal 2021 (arXiv:2102.09672), Sec. 4: the steps of a shortened chain.

    Raises:
        ValueError: if there are not so many levels.
    """
    if not 1 <= num_steps <= len(levels):
        raise ValueError(f"num_steps must lie in 1..{len(levels)}, not {num_steps}")
    chosen = torch.linspace(len(levels) - 1, 0, num_steps, dtype=torch.float64).round().long()
    return torch.cat([levels.double()[chosen], torch.zeros(1, dtype=torch.float64)])


def pairs(sigmas: Tensor) -> list[tuple[float, float]]:
    """The noise levels before and after every step."""
    return list(itertools.pairwise(sigmas.tolist()))


def at(x: Tensor, sigma: float) -> Tensor:
    """The same noise level for every image, (B,)."""
    return x.new_full(x.shape[:1], sigma)


def drawn(noise: Noise | None) -> Tensor:
    """Noise for a step; raises ``ValueError`` where there is none."""
    if noise is None:
        raise ValueError("this sampler draws noise: give it noise=")
    return noise()


def euler(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep = nobody
) -> Tensor:
    """Integrate the probability-flow ODE with Euler's method; one evaluation a step.

    Args:
        denoise: D(x, sigma) with sigma of the type of x, (B,).
        x: Start, noise of standard deviation sigmas[0], (B, C, H, W).
        sigmas: Descending noise levels that end in 0, float64 (steps + 1,).
        noise: Not used.
        on_step: Told the state after every step.

    Returns:
        The sample, (B, C, H, W).
    """
    return ddim(denoise, x, sigmas, noise=noise, eta=0.0, on_step=on_step)


def heun(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep = nobody
) -> Tensor:
    """Integrate the ODE with Heun's second-order method; two evaluations a step, one in the last.

    Karras et al. 2022, Algorithm 1. Arguments as of ``euler``.
    """
    for now, after in pairs(sigmas):
        x = heun_step(denoise, x, now, after)
        on_step(x)
    return x


def heun_step(denoise: Denoise, x: Tensor, now: float, after: float) -> Tensor:
    """One step of Heun's method from noise level ``now`` to ``after``."""
    slope = (x - denoise(x, at(x, now))) / now
    end = x + (after - now) * slope
    if after > 0:  # the last step is Euler's: the slope at sigma = 0 is not defined
        slope_after = (end - denoise(end, at(x, after))) / after
        end = x + (after - now) * (slope + slope_after) / 2
    return end


def churn(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep = nobody,
    s_churn: float = S_CHURN,
) -> Tensor:
    """Heun's method with noise added before every step; Karras et al. 2022, Algorithm 2.

    Other arguments as of ``euler``.
    """
    steps = pairs(sigmas)
    for now, after in steps:
        gamma = min(s_churn / len(steps), 2**0.5 - 1) if S_MIN <= now <= S_MAX else 0.0
        raised = now * (1 + gamma)
        if gamma > 0:
            x = x + (raised**2 - now**2) ** 0.5 * S_NOISE * drawn(noise)
        x = heun_step(denoise, x, raised, after)
        on_step(x)
    return x


def posterior_variance(s: Level, t: Level) -> Level:
    """beta-tilde of the step from noise level t to s, on the scale of x_sigma; Ho et al. 2020, Eq. 7."""
    return s**2 * (t**2 - s**2) / t**2


def beta_variance(s: Level, t: Level) -> Level:
    """beta of the step from noise level t to s, on the scale of x_sigma; Ho et al. 2020, Sec. 3.2."""
    return (1 + s**2) * (t**2 - s**2) / (1 + t**2)


def ddim(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep = nobody,
    eta: float = 0.0,
) -> Tensor:
    """Song et al. 2021, "Denoising Diffusion Implicit Models" (arXiv:2010.02502), Eq. 12 and 16.

    eta = 0 draws no noise, eta = 1 is the ancestral sampler. Other arguments as of ``euler``.
    """
    for now, after in pairs(sigmas):
        estimate = denoise(x, at(x, now))
        variance = eta**2 * posterior_variance(after, now)
        x = estimate + max(after**2 - variance, 0.0) ** 0.5 / now * (x - estimate)
        if variance > 0:
            x = x + variance**0.5 * drawn(noise)
        on_step(x)
    return x


def ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep = nobody,
    variance: StepVariance = posterior_variance,
) -> Tensor:
    """Walk the reversed chain; Ho et al. 2020 (arXiv:2006.11239), Eq. 7 and 11, Algorithm 2.

    Args:
        variance: Of p(x_s | x_t), a number or (B, C, H, W); asked after the denoiser. Others as of ``euler``.
    """
    for now, after in pairs(sigmas):
        estimate = denoise(x, at(x, now))
        x = estimate + after**2 / now**2 * (x - estimate)
        if after > 0:
            added = torch.as_tensor(variance(after, now), dtype=x.dtype, device=x.device)
            x = x + added.sqrt() * drawn(noise)
        on_step(x)
    return x


def dpmpp_2m(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep = nobody
) -> Tensor:
    """DPM-Solver++(2M), a second-order multistep method in ln sigma; one evaluation a step.

    Lu et al. 2022 (arXiv:2211.01095), Algorithm 2; the last step, to sigma = 0, is of first order.
    Arguments as of ``euler``.
    """
    before: Tensor | None = None
    step_before = 0.0
    for now, after in pairs(sigmas):
        estimate = denoise(x, at(x, now))
        direction = estimate
        if after > 0:
            step = math.log(now / after)
            if before is not None:
                direction = estimate + step / (2 * step_before) * (estimate - before)
            step_before = step
        x = direction + after / now * (x - direction)
        before = estimate
        on_step(x)
    return x


def multistep_consistency(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep = nobody
) -> Tensor:
    """Jump to the estimate of x_0 and add the noise of the next level; one evaluation a step.

    Song et al. 2023 (arXiv:2303.01469), Algorithm 1, for a denoiser that maps to the end of the ODE.
    Arguments as of ``euler``.
    """
    for now, after in pairs(sigmas):
        x = denoise(x, at(x, now))
        if after > 0:
            x = x + after * drawn(noise)
        on_step(x)
    return x


SamplerName = Literal["heun", "euler", "ddim", "ancestral", "dpmpp_2m", "churn", "consistency"]
SAMPLERS: dict[str, Sampler] = {
    "heun": heun, "euler": euler, "ddim": ddim, "ancestral": ancestral, "dpmpp_2m": dpmpp_2m, "churn": churn,
    "consistency": multistep_consistency,
}
STOCHASTIC = ("ancestral", "churn", "consistency")
TWO_EVALUATIONS = ("heun", "churn")


def sampler_named(name: str) -> Sampler:
    """A sampler by its name; another raises ``ValueError``."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {name!r}")
    return SAMPLERS[name]


def evaluations(name: str, num_steps: int) -> int:
    """Evaluations of the denoiser in ``num_steps`` steps of a sampler."""
    return 2 * num_steps - 1 if name in TWO_EVALUATIONS else num_steps
