"""What the files of a cell say about it, for those who plan, watch and merge; imports no torch.

Nothing but files is asked: a cell is finished if its marker and its record are there and whole,
running if its lock is held, failed if it left a failure, interrupted if it left anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from evaluation.record import FAILURE_FILE, RECORD_FILE, Failure, Record, RecordError, load_failure, load_record
from evaluation.seal import DONE_FILE, faults, record_fault, seal
from experiments.config import Cell
from experiments.locks import is_held

__all__ = ["DONE_FILE", "CellState", "failure_message", "faults", "finished_record", "save_failure", "seal", "state"]


class CellState(StrEnum):
    """How far a cell is."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    WAITING = "waiting"


def finished_record(folder: Path, warn: Callable[[str], None] = lambda sentence: None) -> Record | None:
    """The record of a finished cell; None if it is not finished or, as ``warn`` is told, its record is damaged."""
    if not (folder / DONE_FILE).exists():
        return None
    fault = record_fault(folder)
    if fault is None:
        try:
            return load_record(folder / RECORD_FILE)
        except RecordError as error:
            fault = str(error)
    warn(fault)
    return None


def state(folder: Path) -> CellState:
    """What a cell's files say, without touching them."""
    if finished_record(folder):
        return CellState.DONE
    if not folder.is_dir():
        return CellState.WAITING
    if is_held(folder):
        return CellState.RUNNING
    if (folder / FAILURE_FILE).exists():
        return CellState.FAILED
    return CellState.INTERRUPTED if (folder / "config.json").exists() else CellState.WAITING


def save_failure(cell: Cell, folder: Path, reason: str) -> str:
    """Leave ``failure.json`` in a cell's folder if that can be done; returns the sentence for the user."""
    message = f"{cell.model} on {cell.dataset}, seed {cell.seed}: {reason}"
    date = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        Failure(cell.model, cell.dataset, cell.seed, folder.parent.name, message, date).save(folder / FAILURE_FILE)
    except OSError as unwritable:
        message += f" (and {FAILURE_FILE} could not be written: {unwritable.strerror})"
    return message


def failure_message(folder: Path, since: float) -> str | None:
    """What a cell left that failed after ``since`` (seconds of the epoch), else None."""
    path = folder / FAILURE_FILE
    try:
        return load_failure(path).message if path.stat().st_mtime >= since else None
    except (OSError, RecordError):
        return None
