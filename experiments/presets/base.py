"""What presets check before anything runs."""

from __future__ import annotations

from typing import Any

# Closed intervals of the fields that mean the same in every preset.
SHARED: dict[str, tuple[float, float]] = {
    "batch_size": (1, 1_000_000),
    "lr": (1e-8, 1.0),
    "ema_half_life": (1.0, 1e12),
    "label_dropout": (0.0, 1.0),
    "blocks": (1, 100),
}


def require(config: Any, **bounds: tuple[float, float]) -> None:
    """Raise ``ValueError`` for the first field outside its closed interval (least, most), shared or given."""
    shared = {name: interval for name, interval in SHARED.items() if hasattr(config, name)}
    for name, (least, most) in (shared | bounds).items():
        value = getattr(config, name)
        if not least <= value <= most:
            raise ValueError(f"model.{name} must lie in {least:g} to {most:g}, not {value}")


def require_multiple(config: Any, name: str, factor: int) -> None:
    """Raise ``ValueError`` unless a field is a positive multiple of ``factor``."""
    value = getattr(config, name)
    if value < factor or value % factor:
        raise ValueError(f"model.{name} must be a positive multiple of {factor}, not {value}")


def require_power_of_two(config: Any, name: str, least: int) -> None:
    """Raise ``ValueError`` unless a field is a power of two of at least ``least``."""
    value = getattr(config, name)
    if value < least or value & (value - 1):
        raise ValueError(f"model.{name} must be a power of two of at least {least}, not {value}")
