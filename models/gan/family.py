"""What all adversarial models share: one evaluation makes an image, and annealing asks how likely a given one is.

The likelihood is that of a stated observation model around the generator (``models.gan.likelihood``), checked by
bidirectional Monte Carlo. A member brings generator, discriminator and the stage that trains them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.base import (
    Asked,
    GenerativeModel,
    LikelihoodBound,
    Samples,
    SelfCheck,
    Sweep,
    image_generators,
    normal_noise,
    to_uint8,
)
from models.gan.likelihood import (
    CHAINS,
    FACTORS,
    LEAPFROG_STEPS,
    TEMPERATURES,
    Calibration,
    Density,
    calibrate,
    estimate,
    evaluations_per_image,
    sandwich,
    sigma_sweep,
)
from models.gan.projection import Search, search
from models.gan.truncation import psi_sweep, truncated
from models.latents import Projection

CHECKED_IMAGES = 8
SEARCH = Search()  # how latents are sought unless it is said otherwise
MAX_GAP = 0.1  # bits/dim between the sandwich's bounds above which the estimate is not trusted


class AdversarialFamily(GenerativeModel):
    """A model whose generator turns a normal latent and a class into an image."""

    likelihood_kinds = ("ais",)
    slow_likelihood_kinds = ("ais",)
    sampler = "one generator evaluation"
    sweep_options = ("psi",)

    generator: nn.Module  # z (B, latent_dim), labels (B,) -> images (B, C, H, W)
    discriminator: nn.Module  # images (B, C, H, W), labels (B,) -> logits (B,)

    def settle(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Take over the hyperparameters that all members have, and the two networks."""
        self.image_shape = tuple(self.hparams.image_shape)
        self.num_classes = self.hparams.num_classes
        self.calibration = Calibration()
        self.generator = generator.to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(memory_format=torch.channels_last)

    def stage_options(self, *names: str) -> dict[str, Any]:
        """What a stage is told, from the hyperparameters: those of these names, and those that all members have."""
        shared = ("lr", "augment", "augment_probability", "ada_images")
        return {name: self.hparams[name] for name in (*names, *shared)}

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents (B, latent_dim) and labels (B,) to images (B, C, H, W).

        In evaluation mode whatever the mode is: with the statistics of a batch an image would depend on the others.
        """
        training = self.generator.training
        try:
            return self.generator.eval()(z, labels)
        finally:
            self.generator.train(training)

    def sampling_modules(self) -> list[nn.Module]:
        return [self.generator]

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.hparams.latent_dim,)

    @torch.inference_mode()
    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, psi: float = 1.0,
        noise: Tensor | None = None,
    ) -> Samples:
        """Contract of ``GenerativeModel.sample``; without labels, classes are drawn uniformly.

        Args:
            psi: Truncation, 0..3: every latent is that many times as far from the mean (``models.gan.truncation``).
            noise: Latents float32 (n, latent_dim), in place of the generator's.

        Raises:
            ValueError: if an option is out of range or of another shape.
        """
        labels = self.labels_or_null(n, condition)
        generators = image_generators(n, generator)
        z = normal_noise(self.noise_shape, generators)  # in any case: the classes must not depend on it
        if noise is not None:
            if noise.shape != z.shape or noise.dtype != z.dtype:
                raise ValueError(f"noise must be float32 {tuple(z.shape)}, not {noise.dtype} {tuple(noise.shape)}")
            z = noise
        z = truncated(z, psi).to(self.device)
        drawn = torch.stack([torch.randint(self.num_classes, (), generator=g) for g in generators]).to(self.device)
        labels = torch.where(labels == self.num_classes, drawn, labels)
        return Samples(to_uint8(self.decode(z, labels)), nfe=1)

    def sweeps(self, asked: Asked) -> tuple[Sweep, ...]:
        """Truncation."""
        self.check_asked(asked)
        return (psi_sweep(asked),)

    def project(
        self, images: Tensor, *, condition: Tensor | None = None, generator: torch.Generator,
        how: Search | None = None,
    ) -> Projection:
        """Contract of ``GenerativeModel.project``; without labels every class is tried and the best one kept.

        ``how`` is it sought (``models.gan.projection``); by default as ``SEARCH``.

        Raises:
            ValueError: if images or labels do not fit the model.
        """
        self.check_images(images)
        labels = None if condition is None else self.labels_or_null(len(images), condition)
        with torch.inference_mode(False), torch.enable_grad():
            found = search(
                self.decode, images.clone().to(self.device), labels if labels is None else labels.clone(),
                image_generators(len(images), generator), latent_dim=self.hparams.latent_dim,
                num_classes=self.num_classes, how=how or SEARCH,
            )
        with torch.inference_mode():
            back = to_uint8(self.decode(found.latents, found.classes))
        error = (images.to(self.device).double() - back.double()).flatten(1).square().mean(1).sqrt()
        return Projection(found.latents, found.classes, back, error)

    def density(self) -> Density:
        """The generator with the observation noise that is in force."""
        return Density(self.decode, self.hparams.latent_dim, self.num_classes, self.calibration.sigma, self.device)

    def calibrate_likelihood(self, images: Tensor, *, generator: torch.Generator) -> None:
        """Choose the observation noise on uint8 validation images (N, C, H, W), the first few of them."""
        self.check_images(images)
        with torch.inference_mode(False), torch.enable_grad():
            self.calibration = calibrate(self.density(), images.clone(), generator)

    def observation_sweep(
        self, images: Tensor, *, generator: torch.Generator, factors: Sequence[float] = FACTORS
    ) -> dict[float, float]:
        """bits/dim of the first uint8 images (N, C, H, W) by sigma, at ``factors`` times the one in force."""
        self.check_images(images)
        sigmas = [factor * self.calibration.sigma for factor in factors]
        with torch.inference_mode(False), torch.enable_grad():
            return sigma_sweep(self.density(), images.clone(), generator, sigmas)

    def log_likelihood_bound(
        self, images: Tensor, *, generator: torch.Generator, kind: str | None = None
    ) -> LikelihoodBound:
        """Annealed importance sampling under a discretised Gaussian observation model, classes summed out.

        Contract of ``GenerativeModel.log_likelihood_bound``; the bound is stochastic: it holds on average.
        """
        kind = self.likelihood_kind(kind)
        self.check_images(images)
        with torch.inference_mode(False), torch.enable_grad():
            found = estimate(self.density(), images.clone(), image_generators(len(images), generator))
        settings: dict[str, float | str] = {
            "chains": CHAINS, "temperatures": TEMPERATURES, "leapfrog steps": LEAPFROG_STEPS,
            "acceptance": float(found.acceptance.mean()),
        }  # fmt: skip
        nfe = torch.full((len(images),), float(evaluations_per_image(self.num_classes)), dtype=torch.float64)
        return LikelihoodBound(
            found.log_likelihood, kind, {kind: found.log_likelihood}, self.calibration.settings() | settings, nfe,
            self.calibration.tried(),
        )

    def check_likelihood(self, images: Tensor, *, kind: str, generator: torch.Generator) -> SelfCheck:
        """Bidirectional Monte Carlo on images simulated from the model itself; those given are not looked at."""
        self.likelihood_kind(kind)
        with torch.inference_mode(False), torch.enable_grad():
            found = sandwich(self.density(), CHECKED_IMAGES, generator)
        nats = math.prod(self.image_shape) * math.log(2)
        low, high = (-float(bound.mean()) / nats for bound in (found.upper, found.lower))
        text = (
            f"BDMC on {CHECKED_IMAGES} simulated images: between {low:.4f} and {high:.4f} bits/dim, "
            f"gap {found.gap:.2f} ± {found.error:.2f} nats ({found.gap / nats:.4f} bits/dim, at most {MAX_GAP} allowed)"
        )
        return SelfCheck(text, -3 * found.error <= found.gap <= MAX_GAP * nats)
