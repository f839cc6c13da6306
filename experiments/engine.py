"""Runs one cell from start to record, going on where a former run stopped.

A cell's folder fills in this order: ``config.json``, ``checkpoints/``, ``training.json`` and
``checkpoints/model.ckpt``, ``samples.npz``, pictures, ``metrics.csv``, ``record.json`` and, last of
all, the completion marker ``done``. Whatever is there and whole is not made again.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console

from datamodules.base import DataNotFoundError, ImageDataset
from evaluation.provenance import git_state, provenance
from evaluation.record import (
    FAILURE_FILE,
    RECORD_FILE,
    Failure,
    Record,
    RecordError,
    load_record,
    write_atomic,
    write_json,
)
from evaluation.runner import Reference, examine
from experiments.artifacts import count_parameters, merge_logs, save_pictures, save_samples, trained_model
from experiments.config import Cell
from experiments.control_rows import CONTROL_SEED, ensure_controls
from experiments.discovery import dataset_module
from experiments.locks import cell_lock
from experiments.progress import Progress
from experiments.seeds import axis_seed

DONE_FILE = "done"


class CellError(RuntimeError):
    """A cell that could not be finished; the message is one sentence."""


@lru_cache(maxsize=2)
def _dataset(name: str, config: Any) -> tuple[ImageDataset, str]:
    dataset = dataset_module(name).load(config)
    return dataset, dataset.sha256


@lru_cache(maxsize=2)
def _reference(name: str, data_config: Any, evaluation: Any) -> Reference:
    return Reference(_dataset(name, data_config)[0], evaluation, seed=axis_seed(CONTROL_SEED, "controls"))


def finished_record(folder: Path) -> Record | None:
    """The record of a finished cell, or None if the cell is not finished or its record is damaged."""
    if not (folder / DONE_FILE).exists():
        return None
    try:
        return load_record(folder / RECORD_FILE)
    except RecordError:
        return None


def run_cell(cell: Cell, out: Path, *, console: Console) -> Record:
    """Train, sample, evaluate and record one cell, or return its record if it is finished.

    Raises:
        CellError: training or evaluation failed; ``failure.json`` in the cell's folder says why.
        LockedError: another process is at work on this cell.
        DataNotFoundError: the data is not there.
    """
    _, data_hash = _dataset(cell.dataset, cell.data_config)
    folder = cell.folder(out, data_hash)
    progress = Progress(console)
    with cell_lock(folder):
        record = finished_record(folder)
        if record is not None:
            console.print(f"{cell.model} on {cell.dataset}, seed {cell.seed}: finished before", highlight=False)
            return record
        try:
            return _work(cell, folder, out, progress)
        except DataNotFoundError:
            raise
        except Exception as error:
            raise _failed(cell, folder, data_hash, error) from error
        finally:
            progress.finish()


def _failed(cell: Cell, folder: Path, data_hash: str, error: Exception) -> CellError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    message = f"{cell.model} on {cell.dataset}, seed {cell.seed}: {reason}"
    date = datetime.now(UTC).isoformat(timespec="seconds")
    failure = Failure(cell.model, cell.dataset, cell.seed, cell.config_hash(data_hash), message, date)
    try:
        failure.save(folder / FAILURE_FILE)
    except OSError as unwritable:
        message += f" (and {FAILURE_FILE} could not be written: {unwritable.strerror})"
    return CellError(message)


def _work(cell: Cell, folder: Path, out: Path, progress: Progress) -> Record:
    git_state()
    dataset, data_hash = _dataset(cell.dataset, cell.data_config)
    write_json(folder / "config.json", cell.resolved() | {"seed": cell.seed, "dataset_sha256": data_hash})
    progress.console.print(f"{cell.model} on {cell.dataset}, seed {cell.seed}: {folder}", highlight=False,
                           soft_wrap=True)
    cpu, wall = time.process_time(), time.perf_counter()
    model, training = trained_model(cell, dataset, folder, progress)
    spent = time.perf_counter() - wall
    reference = _reference(cell.dataset, cell.data_config, cell.evaluation)
    ensure_controls(reference, data_hash, out)
    seeds = {axis: axis_seed(cell.seed, axis) for axis in ("samples", "likelihood")}
    found = examine(model, reference, cell.evaluation, seeds=seeds, tell=progress.tell)
    progress.finish()
    save_samples(folder / "samples.npz", found.generated)
    save_pictures(folder, model, found.generated, seeds["samples"])
    merge_logs(folder)
    evaluation_seconds = time.perf_counter() - wall - spent
    record = Record(
        model=cell.model,
        dataset=cell.dataset,
        seed=cell.seed,
        config=cell.resolved(),
        config_hash=cell.config_hash(data_hash),
        budget=training.budget,
        parameters=count_parameters(model),
        metrics=found.metrics,
        likelihood=found.likelihoods[0],
        likelihoods=found.likelihoods,
        truth=found.truth,
        speed=found.speed,
        provenance=provenance(
            dataset_sha256=data_hash,
            extractor_sha256=reference.extractor_sha256,
            checkpoint_sha256=training.checkpoint_sha256,
            ema=True,
            sampler=model.sampler,
            wall_seconds=sum(s.seconds for s in training.budget.stages) + evaluation_seconds,
            cpu_seconds=time.process_time() - cpu,
        ),
    )
    record.save(folder / RECORD_FILE)
    (folder / FAILURE_FILE).unlink(missing_ok=True)
    write_atomic(folder / DONE_FILE, b"")
    return record
