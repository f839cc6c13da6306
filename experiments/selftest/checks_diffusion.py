"""Variational bounds of the best denoiser of a known source: they reach its entropy and never pass it.

Kingma et al. 2021 (arXiv:2107.00630), Eq. 11-15; Ho et al. 2020 (arXiv:2006.11239), Eq. 5-7. Pixels are
independent, so that log p(x) is known for every image, and so is the difference from each bound.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.selftest.base import Check, Finding, all_of, at_least, close, largest_deviation, mean_within_error

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from models.base import LikelihoodBound
    from models.diffusion.bound import Variance
    from models.diffusion.oracles import IndependentPixels
    from models.diffusion.parameterisation import Network, Prediction
    from models.diffusion.samplers import Denoise

GROUP = "diffusion"
N, SHAPE, TERMS = 100, (1, 4, 4), 256
SIGMA_MIN = 0.0005  # a sixteenth of the spacing of levels: the reconstruction, blind to the source, costs nothing
LEVELS, WEIGHTS = (3, 5, 90, 91, 130, 255), (0.3, 0.1, 0.2, 0.05, 0.25, 0.1)


@lru_cache(maxsize=1)
def source() -> tuple[IndependentPixels, Tensor]:
    """A source of six levels, some of them neighbours, and images uint8 (N, *SHAPE) drawn from it."""
    import torch

    from models.diffusion.oracles import IndependentPixels

    pmf = torch.zeros(256, dtype=torch.float64)
    pmf[list(LEVELS)] = torch.tensor(WEIGHTS, dtype=torch.float64)
    pixels = IndependentPixels(pmf)
    return pixels, pixels.sample(N, SHAPE, torch.Generator().manual_seed(0))


def log_p(images: Tensor) -> NDArray[np.float64]:
    """Exact log p(x) in nats (N,)."""
    table = np.full(256, -np.inf)
    table[list(LEVELS)] = np.log(WEIGHTS)
    return table[images.flatten(1).numpy()].sum(1)


def excess(bound: LikelihoodBound, images: Tensor) -> NDArray[np.float64]:
    """Bits per dimension that a bound costs above the truth, for every image."""
    return (log_p(images) - bound.log_likelihood.numpy()) / (images[0].numel() * np.log(2))


def continuous(denoise: Denoise | None = None) -> LikelihoodBound:
    """The bound in continuous time."""
    from models.base import image_generators
    from models.diffusion.bound import variational_bound

    pixels, images = source()
    return variational_bound(
        denoise or pixels.denoise, images, image_generators(N, generator(1)), num_levels=TERMS,
        prior_variance=pixels.second_moment, sigma_min=SIGMA_MIN,
    )


def in_steps(steps: int, terms: int, variance: Variance = "posterior") -> LikelihoodBound:
    """The bound in so many steps."""
    from models.base import image_generators
    from models.diffusion.bound import discrete_bound, log_uniform_sigmas

    pixels, images = source()
    return discrete_bound(
        pixels.denoise, images, image_generators(N, generator(2)), sigmas=log_uniform_sigmas(steps, SIGMA_MIN),
        num_terms=terms, prior_variance=pixels.second_moment, variance=variance,
    )


def generator(seed: int) -> Generator:
    """A seeded CPU generator."""
    import torch

    return torch.Generator().manual_seed(seed)


def continuous_reaches_entropy() -> Finding:
    """In continuous time the best denoiser costs nothing above -log p(x), and nothing below."""
    return mean_within_error(0.0, excess(continuous(), source()[1]), largest_error=0.02)


def steps_reach_entropy() -> Finding:
    """So does it in 4,000 steps, of which 256 are drawn for each image."""
    return mean_within_error(0.0, excess(in_steps(4000, TERMS), source()[1]), largest_error=0.02)


def entropy() -> Finding:
    """The mean of the bound over images is the entropy, in bits per dimension."""
    pixels, images = source()
    bits = -continuous().log_likelihood.numpy() / (images[0].numel() * np.log(2))
    exact = -float(np.dot(WEIGHTS, np.log2(WEIGHTS)))
    return all_of(
        close(exact, pixels.entropy / np.log(2), relative=1e-12), mean_within_error(exact, bits, largest_error=0.06)
    )


def fewer_steps_cost_more() -> Finding:
    """Ten steps cost more than the source's entropy: a bound is a bound at any number of steps."""
    costs = excess(in_steps(10, 10), source()[1])
    error = costs.std(ddof=1) / np.sqrt(N)
    return at_least(0.05, costs.mean() - 4 * error, note=f"{costs.mean():.3f} bits/dim above the entropy")


def other_source_costs_the_divergence() -> Finding:
    """The best denoiser of another source q costs -log q(x): the bound is that of q, and above p's entropy."""
    import torch

    from models.diffusion.oracles import IndependentPixels

    pmf = torch.zeros(256, dtype=torch.float64)
    pmf[list(LEVELS)] = 1 / len(LEVELS)
    divergence = np.log2(len(LEVELS)) + float(np.dot(WEIGHTS, np.log2(WEIGHTS)))
    bound = continuous(IndependentPixels(pmf).denoise).log_likelihood.numpy()
    above = -bound / (np.prod(SHAPE) * np.log(2)) - np.log2(len(LEVELS))
    return mean_within_error(0.0, above, largest_error=0.02, note=f"KL(p || q) is {divergence:.3f} bits/dim")


def parameterisations() -> Finding:
    """Networks that predict eps, x_0 or v, written down from the best denoiser by hand, give one bound."""
    import torch

    from models.diffusion.parameterisation import denoiser_from

    pixels, _ = source()

    def network(prediction: Prediction) -> Network:
        def predict(x_t: Tensor, log_snr: Tensor) -> Tensor:
            alpha_bar, beta_bar = (torch.sigmoid(s * log_snr.double())[:, None, None, None] for s in (1, -1))
            x_t = x_t.double()
            x_0 = pixels.denoise(x_t / alpha_bar.sqrt(), (-log_snr.double() / 2).exp())
            eps = (x_t - alpha_bar.sqrt() * x_0) / beta_bar.sqrt()
            return {"x_0": x_0, "eps": eps, "v": alpha_bar.sqrt() * eps - beta_bar.sqrt() * x_0}[prediction]

        return predict

    expected = continuous().log_likelihood
    # the network's input passes through float32, as a network's does: 1e-7 of it, over sigma down to 0.002
    names: tuple[Prediction, ...] = ("eps", "x_0", "v")
    found = [continuous(denoiser_from(network(name), name)).log_likelihood for name in names]
    return largest_deviation(torch.stack([expected] * 3).numpy(), torch.stack(found).numpy(), relative=1e-3)


def best_denoiser() -> Finding:
    """The source's own denoiser: sum_k p(k) N(x; k, sigma²) k / sum_k p(k) N(x; k, sigma²) with SciPy."""
    import torch
    from scipy.stats import norm

    pixels, _ = source()
    x, sigma = np.random.default_rng(3).normal(size=(20, 1, 1, 1)), np.geomspace(0.3, 50, 20)
    levels = np.array(LEVELS) / 127.5 - 1
    joint = np.array(WEIGHTS) * norm.pdf(x.reshape(20, 1), levels, sigma[:, None])
    expected = (joint * levels).sum(1) / joint.sum(1)
    found = pixels.denoise(torch.from_numpy(x), torch.from_numpy(sigma)).flatten()
    return largest_deviation(expected, found.numpy(), absolute=1e-6)


def gaussian_kl(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> Tensor:
    """KL between normal laws of these means and variances, summed over the last axis."""
    from torch.distributions import Normal, kl_divergence

    return kl_divergence(Normal(m1, v1.sqrt()), Normal(m2, v2.sqrt())).sum(-1)


def one_step() -> Finding:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) from the means and both variances of p, with torch's divergence."""
    import torch

    from models.diffusion.bound import step_term

    g = generator(4)
    x_0, d, x_t = torch.randn(3, 7, 5, generator=g, dtype=torch.float64).unbind(0)
    s, t = torch.linspace(0.1, 3, 7).double(), torch.linspace(0.15, 7, 7).double()
    share = ((s / t) ** 2)[:, None]
    q_mean, p_mean = (share * x_t + (1 - share) * x for x in (x_0, d))
    posterior = (s**2 * (t**2 - s**2) / t**2)[:, None].expand(-1, 5)
    beta = ((1 + s**2) * (t**2 - s**2) / (1 + t**2))[:, None].expand(-1, 5)
    error = (x_0 - d).square().sum(1)
    expected = [gaussian_kl(q_mean, posterior, p_mean, v).numpy() for v in (posterior, beta)]
    found = [step_term(error, 5, s, t, "posterior").numpy(), step_term(error, 5, s, t, "beta").numpy()]
    return largest_deviation(expected, found, relative=1e-9)


def variances() -> Finding:
    """The larger variance of the steps costs more bits than that of the posterior, on the same draws."""
    _, images = source()
    posterior, beta = excess(in_steps(50, 50, "posterior"), images), excess(in_steps(50, 50, "beta"), images)
    return at_least(0.01, (beta - posterior).min(), note="bits/dim, the smallest of all images")


def prior() -> Finding:
    """KL(q(x_T | x_0) || p(x_T)) with torch's divergence."""
    import torch

    from models.base import to_float
    from models.diffusion.bound import prior_term

    x_0 = to_float(source()[1]).double()
    mean, variance = x_0.flatten(1), torch.tensor([5.0**2, 5.0**2 + 0.4], dtype=torch.float64)
    expected = gaussian_kl(mean, variance[0], torch.zeros_like(mean), variance[1])
    return largest_deviation(expected.numpy(), prior_term(x_0, 0.4, 5.0).numpy(), relative=1e-9)


def reconstruction() -> Finding:
    """The 256 levels' probabilities given a latent add up to one, and are those of SciPy's normal law."""
    import torch
    from scipy.special import log_softmax
    from scipy.stats import norm

    from models.base import to_float
    from models.diffusion.bound import reconstruction_term

    sigma, z = 0.01, np.array([-1.02, -0.3, 0.0, 0.402, 1.0])
    levels = torch.arange(256, dtype=torch.uint8).repeat(len(z)).reshape(-1, 1, 1, 1)
    grid = to_float(levels).double()
    eps = (torch.from_numpy(z).repeat_interleave(256).reshape(-1, 1, 1, 1) - grid) / sigma
    found = -reconstruction_term(levels, eps, sigma).numpy().reshape(len(z), 256)
    expected = log_softmax(norm.logpdf(z[:, None], np.arange(256) / 127.5 - 1, sigma), axis=1)
    return all_of(
        largest_deviation(np.ones(len(z)), np.exp(found).sum(1), absolute=1e-9),
        largest_deviation(np.exp(expected), np.exp(found), absolute=1e-5),  # levels are float32
    )


def parts_alone() -> Finding:
    """Prior and reconstruction of both bounds, each alone: torch's divergence, and an integral over the noise."""
    import torch

    from models.base import image_generators, to_float
    from models.diffusion.bound import discrete_bound, log_uniform_sigmas, variational_bound

    pixels, images = source()
    low, high = 0.004, 3.0
    bounds = [
        variational_bound(
            pixels.denoise, images, image_generators(N, generator(5)), num_levels=2, prior_variance=0.3, sigma_min=low,
            sigma_max=high,
        ),
        discrete_bound(
            pixels.denoise, images, image_generators(N, generator(6)), sigmas=log_uniform_sigmas(4, low, high),
            num_terms=4, prior_variance=0.3,
        ),
    ]
    x_0 = to_float(images).double().flatten(1)
    variance = torch.tensor([high**2, high**2 + 0.3], dtype=torch.float64)
    prior = -gaussian_kl(x_0, variance[0], torch.zeros_like(x_0), variance[1]).numpy()
    eps = np.linspace(-8, 8, 4001)
    weights = np.exp(-0.5 * eps**2) / np.exp(-0.5 * eps**2).sum()
    levels = np.arange(256)
    cost = {}
    for k in LEVELS:  # of a pixel of this level: E -log softmax
        distance = (eps[:, None] + (k - levels) / 127.5 / low) ** 2 / 2
        cost[k] = float(weights @ (np.log(np.exp(eps[:, None] ** 2 / 2 - distance).sum(1))))
    expected = -np.array([sum(cost[int(level)] for level in image.flatten()) for image in images])
    found = [largest_deviation(prior, bound.parts["prior"].numpy(), relative=1e-6) for bound in bounds]
    for bound in bounds:
        total = sum(part.numpy() for part in bound.parts.values())
        rest = bound.parts["reconstruction"].numpy() - expected
        found.append(largest_deviation(total, bound.log_likelihood.numpy(), relative=1e-12))
        found.append(mean_within_error(0.0, rest, largest_error=0.03 * float(-expected.mean())))
    return all_of(*found)


def definitions() -> Finding:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) eps and v = sqrt(a) eps - sqrt(1 - a) x_0, there and back, for a network too."""
    import torch

    from models.diffusion.parameterisation import (
        alpha_bar_from_sigma,
        denoiser_from,
        from_x_0,
        network_from,
        sigma_from_alpha_bar,
        to_x_0,
    )

    x_0, eps = torch.randn(2, 6, 1, 2, 2, generator=generator(7), dtype=torch.float64)
    a = torch.linspace(0.02, 0.97, 6, dtype=torch.float64)
    signal, noise = (w.sqrt()[:, None, None, None] for w in (a, 1 - a))
    x_t, sigma = signal * x_0 + noise * eps, (noise / signal).flatten()
    x = x_0 + sigma[:, None, None, None] * eps
    said: dict[Prediction, Tensor] = {"eps": eps, "x_0": x_0, "v": signal * eps - noise * x_0}
    pairs = [(sigma, sigma_from_alpha_bar(a)), (a, alpha_bar_from_sigma(sigma))]
    log_snr = (a / (1 - a)).log()
    for name, output in said.items():
        network = network_from(lambda x, sigma: x_0, name)
        pairs += [(output, from_x_0(x_0, x, sigma, name)), (x_0, to_x_0(output, x, sigma, name))]
        pairs += [(output, network(x_t, log_snr))]
    seen: list[tuple[Tensor, Tensor]] = []

    def shrink(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((x, sigma))
        return x / (1 + sigma.square())[:, None, None, None]

    for name in said:
        pairs += [(shrink(x, sigma), denoiser_from(network_from(shrink, name), name)(x, sigma))]
    pairs += [(x, asked[0]) for asked in seen] + [(sigma, asked[1]) for asked in seen]
    return all_of(*(largest_deviation(one.numpy(), other.numpy(), absolute=1e-9) for one, other in pairs))


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("VDM bound reaches the source", continuous_reaches_entropy),
        ("DDPM bound reaches the source", steps_reach_entropy),
        ("VDM bound is the entropy", entropy),
        ("DDPM bound in ten steps is above", fewer_steps_cost_more),
        ("VDM bound of another source", other_source_costs_the_divergence),
        ("eps, x_0 and v have one bound", parameterisations),
        ("best denoiser vs SciPy", best_denoiser),
        ("one DDPM step in closed form", one_step),
        ("variance of the DDPM steps", variances),
        ("prior term in closed form", prior),
        ("reconstruction sums to 1", reconstruction),
        ("prior and reconstruction alone", parts_alone),
        ("eps, x_0 and v by definition", definitions),
    )
)
