"""The progress of running grids, from the files of their cells alone. Imports no torch.

A grid leaves ``grids/<hash>.json`` with its cells' folders; each cell tells by its marker, lock and
failure how far it is, and by ``progress.json`` what it is doing. Whoever can read the folder can watch.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from evaluation.record import FAILURE_FILE, Record, RecordError, load_failure
from experiments.cell_files import CellState, finished_record, state
from experiments.grid import GRIDS, GridFile
from experiments.progress import PROGRESS_FILE, ProgressFile, duration

REFRESH_SECONDS = 2.0
IDLE_SECONDS = 30.0  # with nothing running, as between two cells, before watching ends
SHOWN_FAILURES = 10


@dataclass(frozen=True)
class CellStatus:
    """One cell of a grid: how far it is, its record if it is done, what it is doing if it runs."""

    name: str
    folder: Path
    state: CellState
    record: Record | None = None
    progress: ProgressFile | None = None
    failure: str | None = None


@dataclass
class Watch:
    """Reads the cells of all grids below a folder; what is done is read once."""

    out: Path
    done: dict[Path, Record] = field(default_factory=dict)

    def grids(self) -> list[GridFile]:
        """Every readable grid file, the newest first."""
        found = (_read(path) for path in sorted((self.out / GRIDS).glob("*.json")))
        return sorted((grid for grid in found if grid), key=lambda grid: -grid.started)

    def cells(self) -> list[CellStatus]:
        """Every cell of every grid, once, and every other that has a folder."""
        begun = (str(path.relative_to(self.out)) for path in sorted(self.out.glob("*/*/*/seed=*")))
        folders = dict.fromkeys([name for grid in self.grids() for name in grid.folders] + list(begun))
        return [self._cell(name) for name in folders]

    def _cell(self, name: str) -> CellStatus:
        folder = self.out / name
        model, dataset, _, seed = folder.parts[-4:]
        title = f"{model} on {dataset}, {seed.replace('=', ' ')}"
        record = self.done.get(folder) or finished_record(folder)
        if record:
            self.done[folder] = record
            return CellStatus(title, folder, CellState.DONE, record)
        found = state(folder)
        if found == CellState.RUNNING:
            return CellStatus(title, folder, found, progress=_progress(folder))
        failure = _failure(folder) if found == CellState.FAILED else None
        return CellStatus(title, folder, found, failure=failure)


_GRID, _PROGRESS = TypeAdapter(GridFile), TypeAdapter(ProgressFile)


def _read(path: Path) -> GridFile | None:
    try:
        grid = _GRID.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    inside = [name for name in grid.folders if len(Path(name).parts) == 4 and ".." not in name and name[0] != "/"]
    return GridFile(tuple(inside), grid.engine, grid.started)


def _progress(folder: Path) -> ProgressFile | None:
    try:
        return _PROGRESS.validate_json((folder / PROGRESS_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def _failure(folder: Path) -> str | None:
    try:
        return load_failure(folder / FAILURE_FILE).message
    except RecordError as error:
        return str(error)


def seconds_left(cells: Sequence[CellStatus]) -> float | None:
    """Time until all is done at the present number of running cells; None while nothing is finished or running.

    A cell takes what finished cells of its model and configuration took on average, else what all took.
    """
    took: dict[Path | None, list[float]] = {}
    for cell in cells:
        if cell.record:
            for key in (cell.folder.parent, None):
                took.setdefault(key, []).append(cell.record.provenance.wall_seconds)
    running = sum(cell.state == CellState.RUNNING for cell in cells)
    if not took or not running:
        return None
    left = 0.0
    for cell in cells:
        if cell.state in (CellState.RUNNING, CellState.WAITING, CellState.INTERRUPTED):
            whole = took.get(cell.folder.parent, took[None])
            since = cell.progress.cell_seconds if cell.progress else 0.0
            left += max(sum(whole) / len(whole) - since, 0.0)
    return left / running


def view(cells: Sequence[CellStatus]) -> Group:
    """Counts by model, running cells, failures, time left."""
    table = Table("", *(str(kind) for kind in CellState), box=SIMPLE_HEAD)
    models = dict.fromkeys(cell.folder.parts[-4] for cell in cells)
    for name, members in [*((m, [c for c in cells if c.folder.parts[-4] == m]) for m in models), ("all", cells)]:
        counts = Counter(cell.state for cell in members)
        table.add_row(name, *(str(counts[kind]) for kind in CellState))
    lines = [Text(f"{cell.name}: {_doing(cell)}") for cell in cells if cell.state == CellState.RUNNING]
    failed = [cell.failure for cell in cells if cell.failure]
    lines += [Text(f"failed: {message}", style="red") for message in failed[:SHOWN_FAILURES]]
    if len(failed) > SHOWN_FAILURES:
        lines.append(Text(f"and {len(failed) - SHOWN_FAILURES} more failures", style="red"))
    left = seconds_left(cells)
    done = sum(cell.state == CellState.DONE for cell in cells)
    ending = f"about {duration(left)} left" if left is not None else "time left unknown"
    if not any(cell.state == CellState.RUNNING for cell in cells):
        ending = "nothing is running"
    return Group(table, *lines, Text(f"{done} of {len(cells)} cells done; {ending}"))


def _doing(cell: CellStatus) -> str:
    if cell.progress is None:
        return "at work"
    share = f"{cell.progress.done / max(cell.progress.total, 1):.0%}"
    old = time.time() - cell.progress.time
    stale = f" (last heard of {duration(old)} ago)" if old > 60 else ""
    return f"{cell.progress.name} {share}{stale}"


def as_json(cells: Sequence[CellStatus], out: Path) -> str:
    """The same for programs."""
    left = seconds_left(cells)
    counts = Counter(str(cell.state) for cell in cells)
    content = [
        {"cell": str(cell.folder.relative_to(out)), "state": str(cell.state), "failure": cell.failure,
         "progress": vars(cell.progress) if cell.progress else None}
        for cell in cells
    ]
    return json.dumps({"counts": counts, "seconds_left": left, "cells": content}, indent=2)


def watch(out: Path, *, once: bool) -> int:
    """Show the grids below ``out``: until nothing runs on a terminal, otherwise once."""
    console, watcher = Console(), Watch(out)
    if once or not console.is_terminal:
        console.print(view(watcher.cells()))
        return 0
    with Live(view(cells := watcher.cells()), console=console, auto_refresh=False) as live:
        busy = time.monotonic()
        while _unfinished(cells) and time.monotonic() - busy < IDLE_SECONDS:
            time.sleep(REFRESH_SECONDS)
            live.update(view(cells := watcher.cells()), refresh=True)
            if any(cell.state == CellState.RUNNING for cell in cells):
                busy = time.monotonic()
    return 0


def _unfinished(cells: Sequence[CellStatus]) -> bool:
    return any(cell.state not in (CellState.DONE, CellState.FAILED) for cell in cells)
