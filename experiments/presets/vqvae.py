"""VQ-VAE: finite scalar quantisation (Mentzer et al. 2023), then an autoregressive transformer prior."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo


@dataclass(frozen=True)
class Config:
    """Both stages: the autoencoder and the prior over its codes."""

    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Quantisation levels per code dimension; the codebook size is their product."""
    downsample: int = 4
    """Pixels per code along each axis."""
    width: int = 48
    """Channels of the autoencoder."""
    autoencoder_share: float = 0.4
    """Share of the training budget that the autoencoder gets; the prior gets the rest."""
    prior_dim: int = 128
    prior_depth: int = 4
    batch_size: int = 32
    lr: float = 1e-3
    ema_half_life: float = 50_000
    label_dropout: float = 0.1


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset: at least 4 x 4 codes an image."""
    return Config(downsample=4 if info.image_size >= 16 else 2)
