"""Runs one cell from start to record, going on where a former run stopped.

A cell's folder fills in this order: ``config.json``, ``checkpoints/``, ``metrics.csv``,
``checkpoints/model.ckpt`` and ``training.json``, ``samples.npz``, pictures, ``record.json`` and, last
of all, the completion marker ``done``. Whatever is there and whole is not made again.
"""

from __future__ import annotations

import errno
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
from evaluation.record import FAILURE_FILE, RECORD_FILE, Record, load_record, write_json
from evaluation.runner import Examination, Reference, answer, judge
from evaluation.sharing import total
from experiments import calibration
from experiments.artifacts import (
    Training,
    count_parameters,
    save_inner_pictures,
    save_pictures,
    save_samples,
    trained_model,
)
from experiments.cell_files import finished_record, save_failure, seal
from experiments.config import Cell, TrainerConfig
from experiments.control_rows import CONTROL_SEED, ensure_controls
from experiments.discovery import dataset_module
from experiments.distributed import is_main, joined, on_main, reason
from experiments.ending import end_if_asked
from experiments.locks import cell_lock
from experiments.progress import Progress
from experiments.seeds import axis_seed
from models.base import GenerativeModel

ALONE = TrainerConfig()


class CellError(RuntimeError):
    """A cell that could not be finished; the message is one sentence."""


@lru_cache(maxsize=2)
def _dataset(name: str, config: Any) -> tuple[ImageDataset, str]:
    dataset = dataset_module(name).load(config)
    return dataset, dataset.sha256


@lru_cache(maxsize=2)
def _reference(name: str, data_config: Any, evaluation: Any) -> Reference:
    return Reference(_dataset(name, data_config)[0], evaluation, seed=axis_seed(CONTROL_SEED, "controls"))


def first_line(error: BaseException) -> str:
    """What an error says in one line, in words for the two that say it in riddles: no memory and no disk."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in line:
        return f"out of memory ({line}); a smaller batch size or network needs less"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.strerror}; free some and run the same command again"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    return line


def limit_threads(threads: int) -> None:
    """Let torch and every other library of this process use so many CPU threads."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def run_cell(cell: Cell, out: Path, *, console: Console, trainer: TrainerConfig = ALONE) -> Record:
    """Train, sample, evaluate and record one cell, or return its record if it is finished.

    With a ``trainer`` of several processes all of them call this; the first one writes and talks.

    Raises:
        CellError: training or evaluation failed; ``failure.json`` in the cell's folder says why.
        LockedError: another process is at work on this cell.
        DataNotFoundError: the data is not there.
    """
    with joined(trainer):
        _, data_hash = _dataset(cell.dataset, cell.data_config)
        folder = cell.folder(out, data_hash)
        progress = Progress(console, folder) if is_main() else Progress(Console(quiet=True))
        with _lock(cell, folder):
            if on_main(lambda: finished_record(folder, progress.warn) is not None):
                line = f"{cell.model} on {cell.dataset}, seed {cell.seed}: finished before"
                progress.console.print(line, highlight=False)
                return load_record(folder / RECORD_FILE)
            try:
                return _work(cell, folder, out, progress, trainer)
            except DataNotFoundError:
                raise
            except Exception as error:
                end_if_asked()  # and what was raised then may have become this error
                message = first_line(reason(error))
                raise CellError(save_failure(cell, folder, message) if is_main() else message) from error
            finally:
                progress.close()


@contextmanager
def _lock(cell: Cell, folder: Path) -> Iterator[None]:
    """The cell's lock, held by the first process for all."""
    with ExitStack() as held:
        try:
            on_main(lambda: held.enter_context(cell_lock(folder)))
        except OSError as error:  # a folder that cannot be made or written to
            raise CellError(f"{cell.model} on {cell.dataset}, seed {cell.seed}: {first_line(error)}") from error
        yield


def _work(cell: Cell, folder: Path, out: Path, progress: Progress, trainer: TrainerConfig) -> Record:
    git_state()
    dataset, data_hash = _dataset(cell.dataset, cell.data_config)
    content = cell.resolved() | {"seed": cell.seed, "dataset_sha256": data_hash}
    on_main(lambda: write_json(folder / "config.json", content))
    progress.console.print(f"{cell.model} on {cell.dataset}, seed {cell.seed}: {folder}", highlight=False,
                           soft_wrap=True)
    clock = _Clock()
    model, training = trained_model(cell, dataset, folder, progress, trainer)
    clock.trained()
    reference = _reference(cell.dataset, cell.data_config, cell.evaluation) if is_main() else None
    if reference is not None:
        ensure_controls(reference, data_hash, out)
    seeds = {axis: axis_seed(cell.seed, axis) for axis in ("samples", "likelihood")}
    answers = answer(model, dataset, cell.evaluation, seeds=seeds, tell=progress.tell)
    clock.answered()
    if reference is not None:
        found = judge(model, reference, cell.evaluation, answers, seeds=seeds, tell=progress.tell)
        progress.finish()
        save_samples(folder / "samples.npz", found.generated)
        save_pictures(folder, model, found.generated, seeds["samples"])
        save_inner_pictures(folder, model, dataset.test, seeds["samples"])
        progress.close()
        _finish(_record(cell, model, training, reference, found, clock, trainer), folder)
    on_main(lambda: None)  # the others wait for the record
    return load_record(folder / RECORD_FILE)


class _Clock:
    """Seconds of the wall since training, and of the processors of all processes."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()
        self.others = 0.0

    def trained(self) -> None:
        self.wall = time.perf_counter()

    def answered(self) -> None:
        own = time.process_time() - self.cpu
        self.others = total(own) - own  # after this the first one works alone

    def evaluation_seconds(self) -> float:
        return time.perf_counter() - self.wall

    def cpu_seconds(self) -> float:
        return time.process_time() - self.cpu + self.others


def _record(
    cell: Cell, model: GenerativeModel, training: Training, reference: Reference, found: Examination, clock: _Clock,
    trainer: TrainerConfig,
) -> Record:
    evaluation_seconds = clock.evaluation_seconds()
    dataset_sha256 = reference.dataset.sha256
    return Record(
        model=cell.model,
        dataset=cell.dataset,
        seed=cell.seed,
        config=cell.resolved(),
        config_hash=cell.config_hash(dataset_sha256),
        budget=training.budget,
        parameters=count_parameters(model),
        metrics=found.metrics,
        likelihood=found.likelihoods[0],
        likelihoods=found.likelihoods,
        truth=found.truth,
        reconstruction=found.reconstruction,
        speed=found.speed,
        provenance=provenance(
            dataset_sha256=dataset_sha256,
            extractor_sha256=reference.extractor_sha256,
            checkpoint_sha256=training.checkpoint_sha256,
            ema=model.averages_weights,
            sampler=model.sampler,
            wall_seconds=sum(s.seconds for s in training.budget.stages) + evaluation_seconds,
            cpu_seconds=clock.cpu_seconds(),
            processes=trainer.processes,
            strategy="ddp" if trainer.processes > 1 else None,
        ),
    )


def _finish(record: Record, folder: Path) -> None:
    record.save(folder / RECORD_FILE)
    (folder / FAILURE_FILE).unlink(missing_ok=True)
    calibration.note(record, folder)
    seal(folder)
