"""Annealed importance sampling against exact integrals, and the observation model against its sum.

Neal 2001 (physics/9803008), Grosse et al. 2015 (arXiv:1511.02543): on simulated data the exact
log p(x) lies between the forward and the reverse estimate, which meet as temperatures are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.selftest.base import (
    Check,
    Finding,
    all_of,
    at_least,
    close,
    largest_deviation,
    mean_within_error,
    within,
)

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from models.gan import ais
    from models.gan.likelihood import Density
    from models.gan.oracles import LinearGaussian

GROUP = "gan"


def generators(n: int, seed: int) -> list[Generator]:
    """One generator per image."""
    import torch

    return [torch.Generator().manual_seed(1000 * seed + i) for i in range(n)]


def tuned(target: ais.Target, rows: int, temperatures: int) -> ais.Ladder:
    """A ladder tuned on draws of its own."""
    from models.gan import ais

    ladder, _ = ais.tune(
        target, ais.sigmoid_schedule(40), leapfrog_steps=3, class_every=2, chains=8, generators=generators(rows, 9)
    )
    return ais.stretched(ladder, temperatures)


def linear_decoder() -> Finding:
    """Forward <= exact <= reverse for x = W z + b + noise, but for their errors, and both near."""
    import torch

    from models.gan import ais
    from models.gan.oracles import LinearGaussian

    g = torch.Generator().manual_seed(0)
    n, chains = 24, 32
    weight, bias = torch.randn(6, 3, generator=g).double(), torch.randn(6, generator=g).double()
    decoder = LinearGaussian(weight, bias, sigma=0.7)
    z, x = decoder.simulate(n, g)
    exact = decoder.log_prob(x)
    ladder = tuned(decoder.target(x, 8), n, 250)
    target = decoder.target(x, chains)
    forward = ais.forward(target, ladder, chains=chains, generators=generators(n, 1))
    start = torch.zeros(n, dtype=torch.int64)
    reverse = ais.reverse(target, ladder, z, start, chains=chains, generators=generators(n, 2))
    low = (ais.lower_bound(forward.log_weights) - exact).numpy()
    high = (ais.upper_bound(reverse.log_weights) - exact).numpy()
    note = f"forward {low.mean():+.3f}, reverse {high.mean():+.3f} nats from the exact value"
    low_error, high_error = (float(3 * side.std() / np.sqrt(n)) for side in (low, high))
    return all_of(
        within(-0.2, low.mean(), low_error, note), within(-high_error, high.mean(), 0.2, note),
        at_least(0.0, high.mean() - low.mean(), note),
    )


def linear_decoder_value() -> Finding:
    """log N(x; b, W Wᵀ + sigma² I) as SciPy computes it."""
    import torch
    from scipy.stats import multivariate_normal

    from models.gan.oracles import linear_gaussian_log_prob

    rng = np.random.default_rng(1)
    w, b, x = rng.normal(size=(5, 2)), rng.normal(size=5), rng.normal(size=(7, 5))
    expected = multivariate_normal(b, w @ w.T + 0.09 * np.eye(5)).logpdf(x)
    got = linear_gaussian_log_prob(torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b), 0.3)
    return largest_deviation(expected, got.numpy(), relative=1e-9)


def few_temperatures() -> tuple[LinearGaussian, ais.Ladder]:
    """A decoder with one latent dimension, and a ladder so coarse that the Metropolis test must earn its keep."""
    import torch

    from models.gan import ais
    from models.gan.oracles import LinearGaussian

    decoder = LinearGaussian(torch.tensor([[1.0], [0.5]]).double(), torch.tensor([0.3, -0.2]).double(), sigma=0.7)
    steps = torch.full((7, 1), 0.7, dtype=torch.float64)
    return decoder, ais.Ladder(ais.sigmoid_schedule(6), steps, leapfrog_steps=2, class_every=1)


def forward_is_unbiased() -> Finding:
    """The forward weights of few temperatures are wild, but their mean is p(x)."""
    import torch

    from models.gan import ais

    decoder, ladder = few_temperatures()
    _, x = decoder.simulate(4, torch.Generator().manual_seed(3))
    run = ais.forward(decoder.target(x, 6000), ladder, chains=6000, generators=generators(4, 4))
    ratios = torch.exp(run.log_weights - decoder.log_prob(x)[:, None])
    return mean_within_error(1.0, ratios.flatten().numpy(), largest_error=0.02)


def reverse_is_unbiased() -> Finding:
    """From exact posterior samples, the mean of the reverse weights is 1 / p(x)."""
    import torch

    from models.gan import ais

    decoder, ladder = few_temperatures()
    g = torch.Generator().manual_seed(5)
    z, x = decoder.simulate(3000, g)  # z is a posterior sample given x
    start = torch.zeros(len(x), dtype=torch.int64)
    run = ais.reverse(decoder.target(x, 1), ladder, z, start, chains=1, generators=generators(len(x), 6))
    inverse = torch.exp(run.log_weights.flatten() + decoder.log_prob(x))
    return mean_within_error(1.0, inverse.numpy(), largest_error=0.03)


def levels_sum_to_one() -> Finding:
    """The discretised Gaussian's 256 masses add up to one, for means far outside and spreads of all sizes."""
    total = observation_masses().sum(0)
    return largest_deviation(np.ones_like(total), total, absolute=1e-12)


MEANS = np.array([-7.0, -1.0, -0.31, 0.0, 0.999, 1.2])
SIGMAS = (0.002, 0.05, 0.5, 4.0)


def observation_masses() -> np.ndarray:
    """Masses (256, len(SIGMAS), len(MEANS))."""
    import torch

    from models.gan.likelihood import discretized_normal_log_prob

    levels = torch.arange(256, dtype=torch.uint8)[:, None].expand(-1, len(MEANS))
    means = torch.from_numpy(MEANS).expand(256, -1)
    return np.stack([discretized_normal_log_prob(levels, means, s).exp().numpy() for s in SIGMAS], axis=1)


def observation_vs_scipy() -> Finding:
    """Differences of SciPy's distribution function between the edges of the bins."""
    from scipy.stats import norm

    edges = np.concatenate([[-np.inf], (np.arange(1, 256) - 0.5) / 127.5 - 1, [np.inf]])
    cdf = norm.cdf((edges[:, None, None] - MEANS) / np.array(SIGMAS)[:, None])
    return largest_deviation(np.diff(cdf, axis=0), observation_masses(), absolute=1e-12)


def tails_do_not_vanish() -> Finding:
    """A pixel 60 standard deviations away still has its log-probability, by SciPy's logarithms of tails."""
    import torch
    from scipy.stats import norm

    from models.gan.likelihood import discretized_normal_log_prob

    sigma, level = 0.02, torch.tensor([205], dtype=torch.uint8)
    a, b = ((205 + s) / 127.5 - 1 + 0.6 for s in (-0.5, 0.5))
    expected = norm.logsf(a / sigma) + np.log1p(-np.exp(norm.logsf(b / sigma) - norm.logsf(a / sigma)))
    got = discretized_normal_log_prob(level, torch.tensor([-0.6], dtype=torch.float64), sigma)
    return close(expected, got[0], relative=1e-9)


def curved_density(sigma: float = 0.25) -> Density:
    """Four pixels from one latent dimension and three classes."""
    import torch

    from models.gan.likelihood import Density

    def decode(z: Tensor, classes: Tensor) -> Tensor:
        height = 0.6 * torch.tanh(z[:, 0]) + 0.3 * (classes - 1)
        return torch.stack([height, -height, 0.5 * height, height**2], 1).reshape(-1, 1, 2, 2)

    return Density(decode, latent_dim=1, num_classes=3, sigma=sigma)


def integrals(density: Density, images: Tensor) -> np.ndarray:
    """log p(x) on a fine grid of z, labels summed out, (N,)."""
    import torch

    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    prior = -0.5 * grid**2 - 0.5 * np.log(2 * np.pi) + np.log(float(grid[1] - grid[0])) - np.log(3)
    exact = []
    for image in images:
        target = density.target(image[None], len(grid))
        each = [target.log_likelihood(grid[:, None], torch.full((len(grid),), c)) for c in range(3)]
        exact.append(float((torch.stack(each) + prior).logsumexp((0, 1))))
    return np.array(exact)


def by_quadrature() -> Finding:
    """A one-dimensional latent and three classes: the integral on a fine grid, labels summed out."""
    import torch

    from models.base import image_generators
    from models.gan import ais

    density, chains = curved_density(), 64
    _, _, images = density.simulate(image_generators(6, torch.Generator().manual_seed(6)))
    ladder = tuned(density.target(images, 8), len(images), 120)
    run = ais.forward(density.target(images, chains), ladder, chains=chains, generators=generators(6, 7))
    difference = ais.lower_bound(run.log_weights).numpy() - integrals(density, images)
    return close(0.0, difference.mean(), absolute=0.05, note="nats from the integral, mean of 6 images")


def recorded() -> Finding:
    """The estimate as it is recorded, four chains of 400 temperatures: near the integrals of eight images."""
    import torch

    from models.base import image_generators
    from models.gan.likelihood import estimate

    density = curved_density()
    _, _, images = density.simulate(image_generators(8, torch.Generator().manual_seed(8)))
    found = estimate(density, images, generators(8, 8))
    difference = found.log_likelihood.numpy() - integrals(density, images)
    return all_of(
        within(0.5, found.acceptance.mean(), 0.8, "acceptance of the transitions"),
        close(0.0, difference.mean(), absolute=0.2, note="nats from the integral, mean of 8"),
    )


def in_blocks() -> Finding:
    """Eleven images in blocks of eight: all in order with their own generators, and copies at the end."""
    import torch

    from models.gan.likelihood import blocks

    own, rows, real = generators(11, 15), torch.arange(11), []
    seen: list[float] = []
    first: list[bool] = []
    for count, theirs, (block,) in blocks(own, rows):
        real.append(count)
        seen += block.tolist()
        first += [a is b for a, b in zip(theirs[:count], own[8 * (len(real) - 1) :], strict=False)]
    return all_of(
        largest_deviation([8, 3], real, absolute=0), largest_deviation(np.ones(11), first, absolute=0),
        largest_deviation([*range(11), *[10] * 5], seen, absolute=0),
    )


def sandwich_of_simulated() -> Finding:
    """Both directions on images of the model's own: the gap is small and not below zero, with its error."""
    import torch

    from models.gan.likelihood import sandwich

    found = sandwich(curved_density(), 8, torch.Generator().manual_seed(9))
    gaps = (found.upper - found.lower).numpy()
    return all_of(
        close(gaps.std(ddof=1) / np.sqrt(8), found.error, relative=1e-9),
        close(gaps.mean(), found.gap, relative=1e-9),
        within(-3 * found.error, found.gap, 0.15, "nats"),
    )


def calibration() -> Finding:
    """The noise chosen on images is the one whose exact bits are fewest, and the sweep is near the exact values."""
    import torch

    from models.base import image_generators
    from models.gan.likelihood import calibrate

    _, _, images = curved_density(0.28).simulate(image_generators(8, torch.Generator().manual_seed(10)))
    found = calibrate(curved_density(), images, torch.Generator().manual_seed(11))
    exact = {s: -integrals(curved_density(s), images).mean() / (4 * np.log(2)) for s in found.sweep}
    return all_of(
        largest_deviation(list(exact.values()), list(found.sweep.values()), absolute=0.25),
        close(min(exact, key=lambda s: float(exact[s])), found.sigma, absolute=0),
    )


def leapfrog() -> Finding:
    """Energy errs by the third power of the step where trajectories have so many steps, whatever the temperature."""
    import torch

    from models.gan import ais
    from models.gan.oracles import LinearGaussian

    g = torch.Generator().manual_seed(12)
    decoder = LinearGaussian(torch.randn(4, 2, generator=g).double(), torch.zeros(4).double(), sigma=0.5)
    _, x = decoder.simulate(2, g)
    target = decoder.target(x, 500)
    start = ais._from_prior(target, 500, generators(2, 13))
    errors = []
    for step in (0.002, 0.001):
        ladder = ais.Ladder(torch.tensor([0.0, 0.6, 1.0]).double(), torch.full((3, 1), step).double(), 3, 1)
        _, acceptance = ais._hamiltonian(target, ladder, start, 1, ladder.step_sizes[1], generators(2, 14))
        errors.append(float(-acceptance.log().mean()))
    return within(7.0, errors[0] / errors[1], 9.0, f"ratio of the mean errors {errors[0]:.2g} and {errors[1]:.2g}")


def ladders() -> Finding:
    """Temperatures by SciPy's sigmoid; a longer ladder has NumPy's interpolation of the logarithms of its steps."""
    import torch
    from scipy.special import expit

    from models.gan import ais

    raw = expit(4 * np.linspace(-1, 1, 26))
    sizes = np.random.default_rng(7).uniform(0.1, 2, size=(11, 3))
    ladder = ais.stretched(ais.Ladder(ais.sigmoid_schedule(10), torch.from_numpy(sizes), 2, 3), 25)
    places = np.linspace(0, 1, 26), np.linspace(0, 1, 11)
    expected = np.exp(np.stack([np.interp(*places, column) for column in np.log(sizes).T], axis=1))
    return all_of(
        largest_deviation((raw - raw[0]) / (raw[-1] - raw[0]), ladder.betas.numpy(), absolute=1e-12),
        largest_deviation(expected, ladder.step_sizes.numpy(), relative=1e-9),
    )


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("linear decoder in closed form", linear_decoder_value),
        ("AIS sandwich on a linear decoder", linear_decoder),
        ("AIS forward weights are unbiased", forward_is_unbiased),
        ("AIS reverse weights are unbiased", reverse_is_unbiased),
        ("AIS with classes by quadrature", by_quadrature),
        ("discretised Gaussian sums to 1", levels_sum_to_one),
        ("discretised Gaussian vs SciPy", observation_vs_scipy),
        ("discretised Gaussian in the tails", tails_do_not_vanish),
        ("estimate by quadrature", recorded),
        ("images in blocks", in_blocks),
        ("sandwich of simulated images", sandwich_of_simulated),
        ("calibration by quadrature", calibration),
        ("leapfrog conserves energy", leapfrog),
        ("temperatures and stretched ladders", ladders),
    )
)
