"""Stopping and going on: bit-identical weights, damaged checkpoints, killed processes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments.checkpoints import AtomicCheckpointIO, checksum_path, is_intact, newest_fitting, save_checked
from experiments.discovery import model_names
from experiments.progress import Progress
from tests.models.tiny import assert_same_weights, silent, train_tiny

ROOT = Path(__file__).resolve().parents[2]
MODELS = model_names()


class Interrupted(Exception):
    """What a test stops training with."""


class Stopping(Progress):
    """Progress that ends training by an exception at a step of a stage."""

    def __init__(self, step: int, stage: int) -> None:
        super().__init__(silent().console)
        self.step, self.stage, self.now = step, stage, -1

    def start(self, name: str, total: int, batch_size: int = 1) -> None:
        super().start(name, total, batch_size)
        self.now += 1

    def update(self, done: int, losses: dict[str, float] | None = None, seconds: float | None = None) -> None:
        if (self.now, done) == (self.stage, self.step):
            raise Interrupted
        super().update(done, losses, seconds)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, torch.Tensor], Path]]:
    """Weights and folder of a run from start to end, for every model."""
    folders = {name: tmp_path_factory.mktemp(name) for name in MODELS}
    return {name: (train_tiny(name, folder), folder) for name, folder in folders.items()}


def interrupt(name: str, folder: Path, step: int, stage: int = 0) -> None:
    """Start training and stop it in the middle of a step."""
    with pytest.raises(Interrupted):
        train_tiny(name, folder, progress=Stopping(step, stage))


def log_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv")


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of the first stage, oldest first."""
    return sorted(folder.glob("checkpoints/0-*/*.ckpt"))


@pytest.mark.parametrize("name", MODELS)
def test_a_resumed_run_is_bit_identical(name: str, uninterrupted: dict, tmp_path: Path) -> None:
    weights, folder = uninterrupted[name]
    interrupt(name, tmp_path, step=17)
    assert checkpoints(tmp_path)
    progress = silent()
    assert_same_weights(weights, train_tiny(name, tmp_path, progress=progress))
    assert "warning" not in progress.console.file.getvalue()
    pd.testing.assert_frame_equal(log_of(tmp_path), log_of(folder))
    assert not log_of(tmp_path).duplicated(["stage", "images_seen"]).any()


def test_a_run_stopped_in_its_last_stage_does_not_repeat_the_first(uninterrupted: dict, tmp_path: Path) -> None:
    interrupt("vqvae", tmp_path, step=11, stage=1)
    before = {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)}
    assert_same_weights(uninterrupted["vqvae"][0], train_tiny("vqvae", tmp_path))
    assert before == {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)}


def test_a_run_stopped_twice_and_once_before_any_checkpoint(uninterrupted: dict, tmp_path: Path) -> None:
    for step in (1, 9, 18):
        interrupt("gan", tmp_path, step=step)
    assert_same_weights(uninterrupted["gan"][0], train_tiny("gan", tmp_path))
    pd.testing.assert_frame_equal(log_of(tmp_path), log_of(uninterrupted["gan"][1]))


def test_a_truncated_checkpoint_gives_one_sentence_and_the_one_before(uninterrupted: dict, tmp_path: Path) -> None:
    interrupt("gan", tmp_path, step=17)
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    progress = silent()
    assert_same_weights(uninterrupted["gan"][0], train_tiny("gan", tmp_path, progress=progress))
    warnings = [line for line in progress.console.file.getvalue().splitlines() if "warning" in line]
    assert len(warnings) == 1 and str(newest) in warnings[0] and "falling back to the one before" in warnings[0]
    assert all(map(is_intact, checkpoints(tmp_path)))


def test_a_replaced_checkpoint_is_not_warned_about_again(tmp_path: Path) -> None:
    interrupt("gan", tmp_path, step=17)
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(b"")
    interrupt("gan", tmp_path, step=20)
    progress = silent()
    train_tiny("gan", tmp_path, progress=progress)
    assert "warning" not in progress.console.file.getvalue()


def test_with_all_checkpoints_damaged_training_starts_anew(uninterrupted: dict, tmp_path: Path) -> None:
    interrupt("diffusion", tmp_path, step=17)
    for path in checkpoints(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    progress = silent()
    assert_same_weights(uninterrupted["diffusion"][0], train_tiny("diffusion", tmp_path, progress=progress))
    assert progress.console.file.getvalue().count("is damaged") == 2


SCRIPT = "import sys; from pathlib import Path; from tests.models.tiny import train_tiny; "
SCRIPT += "train_tiny('gan', Path(sys.argv[1]), steps=60)"


def test_a_killed_process_resumes_bit_identically(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(killed)], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoints(killed) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.random() * 0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert checkpoints(killed)
    assert_same_weights(train_tiny("gan", whole, steps=60), train_tiny("gan", killed, steps=60))
    pd.testing.assert_frame_equal(log_of(killed), log_of(whole))


def test_other_seeds_give_other_weights(uninterrupted: dict, tmp_path: Path) -> None:
    other = train_tiny("gan", tmp_path, seed=4)
    assert not all(torch.equal(other[k], v) for k, v in uninterrupted["gan"][0].items())


def test_checksums(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.ckpt"
    digest = save_checked({"x": torch.ones(3)}, path)
    assert is_intact(path) and checksum_path(path).read_text() == digest + "\n"
    assert torch.load(path, weights_only=True)["x"].tolist() == [1, 1, 1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert not is_intact(path)
    save_checked({}, path)
    assert is_intact(path)
    checksum_path(path).unlink()
    assert not is_intact(path) and not is_intact(tmp_path / "none.ckpt")


def test_a_removed_checkpoint_takes_its_checksum_along(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checked({}, path)
    AtomicCheckpointIO().remove_checkpoint(path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest_fitting(tmp_path, {}, silent().warn) is None
    assert newest_fitting(tmp_path / "none", {}, silent().warn) is None
