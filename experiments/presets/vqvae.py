"""VQ-VAE: finite scalar quantisation (Mentzer et al. 2023), then an autoregressive transformer prior."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import CodeConfig, codes_for_size, require


@dataclass(frozen=True)
class Config(CodeConfig):
    """Both stages: the autoencoder and the prior over its codes."""

    adversarial: float = 0.0
    """Weight of a patch discriminator in the first stage; above 0 the model has no likelihood."""
    perceptual: float = 0.0
    """Weight of the distance of the discriminator's features; above 0 the model has no likelihood."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, adversarial=(0.0, 1000.0), perceptual=(0.0, 1000.0))


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset."""
    return codes_for_size(Config(), info.image_size)
