"""The probability-flow ODE on sources whose density is known at every noise level.

Song et al. 2021 (arXiv:2011.13456), App. D.2. A correlated Gaussian with its linear denoiser, and
independent pixels of a few levels, whose flow is far from linear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from experiments.selftest.base import Check, Finding, all_of, at_most, close, largest_deviation, mean_within_error

if TYPE_CHECKING:
    from torch import Tensor

    from models.base import LikelihoodBound
    from models.diffusion.oracles import CorrelatedGaussian

GROUP = "ode"
SHAPE, D = (1, 2, 3), 6
TOLERANCE = 1e-5


def gaussian() -> CorrelatedGaussian:
    """Six correlated pixels, so narrow that hardly one is cut off at the ends of [-1, 1]."""
    import torch

    from models.diffusion.oracles import CorrelatedGaussian

    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(D, D)))[0]
    covariance = rotation @ np.diag(np.geomspace(0.05, 0.3, D) ** 2) @ rotation.T
    return CorrelatedGaussian(torch.from_numpy(rng.uniform(-0.2, 0.2, D)), torch.from_numpy(covariance))


def images(n: int) -> Tensor:
    """Draws rounded to levels, uint8 (n, *SHAPE)."""
    import torch

    from models.base import to_uint8

    return to_uint8(gaussian().sample(n, SHAPE, torch.Generator().manual_seed(1)))


def bits(x: Tensor, seeds: range, trace: Literal["exact", "hutchinson"], draws: int = 1) -> LikelihoodBound:
    """The bound of images, each with the generator of its seed."""
    import torch

    from models.diffusion.ode import ode_log_likelihood

    own = [torch.Generator().manual_seed(seed) for seed in seeds]
    return ode_log_likelihood(
        gaussian().denoise, x, own, trace=trace, rtol=TOLERANCE, atol=TOLERANCE, prior_variance=0.05, draws=draws,
        probes=2, dtype=torch.float64,
    )


def per_dim(nats: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nats per image as bits per dimension."""
    return nats / (D * np.log(2))


def density() -> Finding:
    """Exact trace: the mean error of log p at points between the levels is below 0.002 bits per dimension."""
    import torch
    from scipy.stats import multivariate_normal

    from models.diffusion.edm import SIGMA_MIN
    from models.diffusion.ode import ode_log_density, trace_probes

    source, n = gaussian(), 24
    x = source.sample(n, SHAPE, torch.Generator().manual_seed(2))
    covariance = source.covariance.numpy() + SIGMA_MIN**2 * np.eye(D)
    expected = multivariate_normal(source.mean.numpy(), covariance).logpdf(x.flatten(1).numpy())
    probes = trace_probes(SHAPE, [torch.Generator()] * n, trace="exact")
    flow = ode_log_density(
        source.denoise, x, probes, rtol=TOLERANCE, atol=TOLERANCE, prior_variance=0.05, dtype=torch.float64
    )
    errors = per_dim((flow.prior_density + flow.divergence).numpy() - expected)
    note = f"bits/dim, mean of {n}; the largest is {np.abs(errors).max():.2g}"
    return all_of(
        at_most(0.002, np.abs(errors).max(), note), close(0.0, np.abs(errors).mean(), absolute=0.002, note=note)
    )


def dequantised() -> Finding:
    """uint8 images: the bound is the mean of log p over the cell of a level, plus log of the cell's volume."""
    source, n, draws = gaussian(), 24, 4
    x = images(n)
    # over a cell of side a, E log N = log N at its middle - tr(precision) a² / 24
    precision = np.linalg.inv(source.covariance.numpy() + 0.002**2 * np.eye(D))
    residual = x.flatten(1).numpy() / 127.5 - 1 - source.mean.numpy()
    quadratic = np.einsum("nd,de,ne->n", residual, precision, residual)
    side = 2 / 255
    centre = -0.5 * (quadratic - np.linalg.slogdet(precision)[1] + D * np.log(2 * np.pi))
    expected = centre - np.trace(precision) * side**2 / 24 + D * np.log(side)
    found = bits(x, range(n), "exact", draws)
    return mean_within_error(0.0, per_dim(found.log_likelihood.numpy() - expected), largest_error=0.02)


def hutchinson() -> Finding:
    """Two vectors of random signs instead of the exact trace: the same mean within its error, on the same noise."""
    x, n = images(60), 60
    exact, random = (bits(x, range(n), trace).log_likelihood.numpy() for trace in ("exact", "hutchinson"))
    return mean_within_error(0.0, per_dim(random - exact), largest_error=0.2)


def composition() -> Finding:
    """An image's bound and evaluations do not depend on the images beside it."""
    x = images(6)
    together = bits(x, range(6), "hutchinson")
    parts = [bits(x[:1], range(1), "hutchinson"), bits(x[1:], range(1, 6), "hutchinson")]
    if together.nfe is None or any(part.nfe is None for part in parts):
        raise ValueError("evaluations are not counted")
    counts = np.concatenate([part.nfe.numpy() for part in parts if part.nfe is not None])
    values = np.concatenate([part.log_likelihood.numpy() for part in parts])
    return all_of(
        largest_deviation(together.nfe.numpy(), counts, absolute=0),
        largest_deviation(together.log_likelihood.numpy(), values, relative=1e-9),
    )


def curved() -> Finding:
    """Pixels of three levels at noise 0.1, where the flow must part them: log p of the mixture."""
    import torch

    from models.diffusion.ode import ode_log_density, trace_probes
    from models.diffusion.oracles import IndependentPixels

    pmf = torch.zeros(256, dtype=torch.float64)
    pmf[[20, 120, 240]] = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    source, shape, n, sigma = IndependentPixels(pmf), (1, 1, 2), 16, 0.1
    g = torch.Generator().manual_seed(4)
    x = source.sample(n, shape, g) / 127.5 - 1 + sigma * torch.randn(n, *shape, generator=g, dtype=torch.float64)
    means, values = np.array([20, 120, 240]) / 127.5 - 1, x.flatten(1).numpy()[..., None]
    normal = np.exp(-0.5 * ((values - means) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    expected = np.log((normal * [0.5, 0.3, 0.2]).sum(2)).sum(1)
    # the end law has mean 0, the source has not: at 2,000 that is no longer seen
    flow = ode_log_density(
        source.denoise, x, trace_probes(shape, [g] * n, trace="exact"), rtol=TOLERANCE, atol=TOLERANCE,
        prior_variance=source.second_moment, sigma_min=sigma, sigma_max=2000.0, dtype=torch.float64,
    )
    errors = ((flow.prior_density + flow.divergence).numpy() - expected) / (2 * np.log(2))
    return close(0.0, np.abs(errors).max(), absolute=0.002, note="bits/dim, the largest of 16")


def parts_alone() -> Finding:
    """N(0, s² I) under its own denoiser rests: the prior is log N(x / r; 0, I), the rest -D ln r, r² = s² + sigma²."""
    import torch
    from scipy.stats import norm

    from models.diffusion.ode import ode_log_density, ode_log_likelihood, trace_probes

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x * (0.04 / (0.04 + sigma.square()))[:, None, None, None]

    x = 0.2 * torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    probes = trace_probes(SHAPE, [torch.Generator()] * 5, trace="exact")
    flow = ode_log_density(
        denoise, x, probes, rtol=TOLERANCE, atol=TOLERANCE, prior_variance=0.04, sigma_min=0.1, dtype=torch.float64
    )
    r = np.sqrt(0.04 + 0.01)
    own = [torch.Generator().manual_seed(seed) for seed in range(5)]
    bound = ode_log_likelihood(
        denoise, images(5), own, trace="exact", rtol=TOLERANCE, atol=TOLERANCE, prior_variance=0.04, draws=2,
        sigma_min=0.1, dtype=torch.float64,
    )
    total = sum(part.numpy() for part in bound.parts.values())
    return all_of(
        largest_deviation(norm.logpdf(x.flatten(1) / r).sum(1), flow.prior_density.numpy(), absolute=1e-5),
        largest_deviation(np.full(5, -D * np.log(r)), flow.divergence.numpy(), absolute=1e-5),
        largest_deviation(np.full(5, -D * np.log(r)), bound.parts["divergence"].numpy(), absolute=1e-5),
        largest_deviation(np.full(5, D * np.log(2 / 255)), bound.parts["dequantisation"].numpy(), absolute=1e-9),
        largest_deviation(total, bound.log_likelihood.numpy(), relative=1e-12),
    )


def coefficients() -> Finding:
    """Dormand and Prince's numbers are those of SciPy's RK45."""
    from scipy.integrate import RK45

    from models.diffusion.ode import ERROR, NODES, STAGES

    rows = [np.pad(stage, (0, 6 - len(stage))) for stage in STAGES]
    theirs = [*np.pad(RK45.A, ((0, 0), (0, 1)))[1:], RK45.B]
    return all_of(
        largest_deviation(theirs, rows, absolute=1e-14),
        largest_deviation([*RK45.C[1:], 1.0], NODES, absolute=1e-14),
        largest_deviation(RK45.E, np.array(ERROR) * np.sign(ERROR[0]) * np.sign(RK45.E[0]), absolute=1e-14),
    )


def step_control() -> Finding:
    """What a step errs, over what it may: a mean over the state, the density by itself; and the next step's length."""
    import torch

    from models.diffusion.ode import error_size, step_factor

    rng = np.random.default_rng(6)
    error, old, new = (torch.from_numpy(z) for z in rng.normal(size=(3, 8, 5)))
    error[:4, -1] *= 20
    allowed = 0.01 + 0.1 * np.maximum(np.abs(old.numpy()), np.abs(new.numpy()))
    scaled = np.abs(error.numpy()) / allowed
    expected = [max(np.sqrt(np.mean(row[:-1] ** 2)), row[-1]) for row in scaled]
    sizes = np.array([1e-12, 1e-3, 0.02, 0.3, 0.59, 1.0, 5.0, 1e4, 1e12])
    # the usual factor, rounded down to 1/4, ..., 1/sqrt 2, 1, sqrt 2, ..., 4
    ladder = 2.0 ** (np.arange(-4, 5) / 2)
    factors = [ladder[ladder <= max(0.9 * size**-0.2, 0.25)].max() for size in sizes]
    return all_of(
        largest_deviation(expected, error_size(error, old, new, 0.1, 0.01).numpy(), relative=1e-9),
        largest_deviation(factors, step_factor(torch.from_numpy(sizes)).numpy(), relative=1e-9),
    )


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("PF-ODE on a correlated Gaussian", density),
        ("PF-ODE on independent levels", curved),
        ("PF-ODE with uniform dequantisation", dequantised),
        ("PF-ODE with random signs", hutchinson),
        ("PF-ODE in any batch", composition),
        ("PF-ODE: its parts alone", parts_alone),
        ("PF-ODE: Dormand and Prince's numbers", coefficients),
        ("PF-ODE: error and length of steps", step_control),
    )
)
