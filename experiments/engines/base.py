"""What the engines that use other libraries share; imports none of them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console

from experiments.cell_files import finished_record, save_failure
from experiments.cli_options import UsageError
from experiments.jobs import Job, Outcome, Status, restore_cell

ROOT = Path(__file__).resolve().parents[2]  # of the checkout or installation, for workers to import from


def require(library: str, engine: str, title: str) -> None:
    """Refuse an engine whose library is not installed.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec(library) is None:
        raise UsageError(f"--engine {engine} needs {title}: pip install 'paragon-bench[{engine}]'")


def read_outcome(text: str) -> Outcome:
    """An outcome from the JSON of its fields."""
    content = json.loads(text)
    return Outcome(Status(content["status"]), content["message"])


def without_outcome(job: Job, reason: str) -> Outcome:
    """What became of a job whose process ended without a word: done if its cell is, else failed."""
    if finished_record(Path(job.folder)) is not None:  # it died after its work
        return Outcome(Status.DONE)
    return Outcome(Status.FAILED, save_failure(restore_cell(job.cell), Path(job.folder), reason))


def announced(outcomes: Iterable[tuple[Job, Outcome]], total: int) -> Iterator[tuple[Job, Outcome]]:
    """The outcomes as they come, with a line for each: cells that work elsewhere are not seen working."""
    console = Console()
    for number, (job, outcome) in enumerate(outcomes, start=1):
        console.print(f"{number} of {total}  {job.name}: {outcome.status}", highlight=False, soft_wrap=True)
        yield job, outcome
