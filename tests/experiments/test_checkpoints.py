"""Stopping and going on: bit-identical weights, damaged checkpoints, checkpoints of something else."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.checkpoints import AtomicCheckpointIO, checksum_path, is_intact, newest_fitting, save_checked
from experiments.discovery import model_names
from experiments.progress import Progress
from experiments.training import StagePlan, quiet_lightning, train_stage
from models.base import Stage
from tests.models.tiny import assert_same_weights, silent, tiny_data, train_tiny

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
    said = progress.console.file.getvalue()
    assert said.count("is damaged") == 2 and said.count("can be continued: the stage starts anew") == 1


def test_a_checkpoint_of_another_plan_is_not_continued(tmp_path: Path) -> None:
    interrupt("gan", tmp_path / "one", step=17)
    progress = silent()
    weights = train_tiny("gan", tmp_path / "one", steps=30, progress=progress)
    assert_same_weights(weights, train_tiny("gan", tmp_path / "other", steps=30))
    said = progress.console.file.getvalue()
    assert said.count("belongs to another plan (steps 24 instead of 30") == 2 and "starts anew" in said
    assert [p.name for p in checkpoints(tmp_path / "one")] == [p.name for p in checkpoints(tmp_path / "other")]
    assert len(list(checkpoints(tmp_path / "one")[0].parent.iterdir())) == 4


def test_a_checkpoint_of_another_seed_is_not_continued(tmp_path: Path) -> None:
    interrupt("gan", tmp_path / "one", step=17)
    progress = silent()
    weights = train_tiny("gan", tmp_path / "one", seed=5, progress=progress)
    assert_same_weights(weights, train_tiny("gan", tmp_path / "other", seed=5))
    assert "belongs to another plan (seed 3 instead of 5, start " in progress.console.file.getvalue()


def test_a_stage_is_not_continued_on_top_of_another_first_stage(uninterrupted: dict, tmp_path: Path) -> None:
    interrupt("vqvae", tmp_path, step=11, stage=1)
    newest = checkpoints(tmp_path)[-1]
    content = torch.load(newest, weights_only=True)
    next(v for v in content["state_dict"].values() if v.is_floating_point())[0] += 1
    next(v for k, v in content["state_dict"].items() if k.startswith("ema.average"))[0] += 1
    save_checked(content, newest)
    progress = silent()
    weights = train_tiny("vqvae", tmp_path, progress=progress)
    said = progress.console.file.getvalue()
    assert said.count("belongs to another plan (start ") == 2 and "1-prior can be continued: the stage starts" in said
    assert not all(torch.equal(weights[k], v) for k, v in uninterrupted["vqvae"][0].items() if k.startswith("prior"))


def test_nothing_but_the_last_two_whole_checkpoints_is_kept(uninterrupted: dict, tmp_path: Path) -> None:
    interrupt("vqvae", tmp_path, step=17)
    newest = checkpoints(tmp_path)[-1]
    expected = [p.relative_to(uninterrupted["vqvae"][1]) for p in files(uninterrupted["vqvae"][1])]
    shutil.copy(newest, newest.with_name("chunk-0000.ckpt"))  # what a kill between writing and deleting leaves
    shutil.copy(checksum_path(newest), newest.with_name("chunk-0000.ckpt.sha256"))
    newest.with_name("chunk-0019.ckpt.sha256").write_text("of a checkpoint that was never written")
    newest.with_name("chunk-0001.ckpt").write_bytes(b"without a checksum")
    shutil.copytree(newest.parent, newest.parent.with_name("2-refiner"))  # a stage that the model has no more
    assert_same_weights(uninterrupted["vqvae"][0], train_tiny("vqvae", tmp_path))
    assert [p.relative_to(tmp_path) for p in files(tmp_path)] == expected
    assert len(expected) == 8


def files(folder: Path) -> list[Path]:
    """Everything in the checkpoints' folders."""
    return sorted(folder.glob("checkpoints/*/*"))


def test_a_foreign_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    said: list[str] = []
    for content in ({"epoch": 3}, [1, 2], {"belongs_to": "me"}):
        save_checked(content, tmp_path / "chunk-0001.ckpt")
        assert newest_fitting(tmp_path, {"steps": 3}, said.append) is None
        assert list(tmp_path.iterdir()) == []
    assert len(said) == 6 and all("\n" not in sentence for sentence in said)


class Careless(Stage):
    """A stage that draws from every library's global generator."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        noise = random.random() + np.random.rand() + torch.rand(len(batch["image"]), 64)
        loss = (self.network(batch["image"].flatten(1) / 255 + noise) ** 2).mean()
        self.log("loss", loss)
        return loss


def train_careless(folder: Path, progress: Progress) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    quiet_lightning()
    torch.manual_seed(0)
    stage = Careless(torch.nn.Linear(64, 2), batch_size=8, lr=0.1, ema_half_life=100.0)
    images, labels = tiny_data()
    plan = StagePlan("train", 8, 24, 1.0, 0.0, 0)
    done = train_stage(
        stage, {"image": images, "label": labels}, plan, folder, position=0, seed=0, progress=progress
    )
    return stage.network.state_dict(), done.rows


def test_generators_of_all_libraries_are_seeded_every_step(tmp_path: Path) -> None:
    whole = train_careless(tmp_path / "whole", silent())
    with pytest.raises(Interrupted):
        train_careless(tmp_path / "cut", Stopping(13, 0))
    random.random(), np.random.rand(), torch.rand(3)
    resumed = train_careless(tmp_path / "cut", silent())
    assert_same_weights(whole[0], resumed[0])
    assert whole[1] == resumed[1] and len(whole[1]) == 24


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
