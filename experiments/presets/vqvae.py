"""VQ-VAE: finite scalar quantisation (Mentzer et al. 2023), then an autoregressive transformer prior."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import CodeConfig


@dataclass(frozen=True)
class Config(CodeConfig):
    """Both stages: the autoencoder and the prior over its codes."""


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset: at least 4 x 4 codes an image, and several encodings in a batch for each."""
    return Config() if info.image_size >= 16 else Config(downsample=2, codebook_size=128)
