"""Progress of the grids in a folder, from their files alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG

USAGE = "status [DIR]"


def main(argv: Sequence[str]) -> int:
    """Cells done, running, failed, time left; on a terminal until nothing runs any more."""
    parser = Parser(f"{PROG} status", "Show the progress of the grids in a folder of runs, from its files alone.")
    parser.add_argument("dir", nargs="?", default="runs", metavar="DIR", help="default: runs")
    parser.add_argument("--once", action="store_true", help="show it once, also on a terminal")
    parser.add_argument("--json", action="store_true", help="show it once as JSON")
    args = parser.parse_strictly(argv)
    folder = Path(args.dir).expanduser()
    from experiments.status import Watch, as_json, watch

    if not Watch(folder).cells():
        raise UsageError(f"{folder} is not a folder of runs: it holds no cell")
    if args.json:
        print(as_json(Watch(folder).cells(), folder))
        return 0
    return watch(folder, once=args.once)
