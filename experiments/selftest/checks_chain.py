"""The bound of a chain with its own variances and decoder, and the samplers where the answer is known.

Ho et al. 2020 (arXiv:2006.11239), Eq. 5, 8 and 13. The best denoiser of independent pixels gives a bound that comes
close to their entropy and never passes it; for a Gaussian source the probability-flow ODE has a closed form.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from experiments.selftest.base import Check, Finding, all_of, at_least, largest_deviation, mean_within_error
from experiments.selftest.checks_diffusion import SIGMA_MIN, N, excess, generator, source

if TYPE_CHECKING:
    from torch import Tensor

    from models.base import LikelihoodBound
    from models.diffusion.samplers import Sampler

GROUP = "chain"
STEPS, TERMS = 4000, 256
VARIANCE = 0.3  # of the Gaussian source


def bound_on(sigmas: Tensor) -> LikelihoodBound:
    """The bound of the chain with the best denoiser and the posterior's variances."""
    from models.base import image_generators
    from models.diffusion.chain_bound import chain_bound, log_variances

    pixels, images = source()
    tilde, _ = log_variances(sigmas)

    def chain(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return pixels.denoise(x.double(), sigmas[t]), tilde[t][:, None, None, None]

    return chain_bound(
        chain, images, image_generators(N, generator(2)), sigmas=sigmas, num_terms=TERMS, variance="posterior"
    )


def fine_chain() -> Finding:
    """With 4,000 fine steps it costs nothing above -log p(x), and nothing below."""
    from models.diffusion.bound import log_uniform_sigmas

    found = bound_on(log_uniform_sigmas(STEPS, SIGMA_MIN)[1:])
    return mean_within_error(0.0, excess(found, source()[1]), largest_error=0.02)


def real_chain() -> Finding:
    """With the 1,000 steps of the linear schedule it lies above -log p(x)."""
    from models.diffusion.parameterisation import sigma_from_alpha_bar
    from models.diffusion.process import alpha_bars

    above = excess(bound_on(sigma_from_alpha_bar(alpha_bars("linear", 1000))), source()[1])
    error = float(above.std(ddof=1)) / math.sqrt(len(above))
    return at_least(-4 * error, float(above.mean()), "bits per dimension above the truth")


def decoder() -> Finding:
    """The probabilities of the 256 levels sum to 1, for means and variances of all sizes."""
    import torch

    from models.diffusion.chain_bound import decoder_term

    levels = torch.arange(256, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    sums = []
    for mean in (-1.3, -1.0, 0.004, 0.9, 2.0):
        for log_variance in (-14.0, -9.0, -3.0, 2.0):
            estimate = torch.full((256, 1, 1, 1), mean, dtype=torch.float64)
            nats = decoder_term(levels, estimate, torch.full_like(estimate, log_variance))
            sums.append(float((-nats).exp().sum()))
    return largest_deviation(np.ones(len(sums)), np.array(sums), absolute=1e-10)


def solved(sampler: Sampler, steps: int) -> Finding:
    """How far a sampler of the ODE is from x(0) = x(sigma) sqrt(v / (v + sigma^2))."""
    import torch

    from models.diffusion.samplers import karras_sigmas

    sigmas = karras_sigmas(steps)
    x = float(sigmas[0]) * torch.randn(4, 1, 2, 2, generator=generator(3), dtype=torch.float64)
    found = sampler(lambda y, sigma: y * (VARIANCE / (VARIANCE + sigma**2))[:, None, None, None], x, sigmas)
    truth = x * math.sqrt(VARIANCE / (VARIANCE + float(sigmas[0]) ** 2))
    return largest_deviation(truth.numpy(), found.numpy(), absolute=2e-3)


def ode_samplers() -> Finding:
    """Heun, DPM-Solver++(2M) and, with more steps, Euler reach the end of the ODE of a Gaussian."""
    from models.diffusion.samplers import dpmpp_2m, euler, heun

    return all_of(solved(heun, 200), solved(dpmpp_2m, 400), solved(euler, 20_000))


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("fine chain reaches the source", fine_chain),
        ("chain of 1,000 steps is above", real_chain),
        ("decoder sums to 1", decoder),
        ("samplers of the ODE in closed form", ode_samplers),
    )
)
