"""VQ-VAE: finite scalar quantisation (Mentzer et al. 2023), then an autoregressive transformer prior."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import require, require_multiple, require_power_of_two


@dataclass(frozen=True)
class Config:
    """Both stages: the autoencoder and the prior over its codes."""

    levels: tuple[int, ...] = (8, 6, 5)
    """Quantisation levels per code dimension; the codebook size is their product."""
    downsample: int = 4
    """Pixels per code along each axis."""
    width: int = 32
    """Channels of the autoencoder."""
    autoencoder_share: float = 0.25
    """Share of the training budget that the autoencoder gets; the prior gets the rest."""
    prior_dim: int = 96
    prior_depth: int = 4
    batch_size: int = 32
    lr: float = 2e-3
    ema_half_life: float = 50_000.0
    """Half-life of the weight averages in images, ramped up from zero."""
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2 or max(self.levels) > 1000:
            raise ValueError(f"model.levels must be integers from 2 to 1000, not {self.levels}")
        require_power_of_two(self, "downsample", 2)
        require_multiple(self, "width", 8)
        require_multiple(self, "prior_dim", 32)
        require(self, autoencoder_share=(0.01, 0.99), prior_depth=(1, 100))


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset: at least 4 x 4 codes an image."""
    return Config() if info.image_size >= 16 else Config(downsample=2)
