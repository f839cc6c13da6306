"""WGAN-GP (Gulrajani et al. 2017): Wasserstein distance with a gradient penalty on interpolates."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import AdversarialConfig, require


@dataclass(frozen=True)
class Config(AdversarialConfig):
    """Generator and critic; ``batch_size`` is that of one update, and a step takes ``n_critic`` such batches."""

    lr: float = 1e-3
    """Ten times that of the paper, whose runs are hundreds of times as long."""
    penalty_weight: float = 10.0
    """lambda of the gradient penalty."""
    n_critic: int = 5
    """Updates of the critic for one of the generator."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, penalty_weight=(0.0, 1e6), n_critic=(1, 100))


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset; the networks' depth follows the image size."""
    return Config()
