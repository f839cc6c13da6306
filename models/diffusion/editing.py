"""What is given of a picture before it is sampled: nothing, the whole to start from, or a part to keep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.diffusion.guidance import knowing
from models.diffusion.samplers import Denoise


@dataclass(frozen=True)
class Task:
    """``given`` pixels in [-1, 1], (B, C, H, W), and a bool ``mask`` that is True where they are kept.

    Without a mask the walk starts from the given picture and noise (Meng et al. 2022, SDEdit, arXiv:2108.01073);
    with one it starts from noise and is told the part that is kept.
    """

    given: Tensor | None = None
    mask: Tensor | None = None

    def levels(self, sigmas: Tensor, strength: float) -> Tensor:
        """The noise levels to walk: the last ``strength`` of them for a picture to start from, at least one step.

        Raises:
            ValueError: if ``strength`` is not in (0, 1] or has nothing to act on.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], not {strength}")
        if strength < 1 and (self.given is None or self.mask is not None):
            raise ValueError("strength below 1 needs an image to start from, without a mask")
        steps = len(sigmas) - 1
        return sigmas[steps - max(1, round(strength * steps)) :]

    def start(self, eps: Tensor, sigmas: Tensor) -> Tensor:
        """x at the first level: what is given, and noise."""
        noise = eps * float(sigmas[0])
        return noise if self.given is None else self.given + noise

    def denoiser(self, denoise: Denoise) -> Denoise:
        """The denoiser, told the part that is kept."""
        if self.given is None or self.mask is None:
            return denoise
        return knowing(denoise, self.given, self.mask.to(self.given.dtype))

    def finish(self, x: Tensor) -> Tensor:
        """The sample; what is kept is kept bit by bit."""
        return x if self.given is None or self.mask is None else torch.where(self.mask, self.given, x)
