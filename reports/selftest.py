"""The self-test's stamp: whether the code that measured was checked, when, and with what result.

``python run.py selftest`` writes ``selftest.json`` into the folder of runs; the report repeats
its outcome in one line and its checks in a table. A damaged file is one sentence, never fatal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from evaluation.files import FileError, read_json
from reports.columns import duration
from reports.grid import Grid, GridRow

FILE = "selftest.json"
VERSION = 1
NOT_RUN = "Self-test: not run in this folder (python run.py selftest)."
DAMAGED = "Self-test: its result in this folder is damaged (run again: python run.py selftest)."

Shown = float | str | None


@dataclass(frozen=True)
class CheckResult:
    """One known answer, what was got, and by how much they may differ."""

    name: str
    group: str
    expected: Shown
    got: Shown
    tolerance: Shown
    passed: bool
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class SelfTest:
    """The result of one self-test as it was written."""

    version: int
    date: str
    commit: str | None
    code_sha256: str
    versions: dict[str, str]
    seconds: float
    passed: bool
    checks: tuple[CheckResult, ...]


@dataclass(frozen=True)
class Stamp:
    """The line that every report carries; ``passed`` is None where no result is known."""

    text: str
    passed: bool | None
    checks: Grid | None = None


def read_stamp(out: Path, commits: Iterable[str | None]) -> tuple[Stamp, list[str]]:
    """The stamp of a folder of runs, and one sentence per damaged file.

    Args:
        out: Folder of runs.
        commits: Commits of the records; another commit than the self-test's is pointed out.
    """
    path = out / FILE
    if not path.exists():
        return Stamp(NOT_RUN, None), []
    try:
        result = TypeAdapter(SelfTest).validate_python(read_json(path, "a valid self-test result"))
    except FileError as error:
        return Stamp(DAMAGED, None), [str(error)]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        return Stamp(DAMAGED, None), [f"{path} is not a valid self-test result: {where}: {first['msg']}"]
    if result.version != VERSION:
        return Stamp(DAMAGED, None), [f"{path} has version {result.version}; this report reads {VERSION}"]
    return Stamp(_sentence(result, set(commits)), _all_passed(result), _grid(result)), []


def _all_passed(result: SelfTest) -> bool:
    """Judged from the checks themselves; no check at all proves nothing."""
    return result.passed and bool(result.checks) and all(check.passed for check in result.checks)


def _sentence(result: SelfTest, commits: set[str | None]) -> str:
    failed = [check.name for check in result.checks if not check.passed]
    total = len(result.checks)
    text = f"Self-test: {total - len(failed)} of {total} checks passed"
    if failed:
        text += f", {len(failed)} FAILED: {', '.join(failed)};"
    elif not _all_passed(result):
        text += " but the run did NOT pass;"
    text += f" on {result.date[:10]}, commit {(result.commit or 'unknown')[:12]}"
    if any(commit != result.commit for commit in commits):
        text += ", at another commit than the records"
    return f"{text}."


def _grid(result: SelfTest) -> Grid:
    rows = [
        GridRow((
            check.group, check.name, _shown(check.expected), _shown(check.got), _shown(check.tolerance),
            "✓" if check.passed else "✗", f"{check.seconds:.1f}", check.note,
        ), flagged=not check.passed)
        for check in sorted(result.checks, key=lambda check: (check.passed, check.group))
    ]  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))
    return Grid(
        title="Self-test: every check",
        intro=f"Known answers against what this code computes, in {duration(result.seconds)}, with {versions}.",
        header=("group", "what", "expected", "got", "tolerance", "passed", "seconds", "note"),
        rows=tuple(rows), text=(0, 1, 7), folded=True,
    )  # fmt: skip


def _shown(value: Shown) -> str:
    if value is None:
        return "—"
    return value if isinstance(value, str) else f"{value:.8g}"
