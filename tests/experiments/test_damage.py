"""Flipped bits and cut files: detected or harmless, never a traceback, never other weights in silence."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import digits
from experiments.artifacts import TRAINING_FILE, Training, read_training, trained_model
from experiments.checkpoints import BELONGS_TO, newest_fitting
from experiments.config import Cell
from experiments.training import ALONE
from tests.experiments.killing import cell_of
from tests.models.tiny import assert_same_weights, silent

DAMAGES = 100
Trained = tuple[Cell, Path, dict[str, torch.Tensor], Training]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A trained cell: its folder, weights and costs."""
    cell, folder = cell_of("gan"), tmp_path_factory.mktemp("cell")
    model, training = trained_model(cell, digits.load(digits.Config()), folder, silent(), ALONE)
    return cell, folder, model.state_dict(), training


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A bit flipped, or the end cut off."""
    if draw.random() < 0.3:
        return content[: draw.randrange(len(content))]
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def files(folder: Path) -> list[Path]:
    """What the way back from a kill reads."""
    return [*sorted(folder.glob("checkpoints/**/*.*")), folder / TRAINING_FILE, folder / "metrics.csv"]


def belonging(path: Path) -> dict[str, Any]:
    """What a stage's checkpoint says it belongs to."""
    return dict(torch.load(path, weights_only=True)[BELONGS_TO])


def test_a_hundred_damages(trained: Trained, tmp_path: Path) -> None:
    _, original, _, training = trained
    folder, detected = tmp_path / "cell", 0
    names = [path.relative_to(original) for path in files(original) if path.is_file()]
    assert len(names) == 8
    whole = {name: (original / name).read_bytes() for name in names}
    before, newest = (name for name in names if name.match("chunk-*.ckpt"))
    plan = belonging(original / newest)
    for seed in range(DAMAGES):
        name, said = names[seed % len(names)], []
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original, folder)
        (folder / name).write_bytes(damaged(whole[name], random.Random(seed)))
        assert read_training(folder, said.append) == (None if said else training), (seed, name)
        found = newest_fitting(folder / newest.parent, plan, said.append)
        fallen_back = said and name.name.startswith(newest.name)
        assert found == folder / (before if fallen_back else newest), (seed, name)
        assert found.read_bytes() == whole[found.relative_to(folder)], (seed, name)
        assert len(said) <= 1 and all(str(folder / name).removesuffix(".sha256") in s for s in said), (seed, name)
        detected += len(said)
    assert detected > 0.9 * DAMAGES  # the rest is white space, or an e that became an E


MADE_AGAIN = ("checkpoints/model.ckpt", "checkpoints/model.ckpt.sha256", TRAINING_FILE, "metrics.csv")


@pytest.mark.parametrize("name", MADE_AGAIN)
def test_what_is_damaged_is_made_again_and_is_the_same(trained: Trained, name: str, tmp_path: Path) -> None:
    cell, original, weights, training = trained
    folder, progress = tmp_path / "cell", silent()
    shutil.copytree(original, folder)
    (folder / name).write_bytes(damaged((folder / name).read_bytes(), random.Random(7)))
    model, again = trained_model(cell, digits.load(digits.Config()), folder, progress, ALONE)
    assert_same_weights(model.state_dict(), weights)
    assert again == training  # with the seconds that it took the first time
    said = progress.console.file.getvalue()
    assert said.count("warning") == 1 and "is damaged (its checksum does not match); it is made again" in said
    assert (folder / name).read_bytes() == (original / name).read_bytes()


def test_a_generator_without_its_training_is_made_again(trained: Trained, tmp_path: Path) -> None:
    cell, original, weights, _ = trained
    folder = tmp_path / "cell"
    shutil.copytree(original, folder)
    (folder / TRAINING_FILE).unlink()
    model, _ = trained_model(cell, digits.load(digits.Config()), folder, silent(), ALONE)
    assert_same_weights(model.state_dict(), weights)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"checksum": 3}', b"null"])
def test_a_file_that_is_no_training(trained: Trained, content: bytes, tmp_path: Path) -> None:
    shutil.copytree(trained[1], tmp_path / "cell")
    (tmp_path / "cell" / TRAINING_FILE).write_bytes(content)
    said: list[str] = []
    assert read_training(tmp_path / "cell", said.append) is None
    assert said == [f"{tmp_path / 'cell' / TRAINING_FILE} is damaged (its checksum does not match); it is made again"]
