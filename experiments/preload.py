"""Imports everything a cell needs, ahead of time.

Loaded by the server from which the local engine forks the processes of cells, and by nothing else.
What cannot be imported is said by the cell that needs it, in a sentence, so that nothing is said
here; a process that has no memory even to begin says so in a line.
"""

from __future__ import annotations

import contextlib
import sys

sys.excepthook = lambda kind, error, trace: print(f"error: {kind.__name__}: {error}".rstrip(": "), file=sys.stderr)

with contextlib.suppress(Exception):
    import experiments.engine  # noqa: F401
