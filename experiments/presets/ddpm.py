"""DDPM (Ho et al. 2020; Nichol and Dhariwal 2021): the chain of 1000 steps, walked back by ancestral sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datamodules.base import DatasetInfo
from experiments.presets.base import DenoiserConfig, Sampler, for_size


@dataclass(frozen=True)
class Config(DenoiserConfig):
    """Width, chain, objective and sampling."""

    num_steps: int = 50
    """Steps of the sampler, spread over the 1000 of the chain; learned variances make 50 enough."""
    sampler: Sampler = "ancestral"
    augment: float = 0.0
    """Probability of mirroring and of shifting an image, of which the network is told."""
    schedule: Literal["linear", "cosine"] = "cosine"
    """Of beta along the chain."""
    prediction: Literal["eps", "x_0", "v"] = "v"
    """What the network predicts."""
    objective: Literal["simple", "vlb", "hybrid"] = "hybrid"
    """L_simple, the variational bound, or both; the last two learn the variances."""


def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset."""
    return for_size(Config(), info.image_size)
