"""Run resolved cells one after the other, then write the report and show the main numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from datamodules.base import DataNotFoundError
from evaluation.record import Record
from experiments.cli_options import UsageError
from experiments.config import Cell
from experiments.discovery import dataset_module
from experiments.locks import LockedError


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


def _prepare(cells: Sequence[Cell], out: Path) -> None:
    """Refuse before anything is written: the data (read once, then cached), then the output folder."""
    try:
        for cell in cells:
            dataset_module(cell.dataset).load(cell.data_config)
    except DataNotFoundError as error:
        raise UsageError(str(error)) from None
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {str(out)!r} cannot be created: {error.strerror}") from None


def run_cells(cells: Sequence[Cell], out: Path) -> int:
    """Run every cell, report over all that is in ``out``; 1 if a cell failed, else 0.

    Raises:
        UsageError: The data is not there or the output folder cannot be made.
    """
    _prepare(cells, out)
    from experiments.engine import CellError, run_cell

    console = Console()
    records: list[Record] = []
    for cell in cells:
        try:
            records.append(run_cell(cell, out, console=console))
        except (CellError, LockedError) as error:
            _say(str(error))
    written = write_page(out)
    if records:
        console.print(summary_table(records))
    return 0 if written and len(records) == len(cells) else 1


def write_page(out: Path) -> bool:
    """Write the report and print where it is; False if there is nothing to report on."""
    from experiments.selftest.stamp import stamp
    from reports.page import ReportError, write_report

    stamp(out)
    try:
        page = write_report(out)
    except ReportError as error:
        _say(str(error))
        return False
    print(f"report: {page}")
    return True


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _columns(records: Sequence[Record]) -> dict[str, Callable[[Record], float | None]]:
    """Heading and value of the numbers shown, few enough for 80 characters; the report has all of them."""
    from evaluation.metrics.driver import metric_key

    features = records[0].config["evaluation"]["features"] or [dataset_module(records[0].dataset).INFO.default_features]
    distance = metric_key("fd_{features}", features[0], main=True)

    def metric(record: Record, name: str) -> float | None:
        return record.metrics[name].value if name in record.metrics else None

    return {
        distance: lambda record: metric(record, distance),
        "agreement": lambda record: metric(record, "class_agreement"),
        "bits/dim": lambda record: record.likelihood.bits_per_dim,
        "images/s": lambda record: record.speed.images_per_second,
        "seconds": lambda record: record.provenance.wall_seconds,
    }


def summary_table(records: Sequence[Record]) -> Table:
    """The main numbers of some records, one row each."""
    columns = _columns(records)
    table = Table("model", "seed", *columns, title=f"{records[0].dataset}, main numbers", box=SIMPLE_HEAD)
    for record in records:
        table.add_row(record.model, str(record.seed), *(_number(value(record)) for value in columns.values()))
    return table
