"""A cell as a job: plain JSON there and back, and an outcome whatever happens."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from experiments.cell_files import CellState, save_failure, state
from experiments.cli_options import resolve_cell, split_overrides
from experiments.config import Cell
from experiments.discovery import dataset_names, model_names
from experiments.jobs import GridOptions, Job, Outcome, Status, default_threads, make_job, perform, restore_cell
from experiments.locks import cell_lock
from tests.experiments.grids import folder_of, tiny_cell


def job_of(cell: Cell, out: Path, **changes: object) -> Job:
    folder = folder_of(cell, out)
    job = Job(cell.resolved() | {"seed": cell.seed}, str(out), str(folder), threads=1, since=time.time())
    return replace(job, **changes)


def do(job: Job) -> Outcome:
    return perform(Job.from_json(job.to_json()), Console(file=io.StringIO()))


@pytest.mark.parametrize("model", model_names())
@pytest.mark.parametrize("dataset", dataset_names())
def test_a_cell_comes_back_from_json(model: str, dataset: str) -> None:
    words = ["--evaluation.features", "digits", "inception", "--evaluation.batch_size", "7", "--model.lr", "1e-3"]
    cell = resolve_cell(model, dataset, 3e9, 5, split_overrides(words)[1])
    content = json.loads(json.dumps(cell.resolved() | {"seed": 5}))
    assert restore_cell(content) == cell
    assert restore_cell(content).config_hash("x") == cell.config_hash("x")


def test_a_job_is_done_once(tmp_path: Path) -> None:
    cell = tiny_cell("gan")
    job = job_of(cell, tmp_path)
    assert do(job) == Outcome(Status.DONE) and state(folder_of(cell, tmp_path)) == CellState.DONE
    written = (folder_of(cell, tmp_path) / "record.json").stat().st_mtime_ns
    assert do(job) == Outcome(Status.DONE)
    assert (folder_of(cell, tmp_path) / "record.json").stat().st_mtime_ns == written


def test_outcomes_that_are_no_success(tmp_path: Path) -> None:
    cell = tiny_cell("gan", batch_size=5000)
    job, folder = job_of(cell, tmp_path), folder_of(cell, tmp_path)
    with cell_lock(folder):
        outcome = do(job)
    assert outcome.status == Status.LOCKED and "is being worked on by" in outcome.message
    assert do(replace(job, deadline=time.time() - 1)) == Outcome(Status.STOPPED)
    outcome = do(job)
    assert outcome.status == Status.FAILED and outcome.message.startswith("gan on digits, seed 0: the batch size 5000")
    assert state(folder) == CellState.FAILED
    broken = replace(job, cell=job.cell | {"model": "nan"}, folder=str(tmp_path / "x"))
    assert do(broken).status == Status.FAILED and "\n" not in do(broken).message
    (tmp_path / "file").touch()
    outcome = do(replace(job, out=str(tmp_path / "file"), folder=str(tmp_path / "file" / "y")))
    assert outcome.status == Status.FAILED and "Not a directory" in outcome.message


def test_what_failed_elsewhere_meanwhile_is_not_tried_again(tmp_path: Path) -> None:
    cell = tiny_cell("gan")
    folder = folder_of(cell, tmp_path)
    message = save_failure(cell, folder, "it broke")
    assert do(job_of(cell, tmp_path, since=time.time() - 60)) == Outcome(Status.FAILED, message)
    assert state(folder) == CellState.FAILED
    assert do(job_of(cell, tmp_path, since=time.time() + 60)) == Outcome(Status.DONE)  # an old failure is
    assert state(folder) == CellState.DONE and not (folder / "failure.json").exists()


def test_the_job_of_a_cell(tmp_path: Path) -> None:
    options = GridOptions(num_cpus=3, max_seconds=10)
    job = make_job(tiny_cell("vqvae", 2), tmp_path, "hash", options, since=100.0)
    assert (job.threads, job.since, job.deadline, job.name) == (3, 100.0, 110.0, "vqvae on digits, seed 2")
    assert Path(job.folder).is_absolute() and Path(job.folder).parent.parent == tmp_path / "vqvae" / "digits"
    assert make_job(tiny_cell("vqvae"), tmp_path, "hash", GridOptions(), since=100.0).deadline is None


def test_threads_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert default_threads() == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert default_threads() >= 1
