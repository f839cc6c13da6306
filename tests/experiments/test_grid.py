"""Grids through the local engine: real processes that are raced, killed and interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from evaluation.record import FAILURE_FILE, load_failure
from experiments.cell_files import CellState, faults, state
from experiments.discovery import engine_module, engine_names, model_names
from experiments.engines.local import how_it_ended
from experiments.grid import run_grid
from experiments.jobs import GridOptions
from tests.experiments.grids import finish, folder_of, result, start, tiny_cell

BEGUN = re.compile(r"^(\w+) on digits, seed (\d+): /", re.MULTILINE)
LONG = "1e12"  # FLOPs: half a minute for a tiny model


def wait_for(ready: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def pid_at_work(folder: Path) -> int | None:
    """The process that signed a cell's lock."""
    try:
        return json.loads((folder / "lock.json").read_text())["pid"]
    except (OSError, ValueError):
        return None


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts grids; what a failed test leaves running is ended."""
    processes: list[subprocess.Popen[str]] = []

    def begin(out: Path, *args: str) -> subprocess.Popen[str]:
        processes.append(start(out, *args))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_two_grids_at_once_share_the_cells(tmp_path: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    """A third process holds none of the cells; each cell is begun once, and both end well."""
    models = model_names()
    args = ["--models", *models, "--seeds", "0", "1"]
    both = [started(tmp_path, *args) for _ in range(2)]
    ends = [process.communicate(timeout=280) for process in both]
    assert [(process.returncode, errors) for process, (_, errors) in zip(both, ends, strict=True)] == [(0, "")] * 2
    begun = Counter(found for shown, _ in ends for found in BEGUN.findall(shown))
    assert begun == {(model, seed): 1 for model in models for seed in ("0", "1")}
    folders = [folder_of(tiny_cell(model, seed), tmp_path) for model in models for seed in (0, 1)]
    assert [state(folder) for folder in folders] == [CellState.DONE] * len(folders)
    assert [fault for folder in folders for fault in faults(folder)] == []
    assert len(list(tmp_path.glob("controls/digits/*/real_train.json"))) == 1
    # A third one finds nothing to do, and the result is that of a process that does one cell only.
    assert finish(tmp_path, *args)[1] == f"{len(folders)} of {len(folders)} cells finished before\n"
    alone = tmp_path / "alone"
    assert finish(alone, "--models", "gan", "--seeds", "1")[0] == 0
    assert result(folder_of(tiny_cell("gan", 1), alone)) == result(folder_of(tiny_cell("gan", 1), tmp_path))


def test_a_cell_that_fails_or_dies_does_not_stop_the_others(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    args = ["--seeds", "3", "4", "5", "--broken", "4", "--retries", "0", "--budget", LONG]
    victim, broken = folder_of(tiny_cell("gan", 3, budget=1e12), tmp_path), tiny_cell("gan", 4, batch_size=5000)
    grid = started(tmp_path, *args)
    wait_for(lambda: (victim / "progress.json").exists())
    killed = pid_at_work(victim)
    assert killed is not None and killed != grid.pid
    os.kill(killed, signal.SIGKILL)
    last = folder_of(tiny_cell("gan", 5, budget=1e12), tmp_path)
    wait_for(lambda: (last / "progress.json").exists())
    os.kill(pid_at_work(last) or 0, signal.SIGKILL)
    _, errors = grid.communicate(timeout=60)
    assert grid.returncode == 1
    told = errors.splitlines()
    ended = "its process was ended by SIGKILL (perhaps out of memory)"
    assert told[0] == f"error: gan on digits, seed 3: {ended}"
    assert "batch size 5000 is larger" in told[1] and told[2] == f"error: gan on digits, seed 5: {ended}"
    assert len(told) == 3
    assert load_failure(victim / FAILURE_FILE).message == f"gan on digits, seed 3: {ended}"
    assert state(victim) == CellState.FAILED and broken.seed == 4


def test_a_cell_whose_process_died_is_tried_again(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = folder_of(tiny_cell("gan", budget=2e10), tmp_path)
    grid = started(tmp_path, "--retries", "1", "--budget", "2e10")
    wait_for(lambda: any(folder.glob("checkpoints/*/*.ckpt")))
    os.kill(pid_at_work(folder) or 0, signal.SIGKILL)
    shown, errors = grid.communicate(timeout=120)
    assert (grid.returncode, errors) == (0, "")
    assert len(BEGUN.findall(shown)) == 2 and state(folder) == CellState.DONE
    assert not list(folder.glob("**/*.tmp"))


@pytest.mark.parametrize("wanted", [signal.SIGINT, signal.SIGKILL])
def test_a_grid_takes_its_cell_with_it(
    wanted: signal.Signals, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = folder_of(tiny_cell("gan", budget=1e12), tmp_path)
    grid = started(tmp_path, "--budget", LONG)
    wait_for(lambda: any(folder.glob("checkpoints/*/*.ckpt")))
    worker = psutil.Process(pid_at_work(folder))
    grid.send_signal(wanted)
    grid.communicate(timeout=60)
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 30)
    assert state(folder) == CellState.INTERRUPTED


def test_no_cell_is_begun_when_the_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [tiny_cell("gan", seed) for seed in range(3)]
    assert run_grid(cells, tmp_path, GridOptions(num_cpus=1, max_seconds=1e-6))
    said = " ".join(capsys.readouterr().out.split())
    assert said == "stopped by --max-time with 3 of 3 cells left; run the same command again to go on"
    assert [state(folder_of(cell, tmp_path)) for cell in cells] == [CellState.WAITING] * 3


@pytest.mark.parametrize("name", engine_names())
def test_every_engine_has_what_the_grid_asks_for(name: str) -> None:
    engine = engine_module(name)
    assert callable(engine.run) and engine.__doc__


def test_the_end_of_a_process_in_words() -> None:
    assert how_it_ended(1) == "its process ended with code 1 and left no outcome"
    assert how_it_ended(-signal.SIGSEGV) == "its process was ended by SIGSEGV"
    assert how_it_ended(-signal.SIGKILL) == "its process was ended by SIGKILL (perhaps out of memory)"
