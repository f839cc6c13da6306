"""Write all finished cells into one ZIP file to publish."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments import cli_options as options
from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG

USAGE = "export [DIR] --out FILE.zip"
NOTES = """The same cells give the same bytes. Damaged cells are named and nothing is written (exit code 1);
FILE is never overwritten. Unfinished cells are left out."""


def main(argv: Sequence[str]) -> int:
    """Finished cells and controls as an archive."""
    about = "Write all finished cells of a folder of runs into one ZIP file, with checksums and a description."
    parser = Parser(f"{PROG} export", about, epilog=NOTES)
    parser.add_argument("dir", nargs="?", default="runs", type=options.path, metavar="DIR", help="default: runs")
    parser.add_argument("--out", required=True, type=options.path, metavar="FILE", help="the archive, .zip")
    parser.add_argument("--checkpoints", action="store_true", help="with the trained models")
    args = parser.parse_strictly(argv)
    folder, target = args.dir, args.out
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of runs")
    if target.suffix != ".zip":
        raise UsageError(f"--out {str(target)!r} must end in .zip")
    options.output_folder(str(target.parent))
    from experiments.archive.export import ExportError, export

    try:
        done = export(folder, target, checkpoints=args.checkpoints)
    except ExportError as error:
        for sentence in str(error).splitlines():
            print(f"error: {sentence}", file=sys.stderr)
        return 1
    left = f", {done.unfinished} unfinished left out" if done.unfinished else ""
    state = "archive" if done.written else "there already, the very same"
    print(f"{state}: {target} ({done.cells} cells, {done.controls} controls{left})")
    return 0
