"""Progress: a bar on a terminal, a plain line now and then elsewhere, and a file for those who watch."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import progress as bars
from rich.console import Console

from evaluation.record import write_json

PLAIN_LINES = 10
PROGRESS_FILE = "progress.json"
FILE_SECONDS = 2.0  # between two writings of it


@dataclass(frozen=True)
class ProgressFile:
    """What a cell is doing: ``done`` of ``total`` steps of ``name``; ``time`` in seconds of the epoch."""

    name: str
    done: int
    total: int
    cell_seconds: float
    time: float


def duration(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """What is being done, its share of the whole, images, losses, images per second and time left."""

    def __init__(self, console: Console, folder: Path | None = None) -> None:
        self.console, self.folder = console, folder
        self.bar: bars.Progress | None = None
        self.began, self.written = time.perf_counter(), -FILE_SECONDS

    def warn(self, message: str) -> None:
        """One sentence that the user must see."""
        self.console.print(f"warning: {message}", style="yellow", highlight=False, soft_wrap=True)

    def start(self, name: str, total: int, batch_size: int = 1) -> None:
        """Something begins that takes ``total`` steps of ``batch_size`` images."""
        self.finish()
        self.name, self.total, self.batch_size, self.shown = name, total, batch_size, 0
        self.started = time.perf_counter()
        self._write(0)
        if self.console.is_terminal:
            self.bar = bars.Progress(
                bars.TextColumn("{task.description}"), bars.BarColumn(bar_width=5), bars.TaskProgressColumn(),
                bars.TextColumn("{task.fields[text]}"), console=self.console,
            )
            self.task = self.bar.add_task(name, total=total, text="")
            self.bar.start()

    def update(self, done: int, losses: dict[str, float] | None = None, seconds: float | None = None) -> None:
        """``done`` steps took ``seconds`` (default: the time since the start)."""
        self._write(done)
        rate = done / max(time.perf_counter() - self.started if seconds is None else seconds, 1e-9)
        left = duration((self.total - done) / rate)
        loss = "".join(f"{name} {value:.3g}  " for name, value in sorted((losses or {}).items()))
        text = f"{done * self.batch_size:,} img  {loss}{rate * self.batch_size:,.0f} img/s  {left} left"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, text=text)
        elif done * PLAIN_LINES // self.total > self.shown:
            self.shown = done * PLAIN_LINES // self.total
            share = f"{done / self.total:4.0%}"
            self.console.print(f"{self.name}  {share}  {text}", highlight=False, soft_wrap=True)

    def _write(self, done: int) -> None:
        """Leave the file for watchers, now and then; a cell does not fail because nobody can watch it."""
        now = time.perf_counter()
        if self.folder is None or now - self.written < FILE_SECONDS:
            return
        self.written = now
        content = ProgressFile(self.name, done, self.total, now - self.began, time.time())
        with contextlib.suppress(OSError):
            write_json(self.folder / PROGRESS_FILE, asdict(content))

    def close(self) -> None:
        """Nothing more will be told: take the file away."""
        self.finish()
        if self.folder is not None:
            with contextlib.suppress(OSError):
                (self.folder / PROGRESS_FILE).unlink(missing_ok=True)

    def tell(self, name: str, done: int, total: int) -> None:
        """``done`` of ``total`` units of something named, which begins when its name is new."""
        if name != getattr(self, "name", None) or done == 0:
            self.start(name, total)
        if done:
            self.update(done)
        elif total == 1 and self.bar is None:
            self.console.print(name, highlight=False)  # of one unit there is no progress to show

    def finish(self) -> None:
        """It is over, or something went wrong: give the terminal back."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
