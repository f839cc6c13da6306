"""The command line: finds the command, runs it, and turns what cannot be done into one sentence.

Parsing and validation import no torch, so that help, plans and refusals answer in a fraction of a
second; whatever needs torch is imported by the function that needs it.
Exit codes: 0 done, 1 a cell or a check failed, 2 refused, 130 interrupted, 143 asked to end (SIGTERM).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from experiments.cli_options import UsageError
from experiments.commands.run import main as run_one_cell
from experiments.discovery import command_module, command_names, unknown
from experiments.ending import INTERRUPTED, TERMINATED, Terminated, ending_cleanly

RESUME = "interrupted; run the same command again to resume"


def _dispatch(argv: Sequence[str]) -> int:
    for word in argv:
        if "\0" in word or any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(f"{word!a} holds a character that no option and no file may have: use UTF-8 without NUL")
    if not argv or argv[0].startswith("-"):
        return run_one_cell(argv)
    if argv[0] not in command_names():
        raise UsageError(unknown("command", argv[0], command_names()))
    return command_module(argv[0]).main(argv[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments ask and return the exit code."""
    try:
        with ending_cleanly():
            return _dispatch(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, say head, has enough; nothing more can be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(RESUME, file=sys.stderr)
        return INTERRUPTED
    except Terminated:
        print(RESUME, file=sys.stderr)
        return TERMINATED
