"""Write the report again from the records found."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import cli_options as options
from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG

USAGE = "report [DIR]"


def main(argv: Sequence[str]) -> int:
    """The report over all records found in a folder."""
    parser = Parser(f"{PROG} report", "Write the report over all records found in a folder of runs.")
    parser.add_argument("dir", nargs="?", default="runs", type=options.path, metavar="DIR", help="default: runs")
    folder = parser.parse_strictly(argv).dir
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of runs")
    from experiments.cli_run import write_page

    return 0 if write_page(folder) else 1
