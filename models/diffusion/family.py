"""What all members of the diffusion family share: one denoiser view, every sampler, every bound.

A member says how its network is trained and what D(x_sigma, sigma, labels) it amounts to; sampling and the
likelihoods are the same for all, so that what differs between two rows of a table is the method.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from models.base import (
    Asked,
    GenerativeModel,
    LikelihoodBound,
    Profile,
    Samples,
    SelfCheck,
    Sweep,
    image_generators,
    normal_noise,
    to_float,
    to_uint8,
)
from models.diffusion.bound import (
    check_bound,
    discrete_bound,
    log_uniform_sigmas,
    normalisation_error,
    variational_bound,
)
from models.diffusion.editing import Task
from models.diffusion.guidance import Guidance, GuidedDenoiser, Threshold
from models.diffusion.network import NoiseConditionalUNet
from models.diffusion.ode import check_tolerance, ode_log_likelihood
from models.diffusion.profile import noise_level_profile
from models.diffusion.samplers import SamplerName, karras_sigmas, lowest_level, nobody, sampler_named
from models.diffusion.sweeps import SWEEP_OPTIONS, family_sweeps

BOUND_LEVELS = 32  # network evaluations of a variational bound, one in each stratum of noise levels
BOUND_STEPS = 1000  # T of the discrete bound
EXACT_TRACE_DIMENSIONS = 32  # a vector-Jacobian product per dimension costs too much above
ODE_PROBES = 4
ODE_TOLERANCE = 1e-4  # of every step; 1e-3 costs a quarter and errs by some 0.006 bits per dimension
ODE_CHECKED = 2  # images that are integrated again


class DiffusionFamily(GenerativeModel):
    """A model that is a denoiser at every noise level."""

    has_trajectory = True
    likelihood_kinds = ("elbo", "elbo_discrete", "ode")
    slow_likelihood_kinds = ("ode",)
    sweep_options = SWEEP_OPTIONS
    suited_samplers: tuple[SamplerName, ...] = ("heun", "ddim", "dpmpp_2m", "ancestral", "churn")

    denoiser: NoiseConditionalUNet  # what is trained and what sampling runs
    threshold: Threshold = "none"  # of every estimate of x_0, if none is asked for

    def settle(self, denoiser: NoiseConditionalUNet) -> None:
        """Take over the hyperparameters that all members have, and the network."""
        h = self.hparams
        self.image_shape = tuple(h.image_shape)
        self.num_classes = h.num_classes
        guided = "" if h.guidance_scale == 1 else f", guidance {h.guidance_scale:g}"
        self.sampler = f"{h.sampler}, {h.num_steps} steps{guided}"
        self.denoiser = denoiser.to(memory_format=torch.channels_last)

    def stage_options(self, **changes: Any) -> dict[str, Any]:
        """What a stage of the member is told, from the hyperparameters, with some of it changed."""
        names = ("label_dropout", "augment", "batch_size", "lr", "ema_half_life")
        given = {name: self.hparams[name] for name in names if name in self.hparams}
        return {"num_classes": self.num_classes} | given | changes

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x_sigma, sigma, labels): the estimate of x_0 (B, C, H, W); sigma (B,), labels int64 (B,)."""

    def noise_levels(self, num_steps: int) -> Tensor:
        """The member's own noise levels for a sampler, descending to 0, float64 (num_steps + 1,)."""
        return karras_sigmas(num_steps, lowest_level(num_steps))

    def sampler_options(self, name: str) -> dict[str, Any]:
        """What the member tells a sampler beyond the denoiser, the start and the levels."""
        return {}

    @property
    def prior_variance(self) -> float:
        """The data's variance about 0, which the prior at the highest noise level includes."""
        return float(self.denoiser.sigma_data) ** 2

    def measure(self, images: Tensor) -> None:
        self.denoiser.measure(images)

    def sampling_modules(self) -> list[nn.Module]:
        return [self.denoiser]

    @torch.inference_mode()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator,
        num_steps: int | None = None,
        sampler: SamplerName | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] = (0.0, math.inf),
        threshold: Threshold | None = None,
        eta: float = 0.0,
        image: Tensor | None = None,
        strength: float = 1.0,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
        trajectory: bool = False,
    ) -> Samples:
        """Contract of ``GenerativeModel.sample``.

        Args:
            num_steps: Steps, 1..1000 (default: the preset's).
            sampler: One of ``samplers.SAMPLERS`` (default: the preset's).
            guidance_scale: uncond + scale (cond - uncond); every mixed estimate costs two evaluations.
            guidance_interval: Noise levels between which guidance acts.
            threshold: "none", "static" or "dynamic" clipping of every estimate of x_0 (default: the member's).
            eta: Share of fresh noise of the sampler "ddim", in [0, 1].
            image: uint8 (n, C, H, W) to start from instead of noise alone, or whose pixels are known.
            strength: Share of the walk that an ``image`` without a mask is sent through, in (0, 1].
            mask: bool (H, W) or (n, 1, H, W), True where the pixels of ``image`` are kept.
            noise: Standard normal start, float32 (n, C, H, W), in place of the generator's.
            trajectory: Also return the state after every step, the start first.

        Raises:
            ValueError: if an option is out of range or does not go with another.
        """
        labels, generators = self.labels_or_null(n, condition), image_generators(n, generator)
        name, task = sampler or self.hparams.sampler, self.task(n, image, mask)
        walk, view = sampler_named(name), self.view(labels, guidance_scale, guidance_interval, threshold)
        steps = self.hparams.num_steps if num_steps is None else num_steps
        sigmas = task.levels(self.noise_levels(checked_steps(steps)), strength)
        x = task.start(self.start_noise(n, generators, noise), sigmas)
        options = self.sampler_options(name) | ({"eta": checked_eta(eta)} if name == "ddim" else {})
        states = [x]
        final = task.finish(walk(
            task.denoiser(view), x, sigmas, on_step=states.append if trajectory else nobody,
            noise=lambda: normal_noise(self.image_shape, generators).to(self.device), **options,
        ))
        path = self.shown([*states[:-1], final], sigmas) if trajectory else None
        return Samples(to_uint8(final), view.evaluations, path)

    def view(
        self, labels: Tensor, scale: float | None, interval: tuple[float, float], threshold: Threshold | None
    ) -> GuidedDenoiser:
        """The denoiser of some labels under guidance, with the preset's and the member's defaults."""
        scale = self.hparams.guidance_scale if scale is None else scale
        guidance = Guidance(scale, *interval, threshold or self.threshold)
        return GuidedDenoiser(self.denoise, labels, self.num_classes, guidance)

    def shown(self, states: list[Tensor], sigmas: Tensor) -> Tensor:
        """States (B, C, H, W) at their noise levels as uint8 (steps + 1, B, C, H, W), all at the scale of the data.

        Without noise the data have the variance ``prior_variance``, with it sigma^2 more: static looks grey.
        """
        variance = self.prior_variance
        scales = (variance / (variance + sigmas.square())).sqrt().tolist()
        return torch.stack([to_uint8(x * scale) for x, scale in zip(states, scales, strict=True)])

    def start_noise(self, n: int, generators: list[torch.Generator], noise: Tensor | None) -> Tensor:
        """Standard normal noise (n, C, H, W): the generators', or what is given."""
        drawn = normal_noise(self.image_shape, generators)  # in any case: what comes after must not depend on it
        if noise is None:
            return drawn.to(self.device)
        if noise.shape != drawn.shape or noise.dtype != torch.float32:
            raise ValueError(f"noise must be float32 {tuple(drawn.shape)}, not {noise.dtype} {tuple(noise.shape)}")
        return noise.to(self.device)

    def task(self, n: int, image: Tensor | None, mask: Tensor | None) -> Task:
        """What is given of the pictures: nothing, uint8 images (n, C, H, W), and a mask of what is kept of them."""
        if image is None:
            if mask is not None:
                raise ValueError("a mask needs the image whose pixels it keeps")
            return Task()
        self.check_images(image)
        if len(image) != n:
            raise ValueError(f"there must be as many images as samples, {n}, not {len(image)}")
        given = to_float(image).to(self.device)
        if mask is None:
            return Task(given)
        size = self.image_shape[1:]
        if mask.dtype != torch.bool or tuple(mask.shape) not in (size, (n, 1, *size)):
            raise ValueError(f"the mask must be bool {size} or {(n, 1, *size)}, not {mask.dtype} {tuple(mask.shape)}")
        return Task(given, mask.to(self.device))

    def sweeps(self, asked: Asked) -> tuple[Sweep, ...]:
        """Network evaluations of every sampler, and guidance with the preset's sampler and steps."""
        self.check_asked(asked)
        h = self.hparams
        return family_sweeps(
            asked, suited=self.suited_samplers, sampler=h.sampler, num_steps=h.num_steps,
            guidance_scale=h.guidance_scale,
        )

    # Likelihood.

    def profile(self, images: Tensor, *, generator: torch.Generator) -> Profile:
        return self.noise_level_profile(images, generator=generator)

    @torch.inference_mode()
    def noise_level_profile(
        self, images: Tensor, *, generator: torch.Generator, num_levels: int = BOUND_LEVELS
    ) -> Profile:
        """What each of ``num_levels`` strata of ln(sigma) adds to the bound "elbo" of uint8 images (N, C, H, W)."""
        self.check_images(images)
        return noise_level_profile(
            self.denoise_unlabelled, images.to(self.device), image_generators(len(images), generator),
            num_levels=num_levels, prior_variance=self.prior_variance,
        )

    def log_likelihood_bound(
        self, images: Tensor, *, generator: torch.Generator, kind: str | None = None
    ) -> LikelihoodBound:
        """Contract of ``GenerativeModel.log_likelihood_bound``.

        "elbo": continuous time; "elbo_discrete": T steps (both ``bound.py``); "ode": the density of the
        probability flow (``ode.py``).
        """
        kind = self.likelihood_kind(kind)
        self.check_images(images)
        return self.bound(images, image_generators(len(images), generator), kind)

    def bound(self, images: Tensor, generators: list[torch.Generator], kind: str, effort: int = 1) -> LikelihoodBound:
        """A kind of likelihood; ``effort`` multiplies the evaluations of the bounds, and divides tolerances."""
        images, variance = images.to(self.device), self.prior_variance
        if kind == "ode":
            small = math.prod(self.image_shape) <= EXACT_TRACE_DIMENSIONS
            return ode_log_likelihood(
                self.denoise_unlabelled, images, generators, trace="exact" if small else "hutchinson",
                probes=ODE_PROBES, rtol=ODE_TOLERANCE / effort, atol=ODE_TOLERANCE / effort, prior_variance=variance,
            )
        with torch.inference_mode():
            if kind == "elbo":
                return variational_bound(
                    self.denoise_unlabelled, images, generators, num_levels=BOUND_LEVELS * effort,
                    prior_variance=variance,
                )
            return self.chain_bound(images, generators, BOUND_LEVELS * effort)

    def chain_bound(self, images: Tensor, generators: list[torch.Generator], num_terms: int) -> LikelihoodBound:
        """The T-step bound of the member's own chain, from ``num_terms`` of its steps."""
        return discrete_bound(
            self.denoise_unlabelled, images, generators, sigmas=log_uniform_sigmas(BOUND_STEPS),
            num_terms=num_terms, prior_variance=self.prior_variance, variance="posterior",
        )

    def denoise_unlabelled(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, sigma) of the network without a label, (B, C, H, W), for sigma (B,)."""
        return self.denoise(x, sigma, self.labels_or_null(len(x), None))

    def check_likelihood(self, images: Tensor, *, kind: str, generator: torch.Generator) -> SelfCheck:
        """Bounds: four times the evaluations must agree within errors; ODE: a tenth of the tolerance, same noise."""
        kind = self.likelihood_kind(kind)
        self.check_images(images)
        dimensions = math.prod(self.image_shape)
        if kind == "ode":
            images, again = images[:ODE_CHECKED], generator.clone_state()
            loose = self.bound(images, image_generators(len(images), generator), kind)
            tight = self.bound(images, image_generators(len(images), again), kind, effort=10)
            return check_tolerance(loose, tight, dimensions)
        few = self.bound(images, image_generators(len(images), generator), kind)
        many = self.bound(images, image_generators(len(images), generator), kind, effort=4)
        return check_bound(few, many, dimensions, normalisation_error(generator))


def checked_steps(num_steps: int) -> int:
    """The number of steps, 1..1000; raises ``ValueError``."""
    if not 1 <= num_steps <= 1000:
        raise ValueError(f"num_steps must lie in 1..1000, not {num_steps}")
    return num_steps


def checked_eta(eta: float) -> float:
    """The share of fresh noise of DDIM, in [0, 1]; raises ``ValueError``."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], not {eta}")
    return eta
