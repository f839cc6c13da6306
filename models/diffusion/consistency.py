"""Consistency model: one jump from static to picture, tuned from a diffusion model.

Song et al. 2023 (arXiv:2303.01469); easy consistency tuning of Geng et al. 2024 (arXiv:2406.14548): start from the
diffusion model, which is consistent for neighbouring noise levels that are far apart (r = 0), and let the
neighbours come closer while training. Both stages are in the budget: the teacher is a ``diffusion`` model.
Deviation: the distance between neighbours shrinks smoothly with the share of the budget, not in doublings.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.base import Stage, own_rows
from models.diffusion.edm import SIGMA_MAX, Denoiser, per_image
from models.diffusion.family import DiffusionFamily
from models.diffusion.model import EDMStage
from models.diffusion.stage import DenoisingStage

P_MEAN, P_STD = -1.1, 2.0  # ln(sigma) in tuning; Song and Dhariwal 2023 (arXiv:2310.14189), Geng et al. 2024, Table 5
RATIO_BASE = 2.0  # q: neighbours are 1 / q^stage apart
STAGES = 8.0  # over the budget; Geng et al. 2024, Sec. 3.2
SIGMOID_K, SIGMOID_B = 8.0, 1.0  # of the mapping function n(t)
MIDDLE_SIGMA = 0.821  # noise level of the second of two steps; Song and Dhariwal 2023, Sec. 4
LEAST_DISTANCE = 1e-3  # keeps the weight 1 / |difference| finite, relative to the root of the dimensions


def neighbour(sigma: Tensor, progress: float) -> Tensor:
    """The lower noise level r < sigma, (B,), at a share of the budget; Geng et al. 2024, Eq. 11.

    r = sigma (1 - n(sigma) / q^a), n(sigma) = 1 + k sigmoid(-b sigma), a from 1 to STAGES; below 0 it is 0.
    """
    n = 1 + SIGMOID_K * torch.sigmoid(-SIGMOID_B * sigma)
    return (sigma * (1 - n / RATIO_BASE ** (1 + (STAGES - 1) * progress))).clamp(min=0)


def draw_log_sigma(n: int, device: torch.device) -> Tensor:
    """n stratified values of ln(sigma) in random order, float32 (n,), normal and below ln(SIGMA_MAX)."""
    u = (torch.randperm(n, device=device) + torch.rand(n, device=device)) / n
    return (P_MEAN + P_STD * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))).clamp(max=math.log(SIGMA_MAX))


class TuningStage(DenoisingStage):
    """The network at sigma must say what it says at the lower level r on the same line x_0 + sigma eps."""

    name = "tuning"

    def loss(self, x_0: Tensor, labels: Tensor, eps: Tensor, augmented: Tensor | None) -> Tensor:
        sigma = own_rows(lambda n: draw_log_sigma(n, x_0.device), len(x_0)).exp()
        lower = neighbour(sigma, self.progress)
        with torch.no_grad():
            at_lower = self.network(x_0 + per_image(lower) * eps, lower.clamp(min=1e-4), labels, augmented)
            target = torch.where(per_image(lower) > 0, at_lower, x_0)  # f(x, 0) = x
        found = self.network(x_0 + per_image(sigma) * eps, sigma, labels, augmented)
        distance = (found - target).flatten(1).square().sum(1)
        least = LEAST_DISTANCE**2 * math.prod(x_0.shape[1:])
        robust = (distance + least).sqrt() - least**0.5  # pseudo-Huber; Song and Dhariwal 2023, Eq. 8
        return (robust / (sigma - lower)).mean()


class Consistency(DiffusionFamily):
    """A diffusion model, tuned to jump."""

    suited_samplers = ("consistency",)  # what it estimates is the end of the ODE, which the others do not expect

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
        teacher_share: float,
        tuning_lr: float,
        num_steps: int,
        sampler: str,
        guidance_scale: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settle(Denoiser(image_shape, num_classes, width=width, blocks=blocks, patch_size=patch_size))

    def stages(self) -> list[Stage]:
        h = self.hparams
        teacher = EDMStage(self.denoiser, proposal="log-normal", **self.stage_options())
        tuning = TuningStage(self.denoiser, **self.stage_options(lr=h.tuning_lr))
        teacher.name, teacher.share, tuning.share = "teacher", h.teacher_share, 1 - h.teacher_share
        return [teacher, tuning]

    def noise_levels(self, num_steps: int) -> Tensor:
        """Karras' levels; two steps go by way of ``MIDDLE_SIGMA``, one goes straight."""
        if num_steps == 2:
            return torch.tensor([SIGMA_MAX, MIDDLE_SIGMA, 0], dtype=torch.float64)
        return super().noise_levels(num_steps)

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return self.denoiser(x, sigma, labels)


Model = Consistency
