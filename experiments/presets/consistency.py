"""Consistency model: a diffusion model tuned to jump from static to picture in one or two evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import DatasetInfo
from experiments.presets.base import DenoiserConfig, Sampler, for_size, require


@dataclass(frozen=True)
class Config(DenoiserConfig):
    """Width, training of the teacher, tuning and sampling."""

    num_steps: int = 2
    """Jumps, one network evaluation each."""
    sampler: Sampler = "consistency"
    teacher_share: float = 0.6
    """Share of the budget that trains the diffusion model; the rest tunes it."""
    tuning_lr: float = 3e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, teacher_share=(0.01, 0.99), tuning_lr=(1e-8, 1.0))



def preset(info: DatasetInfo) -> Config:
    """The configuration for a dataset."""
    return for_size(Config(), info.image_size)
