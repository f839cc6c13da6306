"""One cell as a job that any process on any machine can do: plain JSON in, an outcome out.

Every engine calls ``perform`` and nothing else, and all of them write to the same folder. What
counts is there: a cell that somebody else has finished is not done again, one that somebody is
working on is left to them. Importing this imports no torch.
"""

from __future__ import annotations

import json
import os
import time
import typing
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console

from datamodules.base import DataNotFoundError
from evaluation.config import EvaluationConfig
from experiments.cell_files import failure_message
from experiments.config import Cell, TrainerConfig
from experiments.discovery import dataset_module, preset_module
from experiments.locks import LockedError


class Status(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    LOCKED = "locked"  # somebody else is working on the cell
    STOPPED = "stopped"  # the time was up before it began


@dataclass(frozen=True)
class Outcome:
    """How a job ended, and one sentence where it did not end well."""

    status: Status
    message: str = ""


@dataclass(frozen=True)
class Job:
    """A cell to run. ``cell`` is its resolved configuration with its seed, as in ``config.json``.

    ``folder`` is the cell's own below ``out``. ``threads`` are CPU threads, ``since`` is when the grid
    was started and ``deadline`` when no more is begun (both seconds of the epoch). ``trainer`` is a ``TrainerConfig``.
    """

    cell: dict[str, Any]
    out: str
    folder: str
    threads: int
    since: float
    deadline: float | None = None
    trainer: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call the cell."""
        return f"{self.cell['model']} on {self.cell['dataset']}, seed {self.cell['seed']}"

    def to_json(self) -> str:
        """All fields, for another process or machine."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that ``to_json`` was called on."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class GridOptions:
    """How a grid is run: ``num_cpus`` and ``num_gpus`` per cell, ``retries`` of a cell whose process died.

    ``address`` is that of a Ray cluster; without one Ray starts its own.
    """

    engine: str = "local"
    num_cpus: int = field(default_factory=lambda: default_threads())
    num_gpus: int = 0
    retries: int = 2
    address: str | None = None
    max_seconds: float | None = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


def default_threads() -> int:
    """The threads torch would take by itself: OMP_NUM_THREADS, else the physical cores this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def make_job(cell: Cell, out: Path, data_hash: str, options: GridOptions, since: float) -> Job:
    """The job of a cell."""
    deadline = None if options.max_seconds is None else since + options.max_seconds
    folder = cell.folder(out.absolute(), data_hash)
    content = cell.resolved() | {"seed": cell.seed}
    return Job(content, str(out.absolute()), str(folder), options.num_cpus, since, deadline,
               asdict(options.trainer))


def restore_cell(content: dict[str, Any]) -> Cell:
    """The cell whose ``resolved()`` with its seed this is."""
    model, dataset = content["model"], content["dataset"]
    return Cell(
        model=model,
        dataset=dataset,
        budget=content["budget"],
        seed=content["seed"],
        model_config=_restore(preset_module(model).Config, content["model_config"]),
        data_config=_restore(dataset_module(dataset).Config, content["data_config"]),
        evaluation=_restore(EvaluationConfig, content["evaluation"]),
    )


def _restore(kind: Any, values: dict[str, Any]) -> Any:
    """A configuration from JSON, whose lists are tuples again."""
    tuples = {name for name, hint in typing.get_type_hints(kind).items() if typing.get_origin(hint) is tuple}
    return kind(**{name: tuple(value) if name in tuples else value for name, value in values.items()})


def perform(job: Job, console: Console | None = None) -> Outcome:
    """Do a job in this process; never raises an ``Exception``, so that the other cells of a grid go on."""
    if job.deadline is not None and time.time() >= job.deadline:
        return Outcome(Status.STOPPED)
    failed_elsewhere = failure_message(Path(job.folder), job.since)
    if failed_elsewhere:
        return Outcome(Status.FAILED, failed_elsewhere)
    try:
        return _perform(job, console or Console())
    except Exception as error:  # a library that cannot be loaded, a cell that cannot be made
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Outcome(Status.FAILED, f"{job.name}: {line}")


def _perform(job: Job, console: Console) -> Outcome:
    from experiments import launch

    trainer = TrainerConfig(**job.trainer)
    if trainer.processes > 1 and not launch.launched(trainer):
        return launch.perform_together(job)
    from experiments.engine import CellError, limit_threads, run_cell

    limit_threads(job.threads)
    try:
        run_cell(restore_cell(job.cell), Path(job.out), console=console, trainer=trainer)
    except LockedError as error:
        return Outcome(Status.LOCKED, str(error))
    except (CellError, DataNotFoundError) as error:
        return Outcome(Status.FAILED, str(error))
    return Outcome(Status.DONE)
