"""Flow matching: the velocity of the straight line between picture and noise.

Lipman et al. 2023 (arXiv:2210.02747) and Liu et al. 2023 (arXiv:2209.03003): x_t = (1 - t) x_0 + t eps, and the
network predicts eps - x_0. Times follow a logit-normal law (Esser et al. 2024, arXiv:2403.03206, Eq. 19).
x_t / (1 - t) is x_sigma with sigma = t / (1 - t), so that the network is a denoiser like the others'.
Deviation: an eighth of the times is drawn uniformly in ln sigma (``draw_times``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.base import Stage, own_rows
from models.diffusion.edm import SIGMA_MAX, SIGMA_MIN, per_image
from models.diffusion.family import DiffusionFamily
from models.diffusion.network import NoiseConditionalUNet
from models.diffusion.stage import DenoisingStage

LOGIT_MEAN, LOGIT_STD = 0.0, 1.0
UNIFORM_SHARE = 0.125  # of the times, uniform in ln sigma, as in ``edm.py``: the likelihood weighs all levels alike


def time_of(sigma: Tensor) -> Tensor:
    """t in (0, 1) of a noise level: sigma / (1 + sigma)."""
    return sigma / (1 + sigma)


def sigma_of(t: Tensor) -> Tensor:
    """Inverse of ``time_of``."""
    return t / (1 - t)


def interpolate(x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) x_0 + t eps, (B, C, H, W), for t (B,); Esser et al. 2024, Eq. 13."""
    return (1 - per_image(t)) * x_0 + per_image(t) * eps


def x_0_from_velocity(velocity: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """x_t - t v, the estimate of x_0 (B, C, H, W), given x = x_sigma."""
    t = per_image(time_of(sigma))
    return (1 - t) * x - t * velocity


def draw_times(n: int, device: torch.device) -> Tensor:
    """n stratified times in random order, float32 (n,): logit-normal, an eighth uniform in ln sigma."""
    uniform = int(n * UNIFORM_SHARE)
    u = (torch.randperm(n - uniform, device=device) + torch.rand(n - uniform, device=device)) / (n - uniform)
    normal = LOGIT_MEAN + LOGIT_STD * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))
    v = (torch.randperm(uniform, device=device) + torch.rand(uniform, device=device)) / max(uniform, 1)
    log_min, log_max = torch.tensor([SIGMA_MIN, SIGMA_MAX], device=device).log()
    return torch.sigmoid(torch.cat([normal, log_min + v * (log_max - log_min)]))  # logit t = ln sigma


class FlowStage(DenoisingStage):
    """Conditional flow matching, Lipman et al. 2023, Eq. 9 and 23 with sigma_min = 0."""

    def loss(self, x_0: Tensor, labels: Tensor, eps: Tensor, augmented: Tensor | None) -> Tensor:
        t = own_rows(lambda n: draw_times(n, x_0.device), len(x_0))
        velocity = self.network(interpolate(x_0, eps, t), 1000 * t, labels, augmented)
        return (velocity - (eps - x_0)).square().mean()


class FlowMatching(DiffusionFamily):
    """Rectified flow with logit-normal times."""

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
        num_steps: int,
        sampler: str,
        guidance_scale: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settle(NoiseConditionalUNet(
            image_shape, num_classes, width=width, blocks=blocks, patch_size=patch_size, augmented=augment > 0
        ))

    def stages(self) -> list[Stage]:
        return [FlowStage(self.denoiser, **self.stage_options())]

    def noise_levels(self, num_steps: int) -> Tensor:
        """Times equally spaced from that of SIGMA_MAX to 0."""
        last = time_of(torch.tensor(SIGMA_MAX, dtype=torch.float64))
        return sigma_of(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64) * last)

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        t = time_of(sigma)
        velocity = self.denoiser((1 - per_image(t)) * x, 1000 * t, labels)
        return x_0_from_velocity(velocity, x, sigma)


Model = FlowMatching
