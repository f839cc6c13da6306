"""Diffusion: EDM (Karras et al. 2022), a U-Net denoiser sampled with DPM-Solver++(2M)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datamodules.base import DatasetInfo
from experiments.presets.base import DenoiserConfig, for_size


@dataclass(frozen=True)
class Config(DenoiserConfig):
    """Width, training and sampling of the diffusion model."""

    augment: float = 0.0
    """Probability of mirroring and of shifting an image, of which the network is told."""
    proposal: Literal["log-normal", "learned"] = "log-normal"
    """Noise levels trained on: a fixed law, or importance sampling learned from the losses."""
    fourier: bool = False
    """Whether the network also sees sines and cosines of the pixels, for the sake of the likelihood."""


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset."""
    return for_size(Config(), info.image_size)
