"""Do the published tables say what the records say, and are the records those that were sealed?

Everything is computed anew in a temporary folder and compared; nothing is written to the folder of runs.
Seals are checksums, not signatures: who changes a record, its seal and all tables is not found out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from evaluation.record import RECORD_FILE
from evaluation.seal import DONE_FILE, faults
from experiments.identity import identity_fault
from reports.collect import Collection, collect, relative
from reports.differences import report_differences
from reports.page import ReportError, write_report


@dataclass(frozen=True)
class Verification:
    """One sentence per difference, and what was looked at."""

    differences: tuple[str, ...]
    records: int
    sealed: int


def verify(out: Path) -> Verification:
    """Hold records against their seals and places, and the published report against the records.

    Raises:
        ReportError: There is nothing to report on.
    """
    found = collect(out)
    cells = [path.parent for path in sorted(out.glob(f"*/*/*/seed=*/{DONE_FILE}"))]
    sentences = [sentence for folder in cells for sentence in _cell_faults(folder)]
    sentences += identity_faults(found, out)
    sealed = sum((folder / DONE_FILE).stat().st_size > 0 for folder in cells)
    with TemporaryDirectory(prefix="paragon-verify-") as folder:
        made = Path(folder)
        write_report(out, made)
        sentences += [f"report/{sentence}" for sentence in report_differences(out / "report", made)]
    return Verification(tuple(relative(sentence, out) for sentence in sentences), len(found.runs), sealed)


def identity_faults(found: Collection, out: Path) -> list[str]:
    """One sentence for every record that is not that of its place."""
    pairs = ((run.record, run.path) for run in found.runs)
    return [fault for record, path in pairs if (fault := identity_fault(record, path, out))]


def _cell_faults(folder: Path) -> list[str]:
    if not (folder / RECORD_FILE).exists():
        return [f"{folder} is finished, but its {RECORD_FILE} is missing"]
    return faults(folder)


def verify_and_say(out: Path) -> int:
    """Print one line for every difference, or a summary; 1 if there are differences, else 0."""
    try:
        result = verify(out)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for sentence in result.differences:
        print(sentence)
    records = f"{result.records} records, {result.sealed} finished cells with seals"
    if result.differences:
        print(f"{len(result.differences)} differences in {out} ({records})")
        return 1
    print(f"{out}: the published report is what the records give, and every seal and identity holds ({records})")
    return 0
