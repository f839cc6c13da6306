"""Rooms are found by file name: no registries, no decorators, no imports of torch."""

from __future__ import annotations

import difflib
import importlib
import keyword
import pkgutil
import re
from pathlib import Path
from types import ModuleType


def names_in(package: str, *, exclude: tuple[str, ...] = ("base",)) -> list[str]:
    """Sorted names of the modules of a package, without those in ``exclude``."""
    paths = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(paths) if m.name not in exclude)


def model_names() -> list[str]:
    """Models that can be trained: one preset file each."""
    return names_in("experiments.presets")


def dataset_names() -> list[str]:
    """Datasets: one file each in ``datamodules``."""
    return names_in("datamodules", exclude=("base", "module"))


def metric_names() -> list[str]:
    """Metric files in ``evaluation.metrics``: those that declare ``METRIC``, read without importing them."""
    return _declaring("evaluation.metrics")


def pair_metric_names() -> list[str]:
    """The same in ``evaluation.pairs``: what is asked of a first stage."""
    return _declaring("evaluation.pairs")


def _declaring(package: str) -> list[str]:
    folder = Path(importlib.import_module(package).__path__[0])
    names = names_in(package)
    return [n for n in names if re.search(r"^METRICS?\b", (folder / f"{n}.py").read_text(), re.MULTILINE)]


def command_names() -> list[str]:
    """Commands: one file each in ``experiments.commands``; ``import_.py`` is the command import."""
    return sorted(name.rstrip("_") for name in names_in("experiments.commands", exclude=("base", "run")))


def command_module(command: str) -> ModuleType:
    """The file of a command: ``USAGE``, ``main(argv) -> int`` and a docstring."""
    suffix = "_" if keyword.iskeyword(command) else ""
    return importlib.import_module(f"experiments.commands.{command}{suffix}")


def engine_names() -> list[str]:
    """Ways to run a grid: one file each in ``experiments.engines``."""
    return names_in("experiments.engines")


def engine_module(engine: str) -> ModuleType:
    """The file of an engine: ``run(jobs, options)`` and a docstring."""
    return importlib.import_module(f"experiments.engines.{engine}")


def preset_module(model: str) -> ModuleType:
    """The preset file of a model: ``Config``, ``preset(info) -> Config`` and a docstring."""
    return importlib.import_module(f"experiments.presets.{model}")


def dataset_module(dataset: str) -> ModuleType:
    """The file of a dataset: ``INFO``, ``Config``, ``load(config)`` and a docstring."""
    return importlib.import_module(f"datamodules.{dataset}")


def unknown(kind: str, name: str, allowed: list[str]) -> str:
    """One sentence for a wrong name, with the closest right one."""
    close = difflib.get_close_matches(name.lower(), allowed, n=1)
    hint = f" did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r};{hint} allowed: {', '.join(allowed)}"
