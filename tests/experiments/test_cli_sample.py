"""Sampling from a checkpoint file: any model, reproducible image by image, and nothing written when it refuses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.digits import INFO
from experiments.cli import main
from experiments.cli_sample import draw
from experiments.presets import gan
from models import load, model_class
from tests.experiments.checkpoint_files import save_model
from tests.models.tiny import randomised


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny GAN with random weights, large enough for images that differ, saved as cells save theirs."""
    torch.manual_seed(0)
    shape = (INFO.channels, INFO.image_size, INFO.image_size)
    options = asdict(gan.Config(latent_dim=4, width=16, blocks=1))
    model = model_class("gan")(image_shape=shape, num_classes=INFO.num_classes, **options)
    return save_model(randomised(model), "gan", tmp_path / "model.ckpt")


def sample(checkpoint: Path, out: Path, *options: str) -> dict[str, np.ndarray]:
    """What ``run.py sample`` writes as .npz."""
    assert main(["sample", str(checkpoint), "--out", str(out), *options]) == 0
    with np.load(out) as content:
        return dict(content)


def test_images_do_not_depend_on_the_batch(checkpoint: Path) -> None:
    model, labels = load(checkpoint), torch.arange(10)
    one, several = (draw(model, labels, 3, batch_size=size).images.astype(int) for size in (10, 4))
    assert np.abs(one - several).max() <= 1  # another batch size may move a rounding


def test_images_depend_on_seed_and_index_only(checkpoint: Path, tmp_path: Path) -> None:
    many = sample(checkpoint, tmp_path / "many.npz", "--n", "13")
    few = sample(checkpoint, tmp_path / "few.npz", "--n", "6")
    other = sample(checkpoint, tmp_path / "other.npz", "--n", "6", "--seed", "1")
    assert many["images"].shape == (13, 1, 8, 8) and many["images"].dtype == np.uint8
    assert many["labels"].tolist() == [*range(10), 0, 1, 2]
    assert np.abs(many["images"][:6].astype(int) - few["images"]).max() <= 1  # batching may move a rounding
    assert np.abs(other["images"].astype(int) - few["images"]).max() > 1


def test_one_class_on_request(checkpoint: Path, tmp_path: Path) -> None:
    assert sample(checkpoint, tmp_path / "a.npz", "--n", "3", "--label", "7")["labels"].tolist() == [7, 7, 7]


def test_a_grid_to_look_at(checkpoint: Path, tmp_path: Path) -> None:
    assert main(["sample", str(checkpoint), "--n", "10", "--out", str(tmp_path / "new" / "grid.png")]) == 0
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        width, height = picture.size
        assert picture.mode == "L" and width * 28 == height * 37  # 4 columns and 3 rows of 8 pixels, 1 apart


def test_a_class_that_is_not_there_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(checkpoint), "--label", "10", "--out", str(tmp_path / "a.npz")]) == 2
    assert capsys.readouterr().err == "error: --label must be from 0 to 9, not 10\n"
    assert not (tmp_path / "a.npz").exists()


def test_a_truncated_checkpoint_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    assert main(["sample", str(checkpoint), "--out", str(tmp_path / "a.npz")]) == 2
    message = capsys.readouterr().err
    assert str(checkpoint) in message and len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [
        "--steps 4", "--sampler heun", "--guidance-scale 2", "--guidance-interval 0 1", "--threshold static", "--eta 0",
        "--trajectory", "--image a.png --strength 0.5", "--image a.png --mask b.png",
    ],
)
def test_what_a_model_does_not_have_is_refused(
    options: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "a.png"
    assert main(["sample", str(checkpoint), "--out", str(out), *options.split()]) == 2
    name = options.split()[0]
    expected = f"error: {checkpoint} is a GAN and has no {name}; it takes --n, --label, --seed, --psi, --interpolate\n"
    assert capsys.readouterr().err == expected
    assert not out.parent.exists()


def test_truncation_to_nothing_leaves_one_image_per_class(checkpoint: Path, tmp_path: Path) -> None:
    plain = sample(checkpoint, tmp_path / "a.npz", "--n", "20")["images"]
    assert (sample(checkpoint, tmp_path / "b.npz", "--n", "20", "--psi", "1")["images"] == plain).all()
    mean = sample(checkpoint, tmp_path / "c.npz", "--n", "20", "--psi", "0")["images"]
    assert (mean[:10] == mean[10:]).all() and not (plain[:10] == plain[10:]).all()


def test_a_way_between_two_seeds_has_their_images_at_its_ends(checkpoint: Path, tmp_path: Path) -> None:
    options = ("--n", "5", "--seed", "3", "--interpolate", "4", "--label", "2")
    way = sample(checkpoint, tmp_path / "a.npz", *options)["images"].astype(int)
    for place, seed in ((0, 3), (-1, 4)):
        end = sample(checkpoint, tmp_path / "b.npz", *f"--n 1 --seed {seed} --label 2".split())["images"].astype(int)
        assert abs(way[place] - end[0]).max() <= 1
    assert main(["sample", str(checkpoint), "--n", "5", "--interpolate", "1", "--out", str(tmp_path / "a.gif")]) == 0


@pytest.mark.parametrize("psi", ["-1", "3.5", "nan"])
def test_psi_out_of_range_is_refused(
    psi: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(checkpoint), "--psi", psi, "--out", str(tmp_path / "a.npz")]) == 2
    assert f"must be a number from 0 to 3, not '{psi}'" in capsys.readouterr().err
