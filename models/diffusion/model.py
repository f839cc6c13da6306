"""Diffusion: a denoiser trained on every noise level, sampled by walking from static to picture.

Karras et al. 2022 (arXiv:2206.00364). Labels are dropped for a tenth of the images, so that one
network knows p(x | label) for sampling and p(x) for the likelihood bound.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from models.base import (
    GenerativeModel,
    LikelihoodBound,
    Samples,
    SelfCheck,
    Stage,
    drop_labels,
    image_generators,
    normal_noise,
    own_rows,
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
from models.diffusion.edm import Denoiser, c_in, draw_log_sigma, edm_loss
from models.diffusion.ode import check_tolerance, ode_log_likelihood
from models.diffusion.samplers import heun, karras_sigmas

BOUND_LEVELS = 32  # network evaluations of a variational bound, one in each stratum of noise levels
BOUND_STEPS = 1000  # T of the discrete bound
EXACT_TRACE_DIMENSIONS = 32  # a vector-Jacobian product per dimension costs too much above
ODE_PROBES = 4
ODE_TOLERANCE = 1e-4  # of every step; 1e-3 costs a quarter and errs by some 0.006 bits per dimension
ODE_CHECKED = 2  # images that are integrated again


class DenoiserStage(Stage):
    """Denoising score matching with the EDM loss."""

    name = "denoiser"

    def __init__(self, network: Denoiser, *, num_classes: int, label_dropout: float, **training: Any) -> None:
        super().__init__(network, **training)
        self.num_classes = num_classes
        self.label_dropout = label_dropout

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x_0 = to_float(batch["image"])
        labels = drop_labels(batch["label"], self.num_classes, self.label_dropout)
        log_sigma = own_rows(lambda n: draw_log_sigma(n, x_0.device), len(x_0))
        eps = own_rows(lambda n: torch.randn(n, *x_0.shape[1:], device=x_0.device), len(x_0))
        loss = edm_loss(self.network, x_0, labels, log_sigma, eps)
        self.log("loss", loss)
        return loss


class Diffusion(GenerativeModel):
    """EDM with Heun sampling."""

    has_trajectory = True
    likelihood_kinds = ("elbo", "elbo_discrete", "ode")
    slow_likelihood_kinds = ("ode",)

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        width: int,
        blocks: int,
        patch_size: int,
        sigma_data: float,
        batch_size: int,
        lr: float,
        ema_half_life: float,
        label_dropout: float,
        num_steps: int,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.sampler = f"heun, {num_steps} steps"
        self.denoiser = Denoiser(
            image_shape, num_classes, width=width, blocks=blocks, patch_size=patch_size, sigma_data=sigma_data
        ).to(memory_format=torch.channels_last)

    def stages(self) -> list[Stage]:
        h = self.hparams
        return [
            DenoiserStage(
                self.denoiser, num_classes=self.num_classes, label_dropout=h.label_dropout,
                batch_size=h.batch_size, lr=h.lr, ema_half_life=h.ema_half_life,
            )
        ]

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
        trajectory: bool = False,
    ) -> Samples:
        """Contract of ``GenerativeModel.sample``.

        Args:
            num_steps: Heun steps (default: the trained preset's); NFE is 2 * num_steps - 1.
            trajectory: Also return the state after every step, the pure noise first.
        """
        labels = self.labels_or_null(n, condition)
        sigmas = karras_sigmas(self.hparams.num_steps if num_steps is None else num_steps)
        x = normal_noise(self.image_shape, image_generators(n, generator)).to(self.device) * float(sigmas[0])
        final, nfe, states = heun(lambda y, sigma: self.denoiser(y, sigma, labels), x, sigmas)
        path = None
        if trajectory:  # every state is shown at the scale of the data, so that static looks grey
            scales = (c_in(sigmas, self.hparams.sigma_data) * self.hparams.sigma_data).tolist()
            path = torch.stack([to_uint8(s * scale) for s, scale in zip([x, *states], scales, strict=True)])
        return Samples(to_uint8(final), nfe, path)

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
        images, variance = images.to(self.device), self.hparams.sigma_data**2
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
            return discrete_bound(
                self.denoise_unlabelled, images, generators, sigmas=log_uniform_sigmas(BOUND_STEPS),
                num_terms=BOUND_LEVELS * effort, prior_variance=variance, variance="posterior",
            )

    def denoise_unlabelled(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, sigma) of the network without a label, (B, C, H, W), for sigma (B,)."""
        return self.denoiser(x, sigma, self.labels_or_null(len(x), None))

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
