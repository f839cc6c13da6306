"""VQ-VAE: finite scalar quantisation (Mentzer et al. 2023), then an autoregressive transformer prior."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import CodeConfig, require


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
    """The configuration for a dataset: at least 4 x 4 codes an image, and several encodings in a batch for each."""
    return Config() if info.image_size >= 16 else Config(downsample=2, codebook_size=128)
