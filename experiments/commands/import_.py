"""Check an exported ZIP file and add its cells."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments import cli_options as options
from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG, add_out

USAGE = "import FILE.zip"
NOTES = """Everything is checked before anything is written; an archive that is refused leaves no trace (exit code 2).
Cells that are there already stay; one with another record is named and left alone (exit code 1)."""


def main(argv: Sequence[str]) -> int:
    """Cells and controls of an archive."""
    about = "Check an archive of runs and add the cells that are not there yet."
    parser = Parser(f"{PROG} import", about, epilog=NOTES)
    parser.add_argument("file", type=options.path, metavar="FILE", help="what export wrote")
    add_out(parser)
    args = parser.parse_strictly(argv)
    path = args.file
    if not path.is_file():
        raise UsageError(f"there is no archive at {path}")
    from experiments.archive.container import ArchiveError
    from experiments.archive.importing import import_archive

    try:
        found = import_archive(path, args.out)
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    for sentence in found.conflicts:
        print(f"conflict: {sentence}", file=sys.stderr)
    print(f"{found.added} added, {found.present} there already, {len(found.conflicts)} conflicts")
    print(f"the report over all of them: {PROG} report {args.out}")
    return 1 if found.conflicts else 0
