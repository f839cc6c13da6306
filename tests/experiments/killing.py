"""Cells in child processes that are really killed.

The children come from a server that has imported the libraries once, so that one costs a fraction of a second.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console

from datamodules import digits
from evaluation.config import EvaluationConfig
from evaluation.speed import matmul_peak
from experiments.config import Cell
from experiments.engine import limit_threads, run_cell
from tests.models.tiny import tiny_config

EXAM = EvaluationConfig(
    num_samples=20, num_likelihood_images=2, num_slow_likelihood_images=0, speed_repeats=1, features=("pixels",)
)
BUDGET = 1e9
SHORT = {  # what an exam may take less of; a new model's likelihood has its full length
    "evaluation.speed.BATCH_SIZES": (1,), "evaluation.speed.matmul_peak": partial(matmul_peak, size=256, repeats=1),
    "models.gan.likelihood.TEMPERATURES": 2, "models.gan.likelihood.TUNING_TEMPERATURES": 2,
    "models.diffusion.model.BOUND_LEVELS": 2, "models.diffusion.model.BOUND_STEPS": 10,
}
PATIENCE = 120.0


@dataclass(frozen=True)
class Point:
    """The moment at which a child kills itself: when it is about to do something with a file, for the n-th time."""

    event: str  # of ``sys.audit``
    ending: str
    times: int = 1


def cell_of(name: str) -> Cell:
    """A cell that takes seconds."""
    return Cell(name, "digits", BUDGET, 0, tiny_config(name, digits.INFO), digits.Config(), EXAM)


def folder_of(name: str, out: Path) -> Path:
    """The folder of that cell."""
    return cell_of(name).folder(out, digits.load(digits.Config()).sha256)


class Child:
    """A process that runs something; it has begun when this returns."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["experiments.engine", __name__])
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_begin, args=(sender, work, arguments))
        self.process.start()
        sender.close()
        assert self.receiver.poll(PATIENCE), "the child did not begin"
        self.receiver.recv()
        self.began = time.time()

    def end(self, number: int | None = None, after: float = 0.0) -> int:
        """Its exit code, once it has ended by itself or ``after`` seconds by a signal."""
        if number is not None:
            self.process.join(after)
            if self.process.exitcode is None:
                os.kill(self.process.pid or 0, number)
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "the child did not end"
        self.receiver.close()
        return self.process.exitcode


def _begin(sender: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import importlib

    for name, value in SHORT.items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
    limit_threads(1)
    sender.send("begun")
    sys.exit(work(*arguments))


def run(name: str, out: Path, point: Point | None = None) -> None:
    """A child's work: the cell of a model, until a point if there is one."""
    if point is not None:
        die_at(point)
    run_cell(cell_of(name), out, console=Console(file=io.StringIO(), width=500))


def die_at(point: Point) -> None:
    """Kill this process when it comes to a point."""
    left = point.times

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == point.event and str(arguments[event == "os.rename"]).endswith(point.ending):  # the new name
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)

