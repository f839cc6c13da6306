"""GAN: R3GAN (Huang et al. 2024), relativistic pairing with R1 and R2, one network evaluation an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datamodules.base import DatasetInfo
from experiments.presets.base import AdversarialConfig, require, require_multiple, require_power_of_two


@dataclass(frozen=True)
class Config(AdversarialConfig):
    """Generator and discriminator; ``augment_probability`` is ramped up from zero."""

    generator: Literal["convolutional", "residual"] = "convolutional"
    """DCGAN's, with batch normalisation, or R3GAN's, which mirrors the discriminator at the same width."""
    discriminator_width: int = 16
    """Channels at its highest resolution, of ``blocks`` and ``patch_size`` like those of a residual generator."""
    batch_size: int = 16
    blocks: int = 1
    """Residual blocks per resolution."""
    patch_size: int = 2
    """Pixel-(un)shuffle factor at the image side."""
    r1_gamma: float = 1.0
    """Weight of R1 and R2 at the end of training; it starts ten times higher."""
    ema_half_life: float = 50_000.0
    """Half-life of the generator's weight average in images, ramped up from zero."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_multiple(self, "discriminator_width", 8)
        require_power_of_two(self, "patch_size", 1)
        require(self, r1_gamma=(0.0, 1e6))


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset; tiny images are not unshuffled, there is nothing to save."""
    return Config(patch_size=1) if info.image_size < 16 else Config()
