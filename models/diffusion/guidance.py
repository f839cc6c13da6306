"""Views of a denoiser: guided towards a class, held within the range of pixels, told a part of the picture.

Each view is itself a denoiser D(x, sigma), so that any sampler walks with it. Classifier-free guidance of Ho and
Salimans 2022 (arXiv:2207.12598), in an interval of noise levels (Kynkäänniemi et al. 2024, arXiv:2404.07724);
thresholding of Saharia et al. 2022 (arXiv:2205.11487), Sec. 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from models.diffusion.samplers import Denoise

LabelledDenoise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""D(x_sigma, sigma, labels): estimate of x_0 (B, C, H, W) from x, sigma (B,) and labels int64 (B,)."""
Threshold = Literal["none", "static", "dynamic"]
PERCENTILE = 0.995


@dataclass(frozen=True)
class Guidance:
    """uncond + scale (cond - uncond) for noise levels in [low, high], cond elsewhere; then a threshold.

    Raises:
        ValueError: if a number or name is out of range.
    """

    scale: float = 1.0
    low: float = 0.0
    high: float = math.inf
    threshold: Threshold = "none"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise ValueError(f"guidance_scale must be a number from 0 on, not {self.scale}")
        if not 0 <= self.low < self.high:
            raise ValueError(f"guidance_interval needs 0 <= low < high, not {self.low} and {self.high}")
        if self.threshold not in get_args(Threshold):
            raise ValueError(f"threshold must be one of {', '.join(get_args(Threshold))}, not {self.threshold!r}")

    def evaluations(self, sigma: float) -> int:
        """Evaluations of the network at a noise level: 2 where two estimates are mixed."""
        return 2 if self.low <= sigma <= self.high and self.scale != 1 and self.scale != 0 else 1


class GuidedDenoiser:
    """The denoiser of some labels under guidance; ``evaluations`` counts those of the network, per image."""

    def __init__(self, denoise: LabelledDenoise, labels: Tensor, null: int, guidance: Guidance) -> None:
        self.denoise, self.labels, self.guidance = denoise, labels, guidance
        self.null = torch.full_like(labels, null)
        self.unlabelled = bool((labels == null).all())
        self.evaluations = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        guided = self.guidance.evaluations(float(sigma[0])) == 2 and not self.unlabelled
        self.evaluations += 2 if guided else 1
        inside = self.guidance.low <= float(sigma[0]) <= self.guidance.high
        dropped = inside and self.guidance.scale == 0
        estimate = self.denoise(x, sigma, self.null if dropped else self.labels)
        if guided:
            unguided = self.denoise(x, sigma, self.null)
            estimate = unguided + self.guidance.scale * (estimate - unguided)
        return THRESHOLDS[self.guidance.threshold](estimate)


def static_threshold(x_0: Tensor) -> Tensor:
    """Clip estimates of x_0 to the range of pixels, [-1, 1]."""
    return x_0.clamp(-1, 1)


def dynamic_threshold(x_0: Tensor, percentile: float = PERCENTILE) -> Tensor:
    """Clip every image (B, C, H, W) to its own percentile of |x_0|, at least 1, and scale it back to [-1, 1]."""
    limit = x_0.flatten(1).abs().quantile(percentile, dim=1).clamp(min=1)[:, None, None, None]
    return x_0.clamp(-limit, limit) / limit


THRESHOLDS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x_0: x_0, "static": static_threshold, "dynamic": dynamic_threshold,
}


def knowing(denoise: Denoise, known: Tensor, mask: Tensor) -> Denoise:
    """A denoiser to whom a part of the picture is known, for inpainting.

    In the known part the estimate is the truth, so that a sampler of the ODE that starts at
    known + sigma eps stays on this line there; the rest follows what the network sees.
    Lugmayr et al. 2022 (arXiv:2201.09865), Eq. 8, on the estimate in place of the state.

    Args:
        denoise: D(x, sigma).
        known: Pixels in [-1, 1], (B, C, H, W).
        mask: 1 where they are known and 0 elsewhere, broadcastable to (B, C, H, W).
    """
    return lambda x, sigma: mask * known + (1 - mask) * denoise(x, sigma)
