"""What ``sample`` offers for models of codes: likelier codes, steps, painting; and how it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.cli import main
from tests.experiments.checkpoint_files import save_model
from tests.models.tiny import random_model

MODELS = ("vqvae", "maskgit")


@pytest.fixture(params=MODELS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny model of codes with random weights."""
    return save_model(random_model(request.param), request.param, tmp_path / f"{request.param}.ckpt")


def sample(checkpoint: Path, out: Path, options: str = "") -> np.ndarray:
    """The images that ``run.py sample`` writes as .npz."""
    assert main(["sample", str(checkpoint), "--out", str(out), "--n", "6", *options.split()]) == 0
    with np.load(out) as content:
        return content["images"]


def refused(checkpoint: Path, options: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which options are refused."""
    assert main(["sample", str(checkpoint), "--out", str(checkpoint.parent / "no.npz"), *options.split()]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and not (checkpoint.parent / "no.npz").exists()
    return said


def test_likelier_codes(checkpoint: Path, tmp_path: Path) -> None:
    plain = sample(checkpoint, tmp_path / "a.npz")
    assert (plain == sample(checkpoint, tmp_path / "b.npz", "--temperature 1 --top-k 0 --top-p 1")).all()
    found = [sample(checkpoint, tmp_path / "c.npz", o) for o in ("--temperature 0.3", "--top-k 2", "--top-p 0.4")]
    assert all((plain != other).any() for other in found)


def test_painting_keeps_what_is_black(checkpoint: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    white = np.zeros((8, 8), np.uint8)
    white[2:5, 4:] = 255
    for name, picture in (("image", pixels), ("mask", white)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    found = sample(checkpoint, tmp_path / "a.npz", f"--image {tmp_path}/image.png --mask {tmp_path}/mask.png")
    assert (found[:, 0, white == 0] == pixels[white == 0]).all()
    assert (found[:, 0, white > 0] != pixels[white > 0]).any()
    assert len({image.tobytes() for image in found}) > 1


def test_steps_are_for_parallel_decoding(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if checkpoint.stem == "maskgit":
        plain = sample(checkpoint, tmp_path / "a.npz")
        for options in ("--steps 16", "--choice-temperature 0"):
            assert (plain != sample(checkpoint, tmp_path / "b.npz", options)).any()
        takes = "it takes --n, --label, --seed, --steps, --temperature, --top-k, --top-p, --choice-temperature, --image"
        assert f"is a MaskGIT and has no --eta; {takes}, --mask" in refused(checkpoint, "--eta 0", capsys)
        return
    takes = "it takes --n, --label, --seed, --temperature, --top-k, --top-p, --image, --mask"
    for options in ("--steps 8", "--choice-temperature 1", "--trajectory", "--sampler heun", "--guidance-scale 2"):
        sentence = f"error: {checkpoint} is a VQVAE and has no {options.split()[0]}; {takes}\n"
        assert refused(checkpoint, options, capsys) == sentence


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--temperature 0", "must be a number from 0.001 to 100, not '0'"), ("--top-p 0", "not '0'"),
        ("--top-p 1.5", "not '1.5'"), ("--top-k -1", "not '-1'"), ("--mask a.png", "--mask needs --image"),
        ("--image a.png", "--image needs --strength, to start from it, or --mask"),
        ("--image a.png --strength 0.5", "has no --strength"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save_model(random_model("vqvae"), "vqvae", tmp_path / "vqvae.ckpt")
    assert message in refused(checkpoint, options, capsys)
