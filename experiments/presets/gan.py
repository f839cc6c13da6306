"""GAN: R3GAN (Huang et al. 2024), relativistic pairing with R1 and R2, one network evaluation an image."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo


@dataclass(frozen=True)
class Config:
    """Generator and discriminator."""

    latent_dim: int = 64
    width: int = 64
    """Channels at the highest resolution; doubled at each lower one."""
    blocks: int = 2
    """Residual blocks per resolution."""
    patch_size: int = 2
    """Pixel-(un)shuffle factor at the image side of both networks."""
    batch_size: int = 32
    lr: float = 5e-4
    r1_gamma: float = 1.0
    """Weight of R1 and R2 at the end of training; it starts ten times higher."""
    ema_half_life: float = 50_000


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset."""
    return Config()
