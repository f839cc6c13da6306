"""One process per cell: a lock that names its holder and dies with it.

The lock is the kernel's (``flock``, through the filelock library): however its holder ends, the
kernel frees it in the same instant, so there is no dead lock to detect, no process id to mistake
for a reused one, and of two processes that start at once exactly one wins. On Linux it also holds
between hosts on NFS; a forked child shares its parent's lock until it ends. Beside it ``lock.json``
names the holder, for the message only; what a killed holder left there the next one overwrites.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from evaluation.atomic import remove_leftovers, write_json

LOCK_FILE = ".lock"
HOLDER_FILE = "lock.json"
PATIENCE = 0.3  # seconds: whoever only looks whether a lock is held has it for an instant


class LockedError(RuntimeError):
    """Another process works on this cell; the message is one sentence that names it."""


def holder(folder: Path) -> str:
    """Who holds a cell's lock, for a message."""
    try:
        held = json.loads((folder / HOLDER_FILE).read_text())
        return f"process {held['pid']} on {held['host']} since {held['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it took the lock a moment ago and has not signed yet


def is_held(folder: Path) -> bool:
    """Whether somebody works on a cell; nothing is created."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            return False
    except (Timeout, OSError):  # held, or a folder that cannot be written to, in which nobody can be at work
        return (folder / HOLDER_FILE).exists()


@contextmanager
def cell_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a cell's folder, which is created if it is not there; what killed writers left is removed.

    Raises:
        LockedError: Another living process (or another lock in this one) holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, timeout=PATIENCE, poll_interval=0.02)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(f"{folder} is being worked on by {holder(folder)}") from None
    try:
        remove_leftovers(folder)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / HOLDER_FILE, {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        yield
    finally:
        # Signed off before the lock is free: afterwards the file could already be the next holder's.
        (folder / HOLDER_FILE).unlink(missing_ok=True)
        lock.release()
