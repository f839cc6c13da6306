"""Log-likelihood by the probability-flow ODE, with uniform dequantisation.

Song et al. 2021 (arXiv:2011.13456), Sec. 4.3 and App. D.2, with dx / d sigma = (x - D(x, sigma)) / sigma of
Karras et al. 2022 (arXiv:2206.00364), Eq. 1-3; trace estimator of Grathwohl et al. 2019 (arXiv:1810.01367), Eq. 8.
Deviations: the variable is tau = ln sigma and the state y = x / sqrt(sigma^2 + s^2), whose density ends in
N(0, I) and hardly moves for data of variance s^2; every image has a step size and an error control of
its own, so that neither its result nor its cost depends on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from models.base import LikelihoodBound, SelfCheck, to_float, uniform_noise
from models.diffusion.bound import check_levels, per_image_sum
from models.diffusion.edm import SIGMA_MAX, SIGMA_MIN, per_image
from models.diffusion.samplers import Denoise

Trace = Literal["exact", "hutchinson"]
Field = Callable[[Tensor, Tensor, Tensor], Tensor]
"""dz / d tau (B, K) from z (B, K), tau (B,) and which images these are, int64 (B,)."""

# Dormand and Prince 1980, "A family of embedded Runge-Kutta formulae", the pair of orders 5 and 4.
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # fifth minus fourth order

FIRST_STEP = 0.1  # in ln sigma
MAX_STEPS = 1000  # tried steps of an image
MIN_STEP = 1e-9  # in ln sigma; an image that needs less is given up
AGREEMENT = 0.01  # bits per dimension, of results with two tolerances


@dataclass(frozen=True)
class FlowDensity:
    """log p(x) = ``prior_density`` + ``divergence``, nats, and evaluations of the denoiser; each float64 (N,)."""

    prior_density: Tensor
    divergence: Tensor
    nfe: Tensor


def weighted_sum(slopes: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """sum_j weights[j] slopes[j], without the terms that are zero."""
    terms = [weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight]
    return torch.stack(terms).sum(0)


def try_step(
    field: Field, z: Tensor, tau: Tensor, h: Tensor, slope: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One Dormand-Prince step of each image: the new state, its estimated error, and the slope there.

    Args:
        field: Slopes of the images ``rows``.
        z: States, float64 (B, K).
        tau: Where each image is, (B,).
        h: Its step, (B,).
        slope: ``field`` at z, (B, K).
        rows: int64 (B,).
    """
    slopes, new, step = [slope], z, h[:, None]
    for node, weights in zip(NODES, STAGES, strict=True):
        new = z + step * weighted_sum(slopes, weights)
        slopes.append(field(new, tau + node * h, rows))
    return new, step * weighted_sum(slopes, ERROR), slopes[-1]  # the last stage is the new state


def error_size(error: Tensor, old: Tensor, new: Tensor, rtol: float, atol: float) -> Tensor:
    """Error over what is allowed, (B,): root mean square of the state, or the last column if that is greater."""
    scaled = error / (atol + rtol * torch.maximum(old.abs(), new.abs()))
    size = torch.maximum(scaled[:, :-1].square().mean(1).sqrt(), scaled[:, -1].abs())
    return size.nan_to_num(nan=math.inf, posinf=math.inf)


def step_factor(size: Tensor) -> Tensor:
    """By how much the next step is longer, given the error's size (B,): a whole power of sqrt(2) in [1/4, 4].

    The usual 0.9 size^(-1/5), rounded down to a ladder: rounding errors of the network, which depend on
    the batch, would otherwise move every later step and, in rough networks, grow to the tolerance.
    """
    wanted = 0.9 * size.clamp(1e-10, 1e10) ** -0.2
    return 2 ** ((2 * wanted.log2()).floor() / 2).clamp(-2, 2)


def dormand_prince(
    field: Field, z: Tensor, start: float, end: float, *, rtol: float, atol: float
) -> tuple[Tensor, Tensor]:
    """Integrate dz / d tau = field from start to end > start, each row with steps of its own.

    Args:
        field: Slopes of the rows asked for; a row's slope may depend on that row only.
        z: Start, float64 (N, K); the last column's error counts by itself, the others' as a mean.
        start: tau of the start.
        end: tau of the end.
        rtol: Error allowed in one step, relative to the state.
        atol: The same, absolute.

    Returns:
        The end states (N, K), not-a-number in rows that need over ``MAX_STEPS`` steps or
        one below ``MIN_STEP``, and how often ``field`` was evaluated for each row, float64 (N,).
    """
    z, tau = z.clone(), z.new_full((len(z),), start)
    h, nfe, rows = torch.full_like(tau, FIRST_STEP), torch.ones_like(tau), torch.arange(len(z), device=z.device)
    slope = field(z, tau, rows).clone()
    for _ in range(MAX_STEPS):
        rows = ((tau < end) & (h > MIN_STEP)).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        left = end - tau[rows]
        step = torch.minimum(h[rows], left)
        new, error, slope_there = try_step(field, z[rows], tau[rows], step, slope[rows], rows)
        size = error_size(error, z[rows], new, rtol, atol)
        ok = size <= 1
        there = torch.where(step >= left, torch.full_like(tau[rows], end), tau[rows] + step)
        z[rows[ok]], slope[rows[ok]], tau[rows[ok]] = new[ok], slope_there[ok], there[ok]
        h[rows] = step * step_factor(size)
        nfe[rows] += len(STAGES)
    z[tau < end] = math.nan
    return z, nfe


def trace_probes(
    shape: tuple[int, ...], generators: list[torch.Generator], *, trace: Trace, probes: int = 1
) -> Tensor:
    """Vectors v with trace(J) = sum_k v_k^T J v_k, exactly or in the mean, float32 (N, K, *shape).

    "exact": the D unit vectors. "hutchinson": ``probes`` vectors of random signs over sqrt(probes),
    row i from generator i.

    Raises:
        ValueError: if the trace has another name or probes < 1.
    """
    if trace not in get_args(Trace):
        raise ValueError(f"trace must be one of {', '.join(get_args(Trace))}, not {trace!r}")
    if probes < 1:
        raise ValueError(f"probes must be at least 1, not {probes}")
    if trace == "exact":
        dimensions = math.prod(shape)
        return torch.eye(dimensions).reshape(1, dimensions, *shape).expand(len(generators), -1, *shape)
    signs = [torch.randint(2, (probes, *shape), generator=g) * 2.0 - 1 for g in generators]
    return torch.stack(signs) / math.sqrt(probes)


def denoise_and_trace(denoise: Denoise, x: Tensor, sigma: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """D(x, sigma), float64 (B, C, H, W), and the trace of its Jacobian by ``probes`` (B, K, C, H, W), (B,)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        estimate = denoise(x, sigma)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for v in probes.unbind(1):
            (product,) = torch.autograd.grad(estimate, x, v.to(estimate.dtype), retain_graph=True)
            total += per_image_sum(product.double() * v)
    return estimate.detach().double(), total


def flow_field(denoise: Denoise, probes: Tensor, prior_variance: float, dtype: torch.dtype) -> Field:
    """Slope of (y, log-density lost so far over D) along the flow, as a function of tau = ln sigma.

    With r^2 = sigma^2 + s^2: dy / d tau = (x - D) / r - y sigma^2 / r^2, whose divergence is
    D - trace(dD / dx) - D sigma^2 / r^2 in D dimensions.
    """
    shape = probes.shape[2:]
    dimensions = math.prod(shape)

    def field(z: Tensor, tau: Tensor, rows: Tensor) -> Tensor:
        sigma = tau.exp()
        variance = sigma.square() + prior_variance
        y = z[:, :-1].reshape(-1, *shape)
        x = per_image(variance.sqrt()) * y
        estimate, trace = denoise_and_trace(denoise, x.to(dtype), sigma.to(dtype), probes[rows])
        share = sigma.square() / variance
        slope = (x - estimate) / per_image(variance.sqrt()) - per_image(share) * y
        return torch.cat([slope.flatten(1), (1 - share - trace / dimensions)[:, None]], dim=1)

    return field


def ode_log_density(
    denoise: Denoise,
    x: Tensor,
    probes: Tensor,
    *,
    rtol: float,
    atol: float,
    prior_variance: float,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
    dtype: torch.dtype = torch.float32,
) -> FlowDensity:
    """log-density of the flow's law at noise level sigma_min, at x (N, C, H, W).

    log p(x) = log N(y_end; 0, I) + int divergence(dy / d tau) d tau - D ln r(sigma_min). Arguments that are
    not named here are those of ``ode_log_likelihood``; ``probes`` are those of ``trace_probes``.
    """
    check_levels(sigma_min, sigma_max, prior_variance)
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"rtol and atol must be above 0, not {rtol} and {atol}")
    dimensions, scale = math.prod(x.shape[1:]), math.sqrt(sigma_min**2 + prior_variance)
    start = torch.cat([x.double().flatten(1) / scale, x.new_zeros(len(x), 1, dtype=torch.float64)], dim=1)
    field = flow_field(denoise, probes.to(x.device), prior_variance, dtype)
    end, nfe = dormand_prince(field, start, math.log(sigma_min), math.log(sigma_max), rtol=rtol, atol=atol)
    prior_density = -0.5 * (end[:, :-1].square() + math.log(2 * math.pi)).sum(1)
    return FlowDensity(prior_density, dimensions * (end[:, -1] - math.log(scale)), nfe)


@torch.inference_mode(False)
def ode_log_likelihood(
    denoise: Denoise, images: Tensor, generators: list[torch.Generator], *, trace: Trace, rtol: float, atol: float,
    prior_variance: float, probes: int = 1, draws: int = 1, sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX, dtype: torch.dtype = torch.float32,
) -> LikelihoodBound:
    """Lower bound on log P(x) in nats for uint8 images (N, C, H, W), by the flow's density.

    log P(x) >= E log p(x + u) + D ln(2 / 255) for u uniform over a level's cell [-1/255, 1/255]^D of the
    scale [-1, 1]. x + u is taken for the state at sigma_min, where the flow starts: p is the law of the data
    with noise sigma_min, which is as proper a density as any. A bound in the mean over u and over the
    random signs, up to the solver's tolerance; p's end law is N(0, sigma_max^2 + prior_variance).

    Args:
        denoise: D(x_sigma, sigma), differentiable, called with (B, C, H, W) and (B,); rows must not mix.
        images: uint8 (N, C, H, W).
        generators: One for each image; its bound depends on nothing else that is random.
        trace: "exact" (D vector-Jacobian products an evaluation) or "hutchinson" (``probes`` of them).
        rtol, atol: Error of a step in the state y and in the log-density per dimension, relative and absolute.
        prior_variance: Of the data, about 0.
        probes: Random signs, fixed along a path; not used by "exact".
        draws: Draws of u, averaged.
        sigma_min, sigma_max: Noise levels where the flow starts and ends.
        dtype: Precision in which ``denoise`` is called; all else is float64.

    Returns:
        Kind "ode"; ``nfe`` counts evaluations of the denoiser, each with its vector-Jacobian products. An image
        whose steps become too small has the value not-a-number.

    Raises:
        ValueError: if a number is out of range or the trace unknown.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    shape = tuple(images.shape[1:])
    found = []
    for _ in range(draws):
        x = to_float(images).double() + (2 * uniform_noise(shape, generators).to(images.device) - 1) / 255
        vectors = trace_probes(shape, generators, trace=trace, probes=probes)
        found.append(ode_log_density(
            denoise, x, vectors, rtol=rtol, atol=atol, prior_variance=prior_variance, sigma_min=sigma_min,
            sigma_max=sigma_max, dtype=dtype,
        ))
    settings: dict[str, float | str] = {
        "trace": trace, "probes": vectors.shape[1], "dequantisation draws": draws, "solver": "Dormand-Prince 5(4)",
        "rtol": rtol, "atol": atol, "sigma_min": sigma_min, "sigma_max": sigma_max, "prior variance": prior_variance,
    }
    return averaged(found, math.prod(shape), settings)


def averaged(draws: list[FlowDensity], dimensions: int, settings: dict[str, float | str]) -> LikelihoodBound:
    """The bound in nats from the density at some draws of x + u: their mean, and the volume of a cell."""
    nfe = torch.stack([draw.nfe for draw in draws]).sum(0)
    parts = {
        "prior density": torch.stack([draw.prior_density for draw in draws]).mean(0),
        "divergence": torch.stack([draw.divergence for draw in draws]).mean(0),
        "dequantisation": torch.full_like(nfe, dimensions * math.log(2 / 255)),
    }
    return LikelihoodBound(sum(parts.values(), torch.zeros_like(nfe)), "ode", parts, settings, nfe)


def check_tolerance(loose: LikelihoodBound, tight: LikelihoodBound, dimensions: int) -> SelfCheck:
    """The same images, noise and signs with tighter tolerances: the mean |difference| must be within ``AGREEMENT``.

    What is recorded is a mean over images, whose error by the solver the mean absolute difference bounds.
    """
    difference = ((loose.log_likelihood - tight.log_likelihood) / (dimensions * math.log(2))).abs()
    mean, worst = float(difference.mean()), float(difference.max())
    text = (
        f"rtol {float(loose.settings['rtol']):.0e} and {float(tight.settings['rtol']):.0e} differ by {mean:.5f} "
        f"bits/dim in the mean (allowed {AGREEMENT}) and {worst:.5f} at most, on {len(difference)} images"
    )
    return SelfCheck(text, mean <= AGREEMENT)
