"""Which settings of a prior's sampler are worth a curve: its temperatures, and the steps of parallel decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.base import Asked, Setting, Sweep
from models.vqvae.drawing import Truncation, checked_temperature

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
CHOICE_TEMPERATURES = (0.0, 1.0, 2.0, 4.5, 9.0, 18.0)
STEPS = (1, 2, 4, 8, 16, 32)
MOST_STEPS = 1000


def numbers(asked: Asked, name: str, usual: Sequence[float]) -> list[float]:
    """The values asked for or the usual ones, each once, ascending."""
    return sorted(dict.fromkeys(float(value) for value in asked.get(name, usual)))


def temperature_sweep(asked: Asked, series: str, **fixed: Any) -> Sweep:
    """Quality against the temperature of the codes' distribution; ``fixed`` are the other options."""
    values = [Truncation(value).temperature for value in numbers(asked, "temperature", TEMPERATURES)]
    return Sweep("temperature", "temperature", "temperature of the codes (1: as trained)", log=False, settings=tuple(
        Setting(series, fixed | {"temperature": value}, x=value) for value in values
    ))


def choice_sweep(asked: Asked, series: str, **fixed: Any) -> Sweep:
    """Quality against the temperature of the noise on confidences."""
    name = "choice_temperature"
    values = [checked_temperature(value, name, least=0) for value in numbers(asked, name, CHOICE_TEMPERATURES)]
    label = "temperature of the choice among drawn codes (0: the most certain stay)"
    return Sweep(name, "choice", label, log=False, settings=tuple(
        Setting(series, fixed | {name: value}, x=value) for value in values
    ))


def steps_sweep(asked: Asked, series: str, num_codes: int, **fixed: Any) -> Sweep:
    """Quality against network evaluations by the steps of parallel decoding; more than one per code are none."""
    values = [int(value) for value in numbers(asked, "steps", STEPS)]
    if not all(1 <= value <= MOST_STEPS for value in values):
        raise ValueError(f"steps must lie in 1..{MOST_STEPS}, not {', '.join(map(str, values))}")
    steps = dict.fromkeys(min(value, num_codes) for value in values)
    return Sweep("nfe", "network evaluations", "network evaluations per image (NFE)", log=True, settings=tuple(
        Setting(series, fixed | {"num_steps": count}) for count in steps
    ))
