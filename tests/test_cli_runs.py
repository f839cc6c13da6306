"""Whole runs through the command line: failures, locks, interruption, repetition."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datamodules import digits
from evaluation.record import load_failure
from experiments.budgets import budget_flops
from experiments.cli_options import resolve_cell, split_overrides
from experiments.locks import cell_lock

ROOT = Path(__file__).resolve().parent.parent
EXAM = {"num_samples": 60, "num_likelihood_images": 8, "num_slow_likelihood_images": 0, "speed_repeats": 1}
QUICK = [f"--evaluation.{name}={value}" for name, value in EXAM.items()]
TINY = ["--budget", "1e9", *QUICK]


def start(root: Path, *args: str) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "run.py", *args]
    return subprocess.Popen(command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(root: Path, *args: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a run."""
    process = start(root, *args)
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err


def test_a_failed_cell_is_said_kept_and_reported(root: Path, tmp_path: Path) -> None:
    args = ["--model", "gan", "--model.batch_size", "5000", *TINY, "--out", str(tmp_path)]
    code, out, err = finish(root, *args)
    assert code == 1
    assert len(err.splitlines()) == 1 and "batch size 5000" in err
    (path,) = tmp_path.glob("gan/digits/*/seed=0/failure.json")
    message = load_failure(path).message
    assert err == f"error: {message}\n"
    assert f"report: {tmp_path / 'report' / 'index.html'}" in out
    assert "batch size 5000" in (tmp_path / "report" / "index.html").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with one finished cell."""
    out = tmp_path_factory.mktemp("runs")
    code, shown, err = finish(ROOT, "--model", "gan", *TINY, "--out", str(out))
    assert (code, err) == (0, "")
    assert "digits, main numbers" in shown and f"report: {out / 'report' / 'index.html'}" in shown
    return out


def test_a_finished_cell_stays_and_a_taken_one_is_left_to_its_holder(root: Path, finished: Path) -> None:
    (path,) = finished.glob("gan/digits/*/seed=0/record.json")
    before = path.read_bytes()
    _, overrides = split_overrides(QUICK)
    taken = resolve_cell("vqvae", "digits", budget_flops("1e9"), 0, overrides)
    folder = taken.folder(finished, digits.load(digits.Config()).sha256)
    with cell_lock(folder):
        code, out, err = finish(root, "--model", "vqvae", *TINY, "--out", str(finished))
        assert code == 1 and len(err.splitlines()) == 1 and "is being worked on by process" in err
        compare = ["compare", "--models", "vqvae", "gan", *TINY, "--max-time", "5s", "--out", str(finished)]
        code, out, err = finish(root, *compare)
    assert (code, err) == (0, "")
    assert "1 of 2 cells finished before" in out and "waiting for 1 cells" in out and "stopped by --max-time" in out
    assert path.read_bytes() == before and not (folder / "config.json").exists()


def test_the_report_can_be_made_again(root: Path, finished: Path) -> None:
    page = finished / "report" / "index.html"
    page.unlink()
    assert finish(root, "report", str(finished)) == (0, f"report: {page}\n", "")
    assert page.is_file()


def test_a_finished_cell_can_be_sampled(root: Path, finished: Path, tmp_path: Path) -> None:
    (checkpoint,) = finished.glob("gan/digits/*/seed=0/checkpoints/model.ckpt")
    picture = tmp_path / "grid.png"
    expected = (0, f"16 images: {picture}\n", "")
    assert finish(root, "sample", str(checkpoint), "--n", "16", "--out", str(picture)) == expected
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_records_has_no_report(root: Path, tmp_path: Path) -> None:
    code, out, err = finish(root, "report", str(tmp_path))
    assert (code, out) == (1, "")
    assert err.startswith("error: no records below") and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wanted", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_resumes(wanted: signal.Signals, root: Path, tmp_path: Path) -> None:
    args = ["--model", "gan", "--budget", "2e10", *QUICK, "--out", str(tmp_path)]
    process = start(root, *args)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("gan/digits/*/seed=0/checkpoints/*/*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(wanted)
    _, err = process.communicate(timeout=120)
    if wanted == signal.SIGINT:
        assert process.returncode == 130
        assert err == "interrupted; run the same command again to resume\n"
    else:
        assert process.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("gan/digits/*/seed=0/record.json"))
    code, _, err = finish(root, *args)
    assert (code, err) == (0, "")
    (path,) = tmp_path.glob("gan/digits/*/seed=0/record.json")
    assert json.loads(path.read_text())["seed"] == 0
