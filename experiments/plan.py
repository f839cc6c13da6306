"""What a grid will do before it does it: cells, how far they are, FLOPs, time, disk. Imports no torch."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from datamodules.base import DataNotFoundError
from experiments.budgets import BUDGETS
from experiments.calibration import Estimate, estimate, measurements
from experiments.cell_files import CellState, state
from experiments.config import Cell
from experiments.discovery import dataset_module
from experiments.progress import duration

UNKNOWN = "the data is not on this machine, so that the cell's folder is not known"


@dataclass(frozen=True)
class PlannedCell:
    """A cell, where it lives and how far it is; both None, with the reason, where the data is not there."""

    cell: Cell
    folder: Path | None
    state: CellState | None
    estimate: Estimate
    reason_missing: str | None = None

    @property
    def left(self) -> bool:
        """Whether there is still something to do."""
        return self.state != CellState.DONE

    def content(self) -> dict[str, Any]:
        """As ``--dry-run`` prints it; the seconds are of a cell that starts from nothing."""
        folder = None if self.folder is None else str(self.folder)
        found = {"folder": folder, "state": self.state, "estimate": asdict(self.estimate)}
        reason = {"reason_missing": self.reason_missing} if self.reason_missing else {}
        return {"seed": self.cell.seed, **self.cell.resolved(), **found, **reason}


@dataclass(frozen=True)
class Totals:
    """Sums over a plan. ``left`` are cells that are not done; seconds are those of one after the other."""

    cells: int
    states: dict[str, int]
    train_flops: float
    train_flops_left: float
    seconds_left: float | None
    bytes_left: int | None
    bytes_free: int
    reason_missing: str | None


def make_plan(cells: Sequence[Cell], out: Path, threads: int) -> list[PlannedCell]:
    """Every cell with its state and estimate; nothing is written and nothing downloaded."""
    known = measurements()
    return [_planned(cell, out, estimate(cell, threads, known)) for cell in cells]


def _planned(cell: Cell, out: Path, cost: Estimate) -> PlannedCell:
    module = dataset_module(cell.dataset)
    try:
        here = getattr(module, "is_local", lambda config: True)(cell.data_config)
        digest = module.load(cell.data_config).sha256 if here else None
    except DataNotFoundError as error:
        return PlannedCell(cell, None, None, cost, str(error))
    if digest is None:
        return PlannedCell(cell, None, None, cost, UNKNOWN)
    folder = cell.folder(out, digest)
    return PlannedCell(cell, folder, state(folder), cost)


def totals(plan: Sequence[PlannedCell], out: Path) -> Totals:
    """Sums; time and disk are missing if one cell's are."""
    left = [planned for planned in plan if planned.left]
    seconds = [planned.estimate.seconds for planned in left if planned.estimate.seconds is not None]
    sizes = [planned.estimate.size_bytes for planned in left if planned.estimate.size_bytes is not None]
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    reasons = [p.estimate.reason_missing for p in left if p.estimate.reason_missing]
    return Totals(
        cells=len(plan),
        states=dict(Counter(str(planned.state or "unknown") for planned in plan)),
        train_flops=sum(planned.cell.budget for planned in plan),
        train_flops_left=sum(planned.cell.budget for planned in left),
        seconds_left=sum(seconds) if len(seconds) == len(left) else None,
        bytes_left=sum(sizes) if len(sizes) == len(left) else None,
        bytes_free=shutil.disk_usage(existing).free,
        reason_missing=reasons[0] if reasons else None,
    )


def print_plan(cells: Sequence[Cell], out: Path, threads: int) -> None:
    """The plan as a table on a terminal, as JSON elsewhere."""
    plan = make_plan(cells, out, threads)
    total = totals(plan, out)
    if sys.stdout.isatty():
        _print_table(plan, total, out)
        return
    print(json.dumps({"out": str(out), "cells": [p.content() for p in plan], "totals": asdict(total)}, indent=2))


def size_text(size: float | None) -> str:
    """Bytes in units of 1,024."""
    if size is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit in ("B", "KiB") else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _seconds_text(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)


def _print_table(plan: Sequence[PlannedCell], total: Totals, out: Path) -> None:
    table = Table("model", "dataset", "seed", "budget (FLOPs)", "state", "time", "disk", box=SIMPLE_HEAD)
    for planned in plan:
        cell, cost = planned.cell, planned.estimate
        table.add_row(cell.model, cell.dataset, str(cell.seed), f"{cell.budget:.3g}", planned.state or "unknown",
                      _seconds_text(cost.seconds), size_text(cost.size_bytes))
    console = Console()
    console.print(table)
    states = ", ".join(f"{number} {name}" for name, number in sorted(total.states.items()))
    console.print(f"{total.cells} cells in {out}: {states}", highlight=False)
    console.print(f"left: {total.train_flops_left:.3g} of {total.train_flops:.3g} training FLOPs, "
                  f"{_seconds_text(total.seconds_left)} one after the other, "
                  f"{size_text(total.bytes_left)} of disk ({size_text(total.bytes_free)} free)", highlight=False)
    for reason in dict.fromkeys(p.reason_missing or p.estimate.reason_missing for p in plan if p.left):
        if reason:
            console.print(f"unknown: {reason}", highlight=False)


def print_estimates(cells: Sequence[Cell], threads: int) -> None:
    """What the same cells take at every named budget."""
    known = measurements()
    table = Table("model", *(f"{name} ({flops:.0e} FLOPs)" for name, (flops, _) in BUDGETS.items()), box=SIMPLE_HEAD)
    for cell in cells:
        costs = [estimate(replace(cell, budget=flops), threads, known) for flops, _ in BUDGETS.values()]
        table.add_row(cell.model, *(_seconds_text(cost.seconds) for cost in costs))
    Console().print(table)
