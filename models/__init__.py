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
_SHARED = ("base", "flops", "nets", "text")


class CheckpointError(RuntimeError):
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

    Nothing is unpickled. Raises ``CheckpointError`` with one sentence.
    """
    import torch

    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except Exception as error:  # a damaged archive raises one of many types
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path} cannot be read: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint {path} is not a generator saved by this program ({FORMAT})")
    model = model_class(content["model"])(**content["hyper_parameters"])
    model.load_state_dict(content["state_dict"])
    return model.to(device).eval()
