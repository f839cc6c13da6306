"""``python run.py selftest``: run the checks, print them as a table, write them as a file.

Exit codes: 0 all passed, 1 one failed, 2 unknown names. With ``--only`` nothing is written: half a
self-test is no stamp.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli_options import Parser
from experiments.discovery import unknown
from experiments.selftest.base import Check, Outcome, Shown, all_checks, perform
from experiments.selftest.stamp import FILE, VERSION, code_sha256, store

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def parser() -> Parser:
    """The options."""
    description = "Hold every metric and bound against known answers and independent implementations; offline."
    options = Parser("python run.py selftest", description)
    options.add_argument("--out", default="runs", type=Path, metavar="DIR", help=f"where {FILE} goes (default: runs)")
    options.add_argument("--only", nargs="+", metavar="NAME", help="groups or checks; then nothing is written")
    options.add_argument("--list", action="store_true", help="print groups and checks, run nothing")
    return options


def select(checks: Sequence[Check], names: Sequence[str] | None) -> list[Check]:
    """The checks of these names or groups, all without names; ``ValueError`` for an unknown one."""
    if names is None:
        return list(checks)
    allowed = list(dict.fromkeys([c.group for c in checks] + [c.name for c in checks]))
    for name in names:
        if name not in allowed:
            raise ValueError(_short(unknown("check", name, allowed), checks))
    return [c for c in checks if c.name in names or c.group in names]


def _short(sentence: str, checks: Sequence[Check]) -> str:
    """Groups instead of all the names: those are what ``--list`` is for."""
    groups = ", ".join(dict.fromkeys(c.group for c in checks))
    return f"{sentence.split(' allowed: ')[0]} groups: {groups}; all names: python run.py selftest --list"


def main(argv: Sequence[str] | None = None, checks: Sequence[Check] | None = None) -> int:
    """Do what the arguments ask and return the exit code; ``checks`` are all there are by default."""
    args = parser().parse_strictly(sys.argv[1:] if argv is None else argv)
    known = all_checks() if checks is None else checks
    try:
        chosen = select(known, args.only)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.list:
        print(listing(chosen))
        return 0
    start = time.perf_counter()
    outcomes = run_all(chosen)
    seconds = time.perf_counter() - start
    passed = sum(o.finding.passed for o in outcomes)
    if args.only is None:
        store(result(outcomes, seconds), args.out)
    print(f"{passed} of {len(outcomes)} checks passed in {seconds:.0f} s")
    return int(passed < len(outcomes))


def listing(checks: Sequence[Check]) -> str:
    """One line for each check."""
    width = max(len(c.name) for c in checks)
    lines: list[str] = []
    for group in dict.fromkeys(c.group for c in checks):
        lines += [group, *(f"  {c.name:<{width}}  {c.summary}" for c in checks if c.group == group)]
    return "\n".join(lines)


def run_all(checks: Sequence[Check]) -> list[Outcome]:
    """Run the checks one after the other, with progress on a terminal, and print the table."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 170)
    outcomes = []
    with console.status("") as status:
        for i, check in enumerate(checks):
            status.update(f"{i + 1} of {len(checks)}: {check.group}, {check.name}")
            outcomes.append(perform(check))
    _print(console, outcomes)
    return outcomes


def _print(console: Console, outcomes: Sequence[Outcome]) -> None:
    console.print(table(outcomes))
    for outcome in outcomes:
        if not outcome.finding.passed:
            console.print(f"FAILED {outcome.check.name}: {_reason(outcome)}", markup=False, highlight=False)


def _reason(outcome: Outcome) -> str:
    """What went wrong in one line: the error's sentence, or both values and what they are."""
    f = outcome.finding
    if f.got is None:
        return f.note
    return f"expected {_shown(f.expected)}, got {_shown(f.got)}; {f.note or outcome.check.summary}"


def table(outcomes: Sequence[Outcome]) -> Table:
    """What, expected, got, tolerance, pass, seconds."""
    from rich.table import Table

    rows = Table(title="Self-test")
    for heading in ("group", "what", "expected", "got", "tolerance"):
        rows.add_column(heading, overflow="fold")
    rows.add_column("pass", justify="center")
    rows.add_column("s", justify="right")
    group = ""
    for o in outcomes:
        f = o.finding
        mark = "[green]✓[/]" if f.passed else "[bold red]✗[/]"
        first = o.check.group if o.check.group != group else ""
        group = o.check.group
        shown = [_shown(value) for value in (f.expected, f.got, f.tolerance)]
        rows.add_row(first, o.check.name, *shown, mark, f"{o.seconds:.1f}")
    return rows


def _shown(value: Shown) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.7g}"


def result(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """The content of ``selftest.json``."""
    from evaluation.machine import versions
    from evaluation.provenance import git_state

    return {
        "version": VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_state()[0],
        "code_sha256": code_sha256(),
        "versions": versions(),
        "seconds": round(seconds, 2),
        "passed": all(o.finding.passed for o in outcomes),
        "checks": [_as_json(o) for o in outcomes],
    }


def _as_json(outcome: Outcome) -> dict[str, Any]:
    f = outcome.finding
    values = {"expected": f.expected, "got": f.got, "tolerance": f.tolerance}
    return {
        "name": outcome.check.name,
        "group": outcome.check.group,
        **{key: _finite(value) for key, value in values.items()},
        "passed": f.passed,
        "seconds": round(outcome.seconds, 3),
        "note": f.note,
    }


def _finite(value: Shown) -> Shown:
    """JSON knows neither NaN nor infinity: they are written as words."""
    return str(value) if isinstance(value, float) and value - value != 0 else value
