"""The command line: finds the command, runs it, and turns what cannot be done into one sentence.

Parsing and validation import no torch, so that help, plans and refusals answer in a fraction of a
second; whatever needs torch is imported by the function that needs it.
Exit codes: 0 done, 1 a cell or a check failed, 2 refused, 130 interrupted, 143 asked to end (SIGTERM).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from experiments.cli_options import UsageError
from experiments.commands.run import main as run_one_cell
from experiments.discovery import command_module, command_names, unknown

INTERRUPTED, TERMINATED = 130, 143
RESUME = "interrupted; run the same command again to resume"


class Terminated(SystemExit):
    """SIGTERM came, as schedulers send it before they kill; what is on disk can be resumed at any moment."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(TERMINATED)


@contextlib.contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Let SIGTERM end what runs inside as Ctrl-C does: children are ended, files closed, locks freed."""
    if threading.current_thread() is not threading.main_thread():  # only the main one is told of signals
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0].startswith("-"):
        return run_one_cell(argv)
    if argv[0] not in command_names():
        raise UsageError(unknown("command", argv[0], command_names()))
    return command_module(argv[0]).main(argv[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments ask and return the exit code."""
    try:
        with _ending_cleanly():
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
