"""Flow matching: the velocity of the straight line from noise to picture, with logit-normal times."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import DenoiserConfig, for_size


@dataclass(frozen=True)
class Config(DenoiserConfig):
    """Width, training and sampling of the flow."""

    augment: float = 0.0
    """Probability of mirroring and of shifting an image, of which the network is told."""


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset."""
    return for_size(Config(), info.image_size)
