"""Generative models behind one contract (``models.base``); a room per paradigm.

Importing this package imports no torch; ``load`` does.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.base import GenerativeModel

FORMAT = "paragon-model-1"
_SHARED = ("base", "checkpoints", "flops", "nets", "text")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence naming the file."""


def model_rooms() -> list[str]:
    """Names of the rooms that hold a model."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED)


def model_class(name: str) -> type[GenerativeModel]:
    """The model class of a room; raises ``ValueError`` for a name that is none."""
    if name not in model_rooms():
        raise ValueError(f"unknown model {name!r}; allowed: {', '.join(model_rooms())}")
    return importlib.import_module(f"models.{name}").Model


def load(path: str | Path, device: str = "cpu") -> GenerativeModel:
    """Read any model's checkpoint (``checkpoints/model.ckpt`` of a cell), ready to sample.

    Nothing is unpickled, and no memory is taken for what does not fit. Raises ``CheckpointError`` with one sentence.
    """
    from models.checkpoints import read_checkpoint

    return read_checkpoint(Path(path), device)
