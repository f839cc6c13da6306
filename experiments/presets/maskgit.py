"""MaskGIT: the codes of vqvae, drawn in a few steps by a masked transformer (Chang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import require, require_multiple, require_power_of_two


@dataclass(frozen=True)
class Config:
    """Both stages: the autoencoder of vqvae and the masked prior over its codes."""

    levels: tuple[int, ...] = (8, 6, 5)
    downsample: int = 4
    width: int = 32
    autoencoder_share: float = 0.25
    """Share of the training budget; the prior gets the rest."""
    prior_dim: int = 96
    prior_depth: int = 4
    num_steps: int = 8
    """Steps of parallel decoding, a network evaluation each; at most one per code is taken."""
    choice_temperature: float = 4.5
    """Of the noise on what is certain, falling to 0 over the steps; 0 keeps the most certain codes."""
    batch_size: int = 32
    lr: float = 2e-3
    ema_half_life: float = 50_000.0
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not (self.levels and min(self.levels) >= 2 and max(self.levels) <= 1000):
            raise ValueError(f"model.levels must be integers from 2 to 1000, not {self.levels}")
        require_power_of_two(self, "downsample", 2)
        require_multiple(self, "width", 8)
        require_multiple(self, "prior_dim", 32)
        require(self, autoencoder_share=(0.01, 0.99), prior_depth=(1, 100))
        require(self, num_steps=(1, 1000), choice_temperature=(0.0, 100.0))


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset: at least 4 x 4 codes an image."""
    return Config() if info.image_size >= 16 else Config(downsample=2)
