"""Diffusion: EDM (Karras et al. 2022), a U-Net denoiser sampled with Heun's method."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import require, require_multiple, require_power_of_two


@dataclass(frozen=True)
class Config:
    """Width, training and sampling of the diffusion model."""

    width: int = 48
    """Channels at the highest resolution; doubled at each lower one."""
    blocks: int = 1
    """Residual blocks per resolution."""
    patch_size: int = 2
    """Pixel-unshuffle factor in front of the U-Net."""
    sigma_data: float = 0.5
    """Standard deviation of the pixels that the preconditioning assumes."""
    batch_size: int = 32
    lr: float = 2e-3
    ema_half_life: float = 50_000.0
    """Half-life of the weight average in images, ramped up from zero."""
    label_dropout: float = 0.1
    num_steps: int = 10
    """Heun steps; the number of network evaluations is 2 * num_steps - 1."""

    def __post_init__(self) -> None:
        require_multiple(self, "width", 8)
        require_power_of_two(self, "patch_size", 1)
        require(self, sigma_data=(1e-3, 1e3), num_steps=(1, 1000))


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset; tiny images are not unshuffled, there is nothing to save."""
    return Config(width=32, patch_size=1) if info.image_size < 16 else Config()
