"""The GAN as a density over uint8 images: a discretised Gaussian around what the generator makes.

p(x) = 1/C sum_c int N(z; 0, I) prod_i P(x_i | G(z, c)_i, sigma) dz, with P the mass that a Gaussian has
in a level's bin and the outermost bins reaching to infinity: a probability mass function, whose bits
may be held against an entropy. Estimated by annealed importance sampling, Wu et al. 2017
(arXiv:1611.04273); sigma is chosen on validation images, as they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from models.base import image_generators, normal_noise
from models.gan import ais

HALF_BIN = 1 / 255
SIGMAS = (0.05, 0.08, 0.12, 0.18, 0.28, 0.42, 0.65, 1.0)  # tried on validation images; images span 2
DEFAULT_SIGMA = 0.28
FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0)  # of the sigma in force, for a closer look around it
CHAINS = 4
TEMPERATURES = 1000
TUNING_TEMPERATURES = 100
CALIBRATION_IMAGES = 8
LEAPFROG_STEPS = 4
CLASS_EVERY = 5
IMAGES_AT_ONCE = 8  # always as many, so that an image's arithmetic does not depend on its batch


def discretized_normal_log_prob(images: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """log of the mass of N(mean, sigma^2) in each pixel's bin, in nats, float64, any shape.

    A bin's edges a < b are mirrored into the lower tail, where log(Phi(b) - Phi(a)) =
    log Phi(b) + log(1 - Phi(a) / Phi(b)) loses no digits; the outermost bins reach to infinity.

    Args:
        images: uint8 levels.
        mean: Means in units of [-1, 1], unbounded, of the same shape.
        sigma: Standard deviation in the same units, > 0.
    """
    distance = images.double() / 127.5 - 1 - mean.double()
    low, high = (distance - HALF_BIN) / sigma, (distance + HALF_BIN) / sigma
    end = (images == 0) | (images == 255)
    mirrored = torch.where(end, images == 255, low + high > 0)
    a, b = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    log_b = torch.special.log_ndtr(b)
    log_ratio = torch.special.log_ndtr(torch.where(end, b - 1, a)) - log_b  # the ends have no a
    return log_b + torch.where(end, 0.0, torch.log(-torch.expm1(log_ratio)))


def simulate_levels(mean: Tensor, sigma: float, eps: Tensor) -> Tensor:
    """uint8 images drawn from the discretised Gaussian with standard normal noise ``eps``, of the mean's shape."""
    return ((mean.double() + sigma * eps.double() + 1) * 127.5).round().clip(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Density:
    """A generator z (B, d), classes (B,) -> means (B, C, H, W), together with its observation noise."""

    generator: Callable[[Tensor, Tensor], Tensor]
    latent_dim: int
    num_classes: int
    sigma: float
    device: torch.device | str = "cpu"

    def target(self, images: Tensor, chains: int) -> ais.Target:
        """The joint density that annealing runs on, for uint8 images (N, C, H, W) and so many chains each."""
        rows = images.to(self.device).repeat_interleave(chains, 0)

        def log_likelihood(z: Tensor, classes: Tensor) -> Tensor:
            return discretized_normal_log_prob(rows, self.generator(z, classes), self.sigma).flatten(1).sum(1)

        return ais.Target(log_likelihood, self.latent_dim, self.num_classes, device=self.device)

    def simulate(self, generators: list[torch.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        """Exact draws of (z, class, uint8 image), one per generator."""
        z = normal_noise((self.latent_dim,), generators).to(self.device)
        drawn = [torch.randint(self.num_classes, (), generator=g) for g in generators]
        classes = torch.stack(drawn).to(self.device)
        with torch.no_grad():
            mean = self.generator(z, classes)
        eps = normal_noise(tuple(mean.shape[1:]), generators).to(self.device)
        return z, classes, simulate_levels(mean, self.sigma, eps)


@dataclass(frozen=True)
class Calibration:
    """Observation noise, and the validation bits/dim of every sigma tried (none: the default was taken)."""

    sigma: float = DEFAULT_SIGMA
    sweep: dict[float, float] = field(default_factory=dict)

    def settings(self) -> dict[str, float | str]:
        """What a likelihood's ``settings`` say of it."""
        chosen = "the best on validation images" if self.sweep else "the default, not calibrated"
        tried = ", ".join(f"{bits:.2f} at {sigma:g}" for sigma, bits in self.sweep.items())
        return {"sigma": self.sigma, "sigma is": chosen} | ({"validation bits/dim by sigma": tried} if tried else {})

    def tried(self) -> dict[str, dict[float, float]]:
        """What a likelihood's ``tried`` says of it; a sigma without a finite number is left out."""
        finite = {sigma: bits for sigma, bits in self.sweep.items() if math.isfinite(bits)}
        return {"sigma": finite} if finite else {}


@dataclass(frozen=True)
class Estimate:
    """Lower bounds on log p(x) in nats and mean acceptances of the transitions, float64 (N,) each."""

    log_likelihood: Tensor
    acceptance: Tensor


@dataclass(frozen=True)
class Sandwich:
    """Bounds on log p(x) in nats of simulated images, float64 (N,): lower <= log p(x) <= upper on average."""

    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> float:
        """Mean of upper - lower, in nats."""
        return float((self.upper - self.lower).mean())

    @property
    def error(self) -> float:
        """Standard error of the gap."""
        return float((self.upper - self.lower).std() / math.sqrt(len(self.lower)))


def evaluations_per_image(num_classes: int) -> int:
    """Generator evaluations of one estimate, tuning included; one with its gradient counts as one."""
    lengths = (TUNING_TEMPERATURES, TEMPERATURES)
    ladders = [ais.Ladder(ais.sigmoid_schedule(n), torch.ones(n + 1, 1), LEAPFROG_STEPS, CLASS_EVERY) for n in lengths]
    chain = sum(ladder.evaluations(num_classes) for ladder in ladders) + ais.WARM_UP * LEAPFROG_STEPS + 1
    return CHAINS * chain


def estimate(density: Density, images: Tensor, generators: list[torch.Generator]) -> Estimate:
    """Lower bounds of uint8 images (N, C, H, W), each from its own generator only."""
    bounds, acceptances = [], []
    for real, own, (block,) in blocks(generators, images):
        target = density.target(block, CHAINS)
        run = ais.forward(target, tune(target, own).ladder, chains=CHAINS, generators=own)
        bounds.append(ais.lower_bound(run.log_weights)[:real].cpu())
        acceptances.append(run.acceptance[:real].cpu())
    return Estimate(torch.cat(bounds), torch.cat(acceptances))


def sandwich(density: Density, n: int, generator: torch.Generator) -> Sandwich:
    """Bidirectional Monte Carlo on n images simulated from the model itself; Grosse et al. 2015 (arXiv:1511.02543)."""
    simulated = density.simulate(image_generators(n, generator))
    lower, upper = [], []
    for real, own, (z, classes, block) in blocks(image_generators(n, generator), *simulated):
        target = density.target(block, CHAINS)
        ladder = tune(target, own).ladder
        down = ais.forward(target, ladder, chains=CHAINS, generators=own)
        up = ais.reverse(target, ladder, z, classes, chains=CHAINS, generators=own)
        lower.append(ais.lower_bound(down.log_weights)[:real].cpu())
        upper.append(ais.upper_bound(up.log_weights)[:real].cpu())
    return Sandwich(torch.cat(lower), torch.cat(upper))


def sigma_sweep(
    density: Density, images: Tensor, generator: torch.Generator, sigmas: Sequence[float] | None = None
) -> dict[float, float]:
    """bits/dim of the first few uint8 images (N, C, H, W) by observation noise, by annealing on short ladders.

    Those tried are ``SIGMAS`` unless others are given. All see the same images and the same noise, so that differences
    between them are surer than each number.

    Raises:
        ValueError: if there is no image, or a sigma is not above 0.
    """
    images, sigmas = images[:CALIBRATION_IMAGES], SIGMAS if sigmas is None else sigmas
    if len(images) == 0:
        raise ValueError("calibration needs at least one validation image")
    if not all(0 < sigma < math.inf for sigma in sigmas):
        raise ValueError(f"sigma must be a number above 0, not {', '.join(map(str, sigmas))}")
    seed, sweep = int(torch.randint(2**63 - 1, (), generator=generator)), {}
    for sigma in sigmas:
        generators = image_generators(len(images), torch.Generator().manual_seed(seed))
        candidate = replace(density, sigma=sigma)
        found = [
            tune(candidate.target(block, CHAINS), own).log_likelihood[:real]
            for real, own, (block,) in blocks(generators, images)
        ]
        sweep[sigma] = float(-torch.cat(found).mean() / (images[0].numel() * math.log(2)))
    return sweep


def calibrate(density: Density, images: Tensor, generator: torch.Generator) -> Calibration:
    """The sigma of ``SIGMAS`` with the fewest bits/dim on a few uint8 validation images."""
    sweep = sigma_sweep(density, images, generator)
    return Calibration(min(sweep, key=sweep.__getitem__), sweep)


@dataclass(frozen=True)
class Tuned:
    """A frozen ladder of full length, and the short ladder's lower bounds in nats, float64 (images,)."""

    ladder: ais.Ladder
    log_likelihood: Tensor


def tune(target: ais.Target, generators: list[torch.Generator]) -> Tuned:
    """Step sizes for each image, found on a short ladder with draws of their own."""
    short, run = ais.tune(
        target, ais.sigmoid_schedule(TUNING_TEMPERATURES), leapfrog_steps=LEAPFROG_STEPS,
        class_every=CLASS_EVERY, chains=CHAINS, generators=generators,
    )  # fmt: skip
    return Tuned(ais.stretched(short, TEMPERATURES), ais.lower_bound(run.log_weights))


def blocks(
    generators: list[torch.Generator], *columns: Tensor
) -> Iterator[tuple[int, list[torch.Generator], list[Tensor]]]:
    """Blocks of exactly ``IMAGES_AT_ONCE`` rows, the last filled up with copies; first, how many are real."""
    for start in range(0, len(generators), IMAGES_AT_ONCE):
        own = generators[start : start + IMAGES_AT_ONCE]
        rows = torch.arange(start, start + IMAGES_AT_ONCE).clamp(max=len(generators) - 1)
        filler = [torch.Generator().manual_seed(i) for i in range(IMAGES_AT_ONCE - len(own))]
        yield len(own), own + filler, [column[rows.to(column.device)] for column in columns]
