"""Checkpoints that survive a crash: written atomically with a checksum, read without unpickling."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from evaluation.record import write_atomic


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
        expected = checksum_path(path).read_text().strip()
        return hashlib.sha256(path.read_bytes()).hexdigest() == expected
    except OSError:
        return False


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint reader and writer on top of the two functions above."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        save_checked(checkpoint, Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        checksum_path(Path(path)).unlink(missing_ok=True)


def newest_intact(folder: Path, warn: Any) -> Path | None:
    """The newest checkpoint in a folder that is whole; ``warn`` gets a sentence for each that is not."""
    for path in sorted(folder.glob("*.ckpt"), reverse=True):
        if is_intact(path):
            return path
        warn(f"checkpoint {path} is damaged (its checksum does not match); falling back to the one before")
    return None
