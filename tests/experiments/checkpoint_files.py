"""Checkpoint files of models that were not trained, as cells save theirs."""

from __future__ import annotations

from pathlib import Path

import torch

from models import FORMAT
from models.base import GenerativeModel


def save_model(model: GenerativeModel, name: str, path: Path) -> Path:
    """Write a generator to a file that ``models.load`` reads; returns its path."""
    parts = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}
    torch.save({"format": FORMAT, "model": name, **parts}, path)
    return path
