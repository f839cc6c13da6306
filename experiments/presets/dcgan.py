"""DCGAN (Radford et al. 2016): strided convolutions, batch normalisation, the non-saturating loss."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import AdversarialConfig


@dataclass(frozen=True)
class Config(AdversarialConfig):
    """Generator and discriminator."""

    lr: float = 2e-4


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset; the networks' depth follows the image size."""
    return Config()
