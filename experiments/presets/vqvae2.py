"""VQ-VAE-2 (Razavi et al. 2019): a coarse and a fine grid of codes, then one autoregressive transformer over both."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import CodeConfig, codes_for_size


@dataclass(frozen=True)
class Config(CodeConfig):
    """Both stages; ``downsample`` is that of the bottom grid, the top grid is half as fine along each axis."""


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset.

    28 x 28 pixels become 4 x 4 and 7 x 7 codes: 65 steps of the prior. A bottom grid of 14 x 14 would make them
    245, and an image four times as dear to train on and to draw. Images of 8 x 8 have 2 x 2 and 4 x 4 codes.
    """
    return codes_for_size(Config(), info.image_size)
