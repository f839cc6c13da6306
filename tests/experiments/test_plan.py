"""Plans, estimates and progress: what is said before and while a grid runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.machine import cpu_name
from evaluation.record import write_json
from experiments import calibration, freshness
from experiments.calibration import Measurement, estimate, measurements, note
from experiments.cell_files import CellState, save_failure
from experiments.cli_options import resolve_cell
from experiments.cli_run import write_page
from experiments.grid import GRIDS
from experiments.locks import cell_lock
from experiments.plan import make_plan, totals
from experiments.progress import PROGRESS_FILE
from experiments.status import Watch, as_json, seconds_left, view
from tests.experiments.grids import folder_of, tiny_cell
from tests.reports.synthetic import MODELS, record, standard, write_cell


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A calibration of this test's own."""
    monkeypatch.setenv("PARAGON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def measured(cell: object, **changes: object) -> Measurement:
    config = cell.resolved()
    digest = calibration._digest
    found = Measurement(cpu_name(), 2, cell.model, cell.dataset, digest(config["model_config"]),
                        digest(config["evaluation"]), 1e9, 60.0, 7.0, 5000, "2026-01-01")
    return replace(found, **changes)


def test_an_estimate_is_of_the_same_conditions() -> None:
    cell = tiny_cell("gan", budget=5e9)
    assert estimate(cell, 2, [measured(cell)]).seconds == pytest.approx(5e9 / 1e9 + 7)
    assert estimate(cell, 2, [measured(cell)]).size_bytes == 5000
    for other in ({"threads": 1}, {"cpu": "another"}, {"model": "vqvae"}, {"evaluation": "x"}, {"model_config": "x"}):
        missing = estimate(cell, 2, [measured(cell, **other)])
        assert missing.seconds is None and "calibrate" in str(missing.reason_missing)


def test_what_a_cell_took_is_kept(cache: Path, tmp_path: Path) -> None:
    cell = tiny_cell("gan")
    made = record("gan", 0)
    config = {"model_config": cell.resolved()["model_config"], "evaluation": cell.resolved()["evaluation"]}
    made = replace(made, dataset="digits", config=made.config | config)
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "a").write_bytes(bytes(123))
    note(made, tmp_path / "cell")
    note(made, tmp_path / "cell")
    (found,) = measurements()
    assert found.size_bytes == 123 and found.model == "gan"
    assert found.flops_per_second == pytest.approx(made.budget.train_flops / found.train_seconds)
    brief = replace(made, budget=replace(made.budget, stages=(replace(made.budget.stages[0], seconds=1e-3),)))
    note(brief, tmp_path / "cell")
    assert measurements() == [found]  # the warm-up of a short training is no rate
    calibration.calibration_file().write_text("[{]")
    assert measurements() == []


def test_a_plan_knows_what_is_done(cache: Path, tmp_path: Path) -> None:
    cells = [tiny_cell("gan", seed, budget=1e9) for seed in range(3)]
    assert {p.state for p in make_plan(cells, tmp_path / "none", 2)} == {CellState.WAITING}
    assert not (tmp_path / "none").exists()
    save_failure(cells[1], folder_of(cells[1], tmp_path), "it broke")
    write_json(calibration.calibration_file(), [vars(measured(cells[0]))])
    plan = make_plan(cells, tmp_path, 2)
    assert [p.state for p in plan] == [CellState.WAITING, CellState.FAILED, CellState.WAITING]
    found = totals(plan, tmp_path)
    assert (found.cells, found.train_flops, found.train_flops_left) == (3, 3e9, 3e9)
    assert found.seconds_left == pytest.approx(3 * 8.0) and found.bytes_left == 15000 and found.bytes_free > 0
    assert totals(make_plan(cells, tmp_path, 1), tmp_path).seconds_left is None  # not measured with one thread


def test_status_of_a_grid(tmp_path: Path) -> None:
    done = [write_cell(tmp_path, record("gan", seed)) for seed in range(2)]
    for path in done:
        (path / "done").touch()
    seconds = record("gan", 0).provenance.wall_seconds
    folders = [str(path.relative_to(tmp_path)) for path in done]
    base = str(Path(folders[0]).parent)
    waiting = [f"{base}/seed={seed}" for seed in (7, 8)]
    write_json(tmp_path / GRIDS / "a.json", {"folders": folders + waiting, "engine": "local", "started": 1.0})
    watcher = Watch(tmp_path)
    assert seconds_left(watcher.cells()) is None and "nothing is running" in text_of(watcher)
    with cell_lock(tmp_path / waiting[0]):
        progress = {"name": "denoiser", "done": 5, "total": 20, "cell_seconds": 1.5, "time": time.time()}
        write_json(tmp_path / waiting[0] / PROGRESS_FILE, progress)
        cells = watcher.cells()
        assert [c.state for c in cells] == [CellState.DONE] * 2 + [CellState.RUNNING, CellState.WAITING]
        assert seconds_left(cells) == pytest.approx(2 * seconds - 1.5)
        assert "denoiser 25%" in text_of(watcher) and "2 of 4 cells done" in text_of(watcher)
    content = json.loads(as_json(cells, tmp_path))
    assert content["counts"] == {"done": 2, "running": 1, "waiting": 1}


def text_of(watcher: Watch) -> str:
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=200)
    console.print(view(watcher.cells()))
    return console.file.getvalue()


def test_a_report_is_written_again_if_something_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    standard(tmp_path, seeds=(0,))
    page = tmp_path / "report" / "index.html"

    def time_written() -> int:
        assert write_page(tmp_path, unless_current=True)
        return page.stat().st_mtime_ns

    first = time_written()
    assert time_written() == first and capsys.readouterr().out.count("report: ") == 2
    (tmp_path / "report" / "table.md").unlink()
    second = time_written()
    assert second > first
    write_cell(tmp_path, record("gan", 9))
    assert time_written() > second
    assert freshness.is_current(tmp_path, freshness.inputs_digest(tmp_path))


def copies(out: Path, cells: list) -> None:
    """Finished cells made of synthetic records, at the places where ``cells`` belong."""
    for cell in cells:
        folder = folder_of(cell, out)
        made = replace(record(cell.model, cell.seed), dataset="digits", config=cell.resolved(),
                       config_hash=folder.parent.name)
        folder.mkdir(parents=True)
        made.save(folder / "record.json")
        (folder / "done").touch()


def test_a_grid_of_which_nothing_is_left_is_quick(root: Path, tmp_path: Path) -> None:
    """By the time of the processor, which neighbours on the machine do not lengthen much."""
    cells = [resolve_cell(model, "digits", 1e9, seed, []) for model in MODELS for seed in range(100)]
    copies(tmp_path, cells)
    seeds = [str(seed) for seed in range(100)]
    line = [sys.executable, "run.py", "compare", "--models", *MODELS, "--budget", "1e9", "--out", str(tmp_path)]

    def seconds() -> float:
        before = os.times()
        done = subprocess.run([*line, "--seeds", *seeds], cwd=root, text=True, capture_output=True, timeout=200)
        assert done.returncode == 0 and "300 of 300 cells finished before" in done.stdout
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    seconds()  # the report is written
    assert min(seconds() for _ in range(3)) < 3


@pytest.mark.slow
def test_a_report_over_a_thousand_records(root: Path, tmp_path: Path) -> None:
    standard(tmp_path, seeds=tuple(range(333)))
    assert len(list(tmp_path.glob("*/*/*/seed=*/record.json"))) >= 999
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "run.py", "report", str(tmp_path)], cwd=root)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0 and time.perf_counter() - start < 20
    assert usage.ru_maxrss < 2**20  # KiB
