"""Runs one cell from start to record, going on where a former run stopped.

A cell's folder fills in this order: ``config.json``, ``checkpoints/``, ``metrics.csv``,
``checkpoints/model.ckpt`` and ``training.json``, ``samples.npz``, pictures, ``record.json`` and, last
of all, the completion marker ``done``. Whatever is there and whole is not made again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from threadpoolctl import threadpool_limits

from datamodules.base import DataNotFoundError, ImageDataset
from evaluation.provenance import git_state, provenance
from evaluation.record import FAILURE_FILE, RECORD_FILE, Record, write_json
from evaluation.runner import Reference, examine
from experiments import calibration
from experiments.artifacts import count_parameters, save_pictures, save_samples, trained_model
from experiments.cell_files import finished_record, save_failure, seal
from experiments.config import Cell
from experiments.control_rows import CONTROL_SEED, ensure_controls
from experiments.discovery import dataset_module
from experiments.locks import cell_lock
from experiments.progress import Progress
from experiments.seeds import axis_seed


class CellError(RuntimeError):
    """A cell that could not be finished; the message is one sentence."""


@lru_cache(maxsize=2)
def _dataset(name: str, config: Any) -> tuple[ImageDataset, str]:
    dataset = dataset_module(name).load(config)
    return dataset, dataset.sha256


@lru_cache(maxsize=2)
def _reference(name: str, data_config: Any, evaluation: Any) -> Reference:
    return Reference(_dataset(name, data_config)[0], evaluation, seed=axis_seed(CONTROL_SEED, "controls"))


def first_line(error: Exception) -> str:
    """What an error says in one line, in words for the two that say it in riddles: no memory and no disk."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in line:
        return f"out of memory ({line}); a smaller batch size or network needs less"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    return line


def limit_threads(threads: int) -> None:
    """Let torch and every other library of this process use so many CPU threads."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def run_cell(cell: Cell, out: Path, *, console: Console) -> Record:
    """Train, sample, evaluate and record one cell, or return its record if it is finished.

    Raises:
        CellError: training or evaluation failed; ``failure.json`` in the cell's folder says why.
        LockedError: another process is at work on this cell.
        DataNotFoundError: the data is not there.
    """
    _, data_hash = _dataset(cell.dataset, cell.data_config)
    folder = cell.folder(out, data_hash)
    progress = Progress(console, folder)
    with _locked(cell, folder):
        record = finished_record(folder, progress.warn)
        if record is not None:
            console.print(f"{cell.model} on {cell.dataset}, seed {cell.seed}: finished before", highlight=False)
            return record
        try:
            return _work(cell, folder, out, progress)
        except DataNotFoundError:
            raise
        except Exception as error:
            raise CellError(save_failure(cell, folder, first_line(error))) from error
        finally:
            progress.close()


@contextmanager
def _locked(cell: Cell, folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(cell_lock(folder))
        except OSError as error:  # a folder that cannot be made or written to
            raise CellError(f"{cell.model} on {cell.dataset}, seed {cell.seed}: {first_line(error)}") from error
        yield


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
    progress.close()
    calibration.note(record, folder)
    seal(folder)
    return record
