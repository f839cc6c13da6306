"""Compute every published table again and compare."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import cli_options as options
from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG

USAGE = "verify [DIR]"
NOTES = "Exit code 0 if all agree, 1 with one line per difference; nothing in DIR is written."


def main(argv: Sequence[str]) -> int:
    """Published tables, seals and identities against the records."""
    about = "Compute every published table again from the records, check seals and identities, and compare."
    parser = Parser(f"{PROG} verify", about, epilog=NOTES)
    parser.add_argument("dir", nargs="?", default="runs", type=options.path, metavar="DIR", help="default: runs")
    folder = parser.parse_strictly(argv).dir
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of runs")
    from experiments.verify import verify_and_say

    return verify_and_say(folder)
