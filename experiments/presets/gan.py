"""GAN: R3GAN (Huang et al. 2024), relativistic pairing with R1 and R2, one network evaluation an image."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import AdversarialConfig, require, require_power_of_two


@dataclass(frozen=True)
class Config(AdversarialConfig):
    """Generator and discriminator, mirrored; ``augment_probability`` is ramped up from zero."""

    width: int = 16
    batch_size: int = 16
    lr: float = 3e-3
    blocks: int = 1
    """Residual blocks per resolution."""
    patch_size: int = 2
    """Pixel-(un)shuffle factor at the image side of both networks."""
    r1_gamma: float = 1.0
    """Weight of R1 and R2 at the end of training; it starts ten times higher."""
    ema_half_life: float = 50_000.0
    """Half-life of the generator's weight average in images, ramped up from zero."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self, "patch_size", 1)
        require(self, r1_gamma=(0.0, 1e6))


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset; tiny images are not unshuffled, there is nothing to save."""
    return Config(patch_size=1) if info.image_size < 16 else Config()
