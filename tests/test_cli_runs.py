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
from evaluation.record import load_failure, load_record
from experiments.budgets import budget_flops
from experiments.cli_options import resolve_cell, split_overrides
from experiments.locks import cell_lock

EXAM = {"num_samples": 60, "num_likelihood_images": 8, "speed_repeats": 1}
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


def test_a_cell_that_is_taken_does_not_stop_the_others(root: Path, tmp_path: Path) -> None:
    _, overrides = split_overrides(QUICK)
    taken = resolve_cell("gan", "digits", budget_flops("1e9"), 0, overrides)
    data = digits.load(digits.Config())
    args = ["compare", "--models", "gan", "vqvae", *TINY, "--out", str(tmp_path)]
    with cell_lock(taken.folder(tmp_path, data.sha256)):
        code, out, err = finish(root, *args)
    assert code == 1
    assert len(err.splitlines()) == 1 and "is being worked on by process" in err
    (path,) = tmp_path.glob("vqvae/digits/*/seed=0/record.json")
    assert load_record(path).model == "vqvae" and "vqvae" in out
    assert not list(tmp_path.glob("gan/digits/*/seed=0/record.json"))


def test_a_finished_cell_is_not_run_again(root: Path, tmp_path: Path) -> None:
    args = ["--model", "gan", *TINY, "--out", str(tmp_path)]
    assert finish(root, *args)[0] == 0
    (path,) = tmp_path.glob("gan/digits/*/seed=0/record.json")
    before = path.read_bytes()
    code, out, _ = finish(root, *args)
    assert (code, path.read_bytes()) == (0, before)
    assert "fd_digits" in out or "main numbers" in out
    (tmp_path / "report" / "index.html").unlink()
    assert finish(root, "report", str(tmp_path))[0] == 0
    assert (tmp_path / "report" / "index.html").is_file()


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
