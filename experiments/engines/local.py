"""One cell after the other, each in a fresh process of this machine.

A process of its own gives back all its memory, cannot disturb the next cell, and may die (out of
memory, a fault in a library) without taking the grid with it. Where the system can fork, the
processes come from a server that has imported the libraries once, so that a cell costs no imports.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from experiments.cell_files import save_failure
from experiments.jobs import GridOptions, Job, Outcome, Status, perform, restore_cell
from experiments.locks import holder, is_held

PRELOAD = ["experiments.preload"]


def run(jobs: Sequence[Job], options: GridOptions) -> Iterator[tuple[Job, Outcome]]:
    """Every job with its outcome, in order."""
    context = warm_up()
    for job in jobs:
        yield job, _outcome(context, job, options.retries)


def warm_up() -> Any:
    """Start importing the libraries in the background; returns the context that makes processes."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        from multiprocessing import forkserver

        context.set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()
    return context


def _outcome(context: Any, job: Job, retries: int) -> Outcome:
    folder = Path(job.folder)
    if is_held(folder):  # not worth a process
        return Outcome(Status.LOCKED, f"{folder} is being worked on by {holder(folder)}")
    for _ in range(retries + 1):
        outcome, end = _attempt(context, job)
        if outcome is not None:
            return outcome
    return Outcome(Status.FAILED, save_failure(restore_cell(job.cell), folder, end))


def _attempt(context: Any, job: Job) -> tuple[Outcome | None, str]:
    """The outcome, or None and how the process ended without one."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job.to_json(), sender))
    try:
        process.start()
    except (OSError, EOFError) as error:  # no memory for another process, or the server of processes died of that
        return None, f"no process could be started for it ({str(error) or type(error).__name__})"
    finally:
        sender.close()
    try:
        wait([receiver, process.sentinel])
        outcome = _received(receiver)
        process.join()
    except BaseException:  # Ctrl-C: whatever the cell was doing, it can be resumed
        process.kill()
        process.join()
        raise
    finally:
        receiver.close()
    return outcome, how_it_ended(process.exitcode)


def _received(receiver: Connection) -> Outcome | None:
    try:
        content = json.loads(receiver.recv_bytes())
    except (EOFError, OSError, ValueError):
        return None
    return Outcome(Status(content["status"]), content["message"])


def how_it_ended(code: int) -> str:
    """Why a process ended that gave no outcome, in words."""
    if code >= 0:
        return f"its process ended with code {code} and left no outcome"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = " (perhaps out of memory)" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{memory}"


def _work(job: str, sender: Connection) -> None:
    """The child's life: do the job, send the outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        outcome = perform(Job.from_json(job))
        sender.send_bytes(json.dumps(asdict(outcome)).encode())
    except MemoryError:  # not even enough for the outcome
        os._exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
