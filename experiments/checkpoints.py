"""Checkpoints that survive a crash: written atomically with a checksum, read without unpickling.

A stage keeps its last two whole ones. Each carries what it belongs to, the stage's plan and the weights
that it started from, so that none is continued by another plan or on top of another first stage.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import nn

from evaluation.atomic import write_atomic
from experiments.ending import end_if_asked

KEPT = 2
BELONGS_TO = "belongs_to"

Warn = Callable[[str], None]


def save_checked(content: Any, path: Path) -> str:
    """Write ``content`` to ``path`` and its SHA-256 beside it; returns the digest.

    The checksum comes first: without its file it means nothing, a file without it looks damaged.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    write_atomic(checksum_path(path), (digest + "\n").encode())
    write_atomic(path, data)
    return digest


def checksum_path(path: Path) -> Path:
    """Where the checksum of a checkpoint is kept."""
    return path.with_name(path.name + ".sha256")


def is_intact(path: Path) -> bool:
    """True if the file has the checksum that was written with it."""
    try:
        expected = checksum_path(path).read_bytes().strip()
        return hashlib.sha256(path.read_bytes()).hexdigest().encode() == expected
    except OSError:
        return False


def weights_digest(module: nn.Module) -> str:
    """A hash of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint reader and writer on top of the functions above."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        save_checked(checkpoint, Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        checksum_path(Path(path)).unlink(missing_ok=True)


class KeepCheckpoints(Checkpoint):
    """Writes a checkpoint at the end of every Lightning epoch and keeps the last two.

    Lightning's ``ModelCheckpoint`` remembers in the checkpoint which files it wrote: killed between writing one
    and deleting another, or in a folder that was moved, it loses track of them.
    """

    def __init__(self, folder: Path, belongs_to: dict[str, Any]) -> None:
        self.folder, self.belongs_to = folder, belongs_to

    def on_save_checkpoint(self, trainer: pl.Trainer, stage: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint[BELONGS_TO] = self.belongs_to

    def on_train_epoch_end(self, trainer: pl.Trainer, stage: Any) -> None:
        trainer.save_checkpoint(self.folder / f"chunk-{trainer.current_epoch:04d}.ckpt")
        if trainer.is_global_zero:
            keep_only(self.folder, newest_first(self.folder)[:KEPT])


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not."""
    return sorted(folder.glob("*.ckpt"), reverse=True)


def keep_only(folder: Path, kept: list[Path]) -> None:
    """Delete everything in a folder but some checkpoints and their checksums."""
    wanted = {*kept, *map(checksum_path, kept)}
    for path in folder.glob("*"):
        if path not in wanted:
            path.unlink()


def newest_fitting(folder: Path, belongs_to: dict[str, Any], warn: Warn) -> Path | None:
    """The newest whole checkpoint of a stage that belongs to its plan; whatever else is there is deleted.

    ``warn`` gets a sentence for each that cannot be used and, if none can, what that means.
    """
    found = newest_first(folder)
    fitting = []
    for path in found:
        fault = _fault(path, belongs_to)
        if fault is None:
            fitting.append(path)
        else:
            warn(f"checkpoint {path} {fault}; " + ("it is deleted" if fitting else "falling back to the one before"))
    if found and not fitting:
        warn(f"no checkpoint in {folder} can be continued: the stage starts anew")
    keep_only(folder, fitting[:KEPT])
    return fitting[0] if fitting else None


def _fault(path: Path, belongs_to: dict[str, Any]) -> str | None:
    """Why a checkpoint cannot be continued, in half a sentence."""
    if not is_intact(path):
        return "is damaged (its checksum does not match)"
    try:
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get(BELONGS_TO)
    except Exception as error:  # whole but foreign: readers raise one of many types
        end_if_asked()
        return f"cannot be read ({type(error).__name__})"
    if not isinstance(found, dict):
        return "does not say what it belongs to"
    other = [key for key, value in belongs_to.items() if found.get(key) != value]
    differences = ", ".join(f"{key} {found.get(key)} instead of {belongs_to[key]}" for key in other)
    return f"belongs to another plan ({differences})" if other else None
