"""MaskGIT: the codes of vqvae, drawn in a few steps by a masked transformer (Chang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import CodeConfig, codes_for_size, require


@dataclass(frozen=True)
class Config(CodeConfig):
    """Both stages: the autoencoder of vqvae and the masked prior over its codes."""

    prior_dim: int = 64
    prior_depth: int = 2
    num_steps: int = 8
    """Steps of parallel decoding, a network evaluation each; at most one per code is taken."""
    choice_temperature: float = 18.0
    """Of the noise on what is certain, falling to 0 over the steps; 0 keeps the most certain codes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, num_steps=(1, 1000), choice_temperature=(0.0, 100.0))


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset."""
    return codes_for_size(Config(), info.image_size)
