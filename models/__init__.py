"""Generative models behind one contract (``models.base``); a room per paradigm.

Importing this package imports no torch; ``load`` does.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.base import GenerativeModel

FORMAT = "paragon-model-1"
_SHARED = ("base", "checkpoints", "flops", "latents", "nets", "text")
_GIVES = re.compile(r"^(class Model\b|Model = |from \S+ import .* as Model$)", re.MULTILINE)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence naming the file."""


@cache
def _modules() -> dict[str, str]:
    """Names of the models and their modules: every file that gives ``Model``, alone, as a room or in a room."""
    found = {}
    for room in pkgutil.iter_modules(__path__):
        if room.name in _SHARED:
            continue
        folder = Path(__path__[0]) / room.name
        files = {room.name: folder / "__init__.py"} if room.ispkg else {room.name: folder.with_suffix(".py")}
        files |= {f"{room.name}.{path.stem}": path for path in folder.glob("[a-z]*.py")}
        found |= {name.rpartition(".")[2]: name for name, path in files.items() if _GIVES.search(path.read_text())}
    return found


def model_rooms() -> list[str]:
    """Names of the models."""
    return sorted(_modules())


def model_class(name: str) -> type[GenerativeModel]:
    """The class of a model; raises ``ValueError`` for a name that is none."""
    if name not in _modules():
        raise ValueError(f"unknown model {name!r}; allowed: {', '.join(model_rooms())}")
    return importlib.import_module(f"models.{_modules()[name]}").Model


def load(path: str | Path, device: str = "cpu") -> GenerativeModel:
    """Read any model's checkpoint (``checkpoints/model.ckpt`` of a cell), ready to sample.

    Nothing is unpickled, and no memory is taken for what does not fit. Raises ``CheckpointError`` with one sentence.
    """
    from models.checkpoints import read_checkpoint

    return read_checkpoint(Path(path), device)
