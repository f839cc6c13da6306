"""Diffusion: a denoiser trained on every noise level, sampled by walking from static to picture.

Karras et al. 2022 (arXiv:2206.00364). Labels are dropped for a tenth of the images, so that one
network knows p(x | label) for sampling and p(x) for the likelihood bound.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from models.base import Stage, own_rows
from models.diffusion.edm import (
    P_MEAN,
    P_STD,
    SIGMA_MAX,
    SIGMA_MIN,
    UNIFORM_SHARE,
    Denoiser,
    draw_log_sigma,
    edm_losses,
)
from models.diffusion.family import DiffusionFamily
from models.diffusion.proposal import LearnedProposal, bin_masses
from models.diffusion.stage import DenoisingStage


class EDMStage(DenoisingStage):
    """Denoising score matching with the EDM loss, on noise levels of a fixed law or of one that is learned."""

    def __init__(self, network: Denoiser, *, proposal: str, **options: Any) -> None:
        super().__init__(network, **options)
        log_min, log_max = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
        given = bin_masses(log_min, log_max, P_MEAN, P_STD, UNIFORM_SHARE)
        self.proposal = LearnedProposal(log_min, log_max, given) if proposal == "learned" else None

    def loss(self, x_0: Tensor, labels: Tensor, eps: Tensor, augmented: Tensor | None) -> Tensor:
        if self.proposal is None:
            log_sigma = own_rows(lambda n: draw_log_sigma(n, x_0.device), len(x_0))
            return edm_losses(self.network, x_0, labels, log_sigma, eps, augmented).mean()
        proposal = self.proposal
        drawn = own_rows(lambda n: torch.stack(proposal.draw(n), dim=1), len(x_0))  # (B, 2)
        losses = edm_losses(self.network, x_0, labels, drawn[:, 0], eps, augmented)
        proposal.learn(drawn[:, 0], losses.detach())
        return (drawn[:, 1] * losses).mean()


class Diffusion(DiffusionFamily):
    """EDM."""

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        width: int,
        blocks: int,
        patch_size: int,
        batch_size: int,
        lr: float,
        ema_half_life: float,
        label_dropout: float,
        augment: float,
        proposal: str,
        fourier: bool,
        num_steps: int,
        sampler: str,
        guidance_scale: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settle(Denoiser(
            image_shape, num_classes, width=width, blocks=blocks, patch_size=patch_size, augmented=augment > 0,
            fourier=fourier,
        ))

    def stages(self) -> list[Stage]:
        return [EDMStage(self.denoiser, proposal=self.hparams.proposal, **self.stage_options())]

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return self.denoiser(x, sigma, labels)
