"""Grids through submitit: processes of this machine where there is no Slurm, and the file that sbatch would get."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from submitit.slurm.slurm import SlurmJob

from evaluation.record import FAILURE_FILE, load_failure
from experiments.cell_files import CellState, state
from experiments.cli import main
from experiments.engines import slurm
from experiments.jobs import GridOptions
from tests.experiments.grids import folder_of, start, tiny_cell
from tests.experiments.test_grid import LONG, pid_at_work, wait_for

BEGUN = re.compile(r"^(\w+) on digits, seed (\d+): /", re.MULTILINE)


@pytest.fixture(autouse=True)
def without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has: a PATH on which there is no sbatch."""
    paths = os.environ["PATH"].split(os.pathsep)
    monkeypatch.setenv("PATH", os.pathsep.join(p for p in paths if not (Path(p) / "sbatch").exists()))


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process and those it starts may use one core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts grids; what a failed test leaves running is ended."""
    processes: list[subprocess.Popen[str]] = []

    def begin(out: Path, *args: str) -> subprocess.Popen[str]:
        processes.append(start(out, "--engine", "slurm", *args))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate()


def test_a_missing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)  # what Python has there for what cannot be imported
    assert main(["compare", "--models", "gan", "--engine", "slurm", "--out", str(tmp_path / "out")]) == 2
    expected = "error: --engine slurm needs submitit: pip install 'paragon-bench[slurm]'\n"
    assert capsys.readouterr().err == expected
    assert list(tmp_path.iterdir()) == []


def test_more_cores_than_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    args = ["compare", "--models", "gan", "--engine", "slurm", "--num-cpus", "4000", "--out", str(out)]
    assert main(args) == 2
    assert re.fullmatch(r"error: --num-cpus 4000 is more than the \d+ cores of this machine, which has no sbatch\n",
                        capsys.readouterr().err)
    assert not out.exists()


def test_one_cell_at_a_time_on_one_core(
    one_core: None, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    shown, errors = (grid := started(tmp_path, "--seeds", "0", "1")).communicate(timeout=200)
    assert (grid.returncode, errors) == (0, "")
    first, *told = shown.splitlines()
    assert first.startswith("2 cells go to this machine, 1 at a time: it has no sbatch; their output is in ")
    assert told == ["1 of 2  gan on digits, seed 0: done", "2 of 2  gan on digits, seed 1: done"]
    folders = [folder_of(tiny_cell("gan", seed), tmp_path) for seed in (0, 1)]
    assert [state(folder) for folder in folders] == [CellState.DONE] * 2
    assert (folders[0] / "done").stat().st_mtime < (folders[1] / "config.json").stat().st_mtime
    # Only the user sees what was submitted, and of it nothing is left but what the cells printed.
    (left,) = (tmp_path / "slurm").iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (left, left.parent)] == [0o700] * 2
    assert {path.suffix for path in left.iterdir()} == {".out", ".err"}
    begun = [BEGUN.findall(path.read_text()) for path in left.glob("*.out")]
    assert sorted(begun) == [[("gan", "0")], [("gan", "1")]]


def test_a_cell_that_dies_does_not_stop_the_others(
    one_core: None, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """The first is killed at both of its attempts, the second cannot be trained."""
    victim = folder_of(tiny_cell("gan", 0, budget=1e12), tmp_path)
    grid = started(tmp_path, "--seeds", "0", "1", "--broken", "1", "--retries", "1", "--budget", LONG)
    killed: list[int | None] = [None]
    for _ in range(2):
        wait_for(lambda: pid_at_work(victim) not in killed)  # the note of one that was killed stays
        killed.append(pid_at_work(victim))
        os.kill(killed[-1] or 0, signal.SIGKILL)
    shown, errors = grid.communicate(timeout=120)
    assert grid.returncode == 1
    told = errors.splitlines()
    assert len(told) == 2 and any("the batch size 5000 is larger" in line for line in told)
    (died,) = (line for line in told if "seed 0" in line)
    assert died.startswith("error: gan on digits, seed 0: its process died and left no outcome; ")
    assert died == f"error: {load_failure(victim / FAILURE_FILE).message}"
    assert sorted(line.partition("  ")[2] for line in shown.splitlines()[1:]) == [
        "gan on digits, seed 0: failed", "gan on digits, seed 1: failed"
    ]


def test_ctrl_c_takes_the_cells_with_it(tmp_path: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    folder = folder_of(tiny_cell("gan", budget=1e12), tmp_path)
    grid = started(tmp_path, "--budget", LONG)
    wait_for(lambda: (folder / "progress.json").exists())
    worker = psutil.Process(pid_at_work(folder))
    grid.send_signal(signal.SIGINT)
    grid.communicate(timeout=60)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert state(folder) == CellState.INTERRUPTED
    assert not list((tmp_path / "slurm").rglob("*.pkl"))


def test_the_file_that_sbatch_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit asks only whether there is an srun; nothing is submitted."""
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    options = GridOptions("slurm", num_cpus=3, num_gpus=2, retries=4, max_seconds=5400)
    executor = slurm._executor(tmp_path, options, slurm=True)._executor
    executor.parameters["map_count"] = 12  # as submitit has it for an array of twelve
    text = executor._make_submission_file_text(executor._submitit_command_str, "0")
    asked = set(re.findall(r"^#SBATCH --(.*)$", text, re.MULTILINE))
    assert asked >= {
        "array=0-11%12", "cpus-per-task=3", "gpus-per-node=2", "time=90", "nodes=1", "requeue", "job-name=paragon"
    }
    assert f"PYTHONPATH={slurm.ROOT}" in text.splitlines()[-1]
    assert executor.max_num_timeout == 4
    executor.parameters["map_count"] = 1000
    assert "array=0-999%64" in executor._make_submission_file_text("", "0")
    plain = slurm._executor(tmp_path, GridOptions("slurm", num_cpus=1), slurm=True)._executor
    assert "gpus" not in plain._make_submission_file_text("", "0")
    assert "--time=1440\n" in plain._make_submission_file_text("", "0")


def test_what_is_queued_again_is_the_same() -> None:
    work = slurm.Work("answer.json")
    again = work.checkpoint("{}")
    assert (again.function, again.args) == (work, ("{}",))


def test_a_job_has_not_ended_because_slurm_is_not_to_be_reached(tmp_path: Path) -> None:
    queue, handle = slurm._Slurm(), SlurmJob(tmp_path, "7_1")
    for _ in range(3):
        queue.asked = time.monotonic() - 1000
        assert not queue.has_ended(handle)
    assert queue.how_it_ended(handle) == ("its Slurm job 7_1 ended without an outcome (unknown to Slurm)", True)
