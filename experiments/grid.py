"""A grid of cells: what is left of it is given to an engine until nothing is left.

A cell that another process is working on is left to it; when nothing else is to be done, this one
waits and takes over should that process die. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from datamodules.base import DataNotFoundError
from evaluation.record import write_json
from experiments.cell_files import finished_record
from experiments.cli_options import UsageError
from experiments.config import Cell
from experiments.discovery import dataset_module, engine_module
from experiments.jobs import GridOptions, Job, Outcome, Status, make_job
from experiments.locks import is_held

GRIDS = "grids"
POLL_SECONDS = 0.5


def say(message: str) -> None:
    """One sentence that tells of a fault."""
    print(f"error: {message}", file=sys.stderr)


def data_sha256(cells: Sequence[Cell], out: Path) -> str:
    """The hash of the grid's one dataset; refuses before anything is written if data or folder cannot be had.

    Raises:
        UsageError: the data is not there or the output folder cannot be made.
    """
    try:
        digest = dataset_module(cells[0].dataset).load(cells[0].data_config).sha256
    except DataNotFoundError as error:
        raise UsageError(str(error)) from None
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {str(out)!r} cannot be created: {error.strerror}") from None
    return digest


@dataclass(frozen=True)
class GridFile:
    """What ``status`` knows of a grid: its cells' folders below the output folder, and when it was started."""

    folders: tuple[str, ...]
    engine: str
    started: float


def write_grid_file(jobs: Sequence[Job], out: Path, options: GridOptions) -> None:
    """Leave ``grids/<hash>.json`` below ``out``, the same file for the same cells."""
    folders = tuple(str(Path(job.folder).relative_to(job.out)) for job in jobs)
    name = hashlib.sha256(json.dumps(sorted(folders)).encode()).hexdigest()[:12]
    write_json(out / GRIDS / f"{name}.json", asdict(GridFile(folders, options.engine, jobs[0].since)))


def run_grid(cells: Sequence[Cell], out: Path, options: GridOptions) -> bool:
    """Run every cell that is not finished, wherever the engine runs them; False if one failed.

    Raises:
        UsageError: the data is not there, the output folder cannot be made or the engine cannot be used.
    """
    engine = engine_module(options.engine)
    if hasattr(engine, "check"):
        engine.check(options)
    digest, since = data_sha256(cells, out), time.time()
    jobs = [make_job(cell, out, digest, options, since) for cell in cells]
    console = Console()
    left = [job for job in jobs if finished_record(Path(job.folder)) is None]
    if len(left) < len(jobs):
        finished = f"{len(jobs) - len(left)} of {len(jobs)} cells finished before"
        console.print(finished, highlight=False)
    if not left:
        return True
    with contextlib.suppress(OSError):  # only for those who watch
        write_grid_file(jobs, out, options)
    ends: Counter[Status] = Counter()
    while left:
        outcomes = _round(engine.run(left, options))
        ends.update(outcome.status for _, outcome in outcomes if outcome.status != Status.LOCKED)
        left = [job for job, outcome in outcomes if outcome.status == Status.LOCKED]
        left = _wait_for_others(left, console)
        if left and _time_is_up(left[0]):
            ends[Status.STOPPED] += len(left)
            break
    if ends[Status.STOPPED]:
        console.print(f"stopped by --max-time with {ends[Status.STOPPED]} of {len(jobs)} cells left; "
                      "run the same command again to go on", highlight=False)
    return not ends[Status.FAILED]


def _round(outcomes: Iterator[tuple[Job, Outcome]]) -> list[tuple[Job, Outcome]]:
    """All outcomes; failures are told as they come."""
    found = []
    for job, outcome in outcomes:
        if outcome.status == Status.FAILED:
            say(outcome.message)
        found.append((job, outcome))
    return found


def _time_is_up(job: Job) -> bool:
    return job.deadline is not None and time.time() >= job.deadline


def _wait_for_others(jobs: Sequence[Job], console: Console) -> list[Job]:
    """Wait until a cell that others work on is free, finished or out of time; the cells still to be done."""
    left = [job for job in jobs if finished_record(Path(job.folder)) is None]
    told = False
    while left and all(is_held(Path(job.folder)) for job in left):
        if _time_is_up(left[0]):
            break
        if not told:
            console.print(f"waiting for {len(left)} cells that another process is working on", highlight=False)
            told = True
        time.sleep(POLL_SECONDS)
        left = [job for job in left if finished_record(Path(job.folder)) is None]
    return left
