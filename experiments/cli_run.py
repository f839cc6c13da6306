"""Run resolved cells, then write the report and show the main numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from evaluation.record import Record
from experiments import freshness, launch
from experiments.cell_files import finished_record
from experiments.config import Cell, TrainerConfig
from experiments.discovery import dataset_module
from experiments.grid import data_sha256, run_grid, say
from experiments.jobs import GridOptions, Status, make_job, perform
from experiments.locks import LockedError

MAX_ROWS = 30  # of the table on the terminal


def run_one(cell: Cell, out: Path, trainer: TrainerConfig) -> int:
    """Run one cell in this process, or in several, report over all that is in ``out``; 1 if it failed, else 0.

    Raises:
        UsageError: The data is not there or the output folder cannot be made.
    """
    digest = data_sha256([cell], out)
    if trainer.processes > 1:
        return _run_together(cell, out, trainer, digest)
    from experiments.engine import CellError, run_cell

    console = Console()
    records = []
    try:
        records = [run_cell(cell, out, console=console)]
    except (CellError, LockedError) as error:
        say(str(error))
    written = write_page(out)
    if records:
        console.print(summary_table(records))
    return 0 if written and records else 1


def _run_together(cell: Cell, out: Path, trainer: TrainerConfig, digest: str) -> int:
    """The same with several processes; those that torchrun or srun started all come here, and the first one reports."""
    job = make_job(cell, out, digest, GridOptions(trainer=trainer), time.time())
    if launch.launched(trainer):
        job = replace(job, threads=launch.threads_per_process(job.threads, trainer))
    outcome = perform(job)
    if launch.launched(trainer) and launch.rank() > 0:
        return 0
    if outcome.status != Status.DONE:
        say(outcome.message)
    written = write_page(out)
    record = finished_record(cell.folder(out, digest))
    if record:
        Console().print(summary_table([record]))
    return 0 if written and outcome.status == Status.DONE else 1


def run_all(cells: Sequence[Cell], out: Path, options: GridOptions) -> int:
    """Run a grid, report over all that is in ``out``; 1 if a cell failed, else 0.

    Raises:
        UsageError: The data is not there or the output folder cannot be made.
    """
    finished = run_grid(cells, out, options)
    written = write_page(out, unless_current=True)
    digest = data_sha256(cells, out)
    shown = (finished_record(cell.folder(out, digest)) for cell in cells[:MAX_ROWS])
    records = [record for record in shown if record]
    if records:
        Console().print(summary_table(records))
    if len(cells) > MAX_ROWS:
        print(f"the first {MAX_ROWS} of {len(cells)} cells; the report has them all")
    return 0 if written and finished else 1


def write_page(out: Path, *, unless_current: bool = False) -> bool:
    """Write the report and print where it is; False if there is nothing to report on.

    ``unless_current`` leaves a report as it is that was made by this code from the very files that are there.
    """
    from experiments.selftest.stamp import stamp

    stamp(out)
    page = out / "report" / "index.html"
    before = freshness.inputs_digest(out)
    if not (unless_current and freshness.is_current(out, before)):
        from reports.page import ReportError, write_report

        try:
            page = write_report(out)
        except ReportError as error:
            say(str(error))
            return False
        freshness.remember(out, before)
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
