"""What ``sample`` offers for the diffusion family: images forming, steering, painting, ways between two noises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.pictures import square
from experiments.cli import main
from experiments.cli_sample import Arguments, arguments_for, draw, labels_for
from experiments.sample_request import SampleRequest
from models import load
from tests.experiments.checkpoint_files import save_model
from tests.models.tiny import SHAPE, random_model

FAMILY = ("diffusion", "ddpm", "flow_matching", "consistency")


@pytest.fixture(params=FAMILY)
def any_checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny model of every member with random weights."""
    return save_model(random_model(request.param), request.param, tmp_path / "model.ckpt")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny EDM with random weights."""
    return save_model(random_model("diffusion"), "diffusion", tmp_path / "model.ckpt")


def sample(checkpoint: Path, out: Path, options: str = "") -> dict[str, np.ndarray]:
    """What ``run.py sample`` writes as .npz."""
    assert main(["sample", str(checkpoint), "--out", str(out), *options.split()]) == 0
    with np.load(out) as content:
        return dict(content)


def picture(path: Path, size: int = 8, mode: str = "L", seed: int = 0) -> tuple[Path, np.ndarray]:
    """A picture file of random pixels, and these."""
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path, pixels


def difference(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference in grey levels."""
    return int(np.abs(one.astype(int) - other).max())


# Images forming.


def test_images_forming_are_a_strip_and_two_animations(any_checkpoint: Path, tmp_path: Path) -> None:
    arrays = sample(any_checkpoint, tmp_path / "a.npz", "--trajectory --steps 20")
    assert arrays["trajectory"].shape == (21, 16, *SHAPE)
    assert (arrays["trajectory"][-1] == arrays["images"]).all()
    assert main(["sample", str(any_checkpoint), "--trajectory", "--steps", "20", "--out", str(tmp_path / "b.png")]) == 0
    with Image.open(tmp_path / "b.png") as strip:
        assert strip.size == (12 * 9 * 7 + 7, 16 * 9 * 7 + 7)  # 12 of 21 columns, 16 rows, seven times enlarged
        first, last = (np.asarray(strip)[7:63:7, x : x + 56 : 7] for x in (7, 11 * 63 + 7))
    assert (first == arrays["trajectory"][0, 0, 0]).all() and (last == arrays["images"][0, 0]).all()
    for name in ("b.gif", "b.webp"):
        with Image.open(tmp_path / name) as animation:
            assert animation.n_frames == 21
            animation.seek(20)
            assert (np.asarray(animation.convert("L"))[::11, ::11] == square(arrays["images"])).all()


def test_a_trajectory_changes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    plain = sample(checkpoint, tmp_path / "a.npz", "--n 20")
    forming = sample(checkpoint, tmp_path / "b.npz", "--n 20 --trajectory")
    assert set(plain) == {"images", "labels"} and forming["trajectory"].shape[1] == 20  # two batches
    assert difference(plain["images"], forming["images"]) <= 1


def test_any_ending_gives_all_three_pictures(checkpoint: Path, tmp_path: Path) -> None:
    assert main(["sample", str(checkpoint), "--trajectory", "--n", "2", "--out", str(tmp_path / "new" / "a.gif")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.gif", "a.png", "a.webp"]


def test_the_same_sixteen_images_whatever_the_batch_size(any_checkpoint: Path, tmp_path: Path) -> None:
    image, _ = picture(tmp_path / "image.png")
    mask, _ = picture(tmp_path / "mask.png", seed=1)
    model = load(any_checkpoint)
    for extra in ({}, {"sampler": "ancestral"}, {"sampler": "churn"}, {"image": image, "strength": 0.7},
                  {"image": image, "mask": mask}, {"interpolate": 9}):  # fmt: skip
        request = SampleRequest(any_checkpoint, tmp_path / "a.npz", 16, seed=5, trajectory=True, **extra)
        labels, arguments = labels_for(model, request), arguments_for(model, request)
        together, *apart = (draw(model, labels, 5, arguments, batch_size=size) for size in (16, 5, 1))
        for other in apart:
            assert difference(together.images, other.images) <= 1, extra  # another batch size may move a rounding
            assert difference(together.trajectory, other.trajectory) <= 1, extra


# Steering.


STEERING = [
    ("--steps 9", {"num_steps": 9}),
    ("--sampler euler", {"sampler": "euler"}),
    ("--sampler heun", {"sampler": "heun"}),
    ("--sampler ddim --eta 1", {"sampler": "ddim", "eta": 1.0}),
    ("--sampler ddim --eta 0", {"sampler": "ddim", "eta": 0.0}),
    ("--guidance-scale 3", {"guidance_scale": 3.0}),
    ("--guidance-scale 0", {"guidance_scale": 0.0}),
    (
        "--guidance-scale 3 --guidance-interval 0.1 inf",
        {"guidance_scale": 3.0, "guidance_interval": (0.1, float("inf"))},
    ),
    ("--sampler heun --threshold dynamic", {"sampler": "heun", "threshold": "dynamic"}),
]


@pytest.mark.parametrize(("options", "arguments"), STEERING, ids=[options for options, _ in STEERING])
def test_options_reach_the_sampler(
    options: str, arguments: dict[str, Any], checkpoint: Path, tmp_path: Path
) -> None:
    found = sample(checkpoint, tmp_path / "a.npz", f"--n 6 {options}")
    labels = torch.arange(6) % 3
    expected, default = (draw(load(checkpoint), labels, 0, given) for given in (Arguments(arguments), None))
    assert (found["images"] == expected.images).all() and (found["labels"] == labels.numpy()).all()
    assert (found["images"] != default.images).any()


# A picture to start from.


def test_a_small_strength_stays_near_the_picture_and_a_large_one_leaves_it(checkpoint: Path, tmp_path: Path) -> None:
    image, pixels = picture(tmp_path / "image.png")
    options = f"--n 5 --steps 300 --image {image}"
    near, far = (sample(checkpoint, tmp_path / f"{s}.npz", f"{options} --strength {s}") for s in (0.01, 1))
    assert difference(near["images"], pixels) <= 2
    assert difference(far["images"], pixels) > 50 and near["images"].shape == (5, *SHAPE)


def test_several_pictures_are_taken_in_turn(checkpoint: Path, tmp_path: Path) -> None:
    given = sample(checkpoint, tmp_path / "given.npz", "--n 2")["images"]
    options = f"--n 5 --steps 300 --image {tmp_path / 'given.npz'} --strength 0.01"
    found = sample(checkpoint, tmp_path / "a.npz", options)["images"]
    assert all(difference(found[i], given[i % 2]) <= 2 for i in range(5))


def test_colour_becomes_grey(checkpoint: Path, tmp_path: Path) -> None:
    image, pixels = picture(tmp_path / "image.png", mode="RGB")
    found = sample(checkpoint, tmp_path / "a.npz", f"--n 1 --steps 300 --image {image} --strength 0.01")["images"]
    assert difference(found[0, 0], np.asarray(Image.fromarray(pixels).convert("L"))) <= 2


def test_grey_becomes_colour(tmp_path: Path) -> None:
    from experiments.given_images import read_given

    image, pixels = picture(tmp_path / "image.png")
    assert (read_given(image, (3, 8, 8)) == np.broadcast_to(pixels, (1, 3, 8, 8))).all()


# A part to paint anew.


def test_what_is_black_in_the_mask_is_kept_bit_by_bit(any_checkpoint: Path, tmp_path: Path) -> None:
    image, pixels = picture(tmp_path / "image.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:], mask[:, :4] = 128, 127  # what counts as white and what does not
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = f"--n 4 --image {image} --mask {tmp_path / 'mask.png'}"
    found = sample(any_checkpoint, tmp_path / "a.npz", options)["images"][:, 0]
    assert (found[:, :, :4] == pixels[:, :4]).all()
    assert difference(found[:, :, 4:], pixels[:, 4:]) > 20 and difference(found[0], found[3]) > 1


# From one noise to another.


def test_a_way_begins_and_ends_in_the_images_of_both_seeds(checkpoint: Path, tmp_path: Path) -> None:
    way = sample(checkpoint, tmp_path / "way.npz", "--seed 3 --interpolate 4 --n 5")
    ends = [sample(checkpoint, tmp_path / f"{s}.npz", f"--seed {s} --n 1")["images"][0] for s in (3, 4)]
    assert way["labels"].tolist() == [0] * 5
    assert difference(way["images"][0], ends[0]) <= 1 and difference(way["images"][-1], ends[1]) <= 1
    assert difference(way["images"][2], ends[0]) > 1 and difference(way["images"][2], ends[1]) > 1
    assert sample(checkpoint, tmp_path / "b.npz", "--interpolate 1 --label 2")["labels"].tolist() == [2] * 16


def test_a_sampler_that_draws_noise_draws_the_same_along_the_way(checkpoint: Path, tmp_path: Path) -> None:
    options = "--sampler ancestral --steps 20"
    start = sample(checkpoint, tmp_path / "a.npz", f"--seed 3 --n 1 {options}")["images"][0]
    way = sample(checkpoint, tmp_path / "b.npz", f"--seed 3 --interpolate 4 --n 200 {options}")["images"].astype(int)
    assert difference(way[0], start) == 0
    assert np.abs(np.diff(way, axis=0)).mean() < np.abs(way[0] - way[-1]).mean() / 10  # no jumps


def test_a_way_as_an_animation(checkpoint: Path, tmp_path: Path) -> None:
    way = sample(checkpoint, tmp_path / "a.npz", "--interpolate 1 --n 6")["images"]
    for suffix in ("gif", "webp"):
        out = tmp_path / f"a.{suffix}"
        assert main(["sample", str(checkpoint), "--interpolate", "1", "--n", "6", "--out", str(out)]) == 0
        with Image.open(out) as animation:
            assert animation.n_frames == 6
            animation.seek(5)
            assert (np.asarray(animation.convert("L"))[::40, ::40][1:9, 1:9] == way[5, 0]).all()


# Refusals.

REFUSALS = [
    ("--steps 0", "--steps: must be a whole number from 1 to 1000, not '0'"),
    ("--steps 2.5", "--steps: must be a whole number from 1 to 1000, not '2.5'"),
    ("--sampler heunn", "unknown sampler 'heunn'; did you mean 'heun'? allowed: heun, "),
    ("--threshold static_", "unknown threshold 'static_'; did you mean 'static'?"),
    ("--eta 2", "--eta: must be a number from 0 to 1, not '2'"),
    ("--eta nan", "--eta: must be a number from 0 to 1, not 'nan'"),
    ("--eta 0.5", "--eta is for --sampler ddim, not for 'dpmpp_2m'"),
    ("--guidance-scale -1", "--guidance-scale: must be a number from 0 to 1000, not '-1'"),
    ("--guidance-interval 2 1", "--guidance-interval needs 0 <= low < high, not 2.0 and 1.0"),
    ("--guidance-interval 2", "--guidance-interval: expected 2 arguments"),
    ("--guidance-interval -1 2", "must be a number from 0 on, not '-1'"),
    ("--strength 0.5", "--strength needs --image"),
    ("--mask {grey}", "--mask needs --image"),
    ("--image {grey}", "--image needs --strength, to start from it, or --mask"),
    ("--image {grey} --strength 0", "--strength: must be a number above 0 to 1, not '0'"),
    ("--image {grey} --mask {grey} --strength 0.5", "--strength does not go with --mask"),
    ("--image {large} --strength 0.5", "large.png is 9x9 where the model makes 8x8 pixels"),
    ("--image {grey} --mask {large}", "large.png is 9x9 where the model makes 8x8 pixels"),
    ("--image {grey} --mask {black}", "black.png has no white (at least 128 of 255)"),
    ("--image {clear} --strength 0.5", "clear.png has transparent pixels"),
    ("--image {deep} --strength 0.5", "deep.png cannot be used: its mode I;16 is neither grey nor colour of 8 bits"),
    ("--image {text} --strength 0.5", "text.png cannot be read as a picture"),
    ("--image {floats} --strength 0.5", "holds float64 (1, 1, 8, 8) where the model takes uint8 (N, 1, 8, 8)"),
    ("--image {empty} --strength 0.5", "empty.npz has no array 'images', it has: labels"),
    ("--image nowhere.png --strength 0.5", "nowhere.png cannot be read: it does not exist"),
    ("--interpolate 0", "--interpolate must be another seed than that of --seed, 0"),
    ("--interpolate 1 --n 1", "--interpolate needs --n of at least 2, not 1"),
    ("--trajectory --n 101", "--n must be at most 100 with --trajectory, not 101"),
    ("--label 3", "--label must be from 0 to 2, not 3"),
    ("--out {folder}/a.gif", "is an animation, which needs --trajectory or --interpolate"),
    ("--out {folder}/a.webp", "is an animation, which needs --trajectory or --interpolate"),
]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files that can and that cannot be used, by what is about them."""
    names = ("grey", "large", "black", "clear", "deep", "text")
    found = {name: tmp_path / f"{name}.png" for name in names}
    picture(found["grey"])
    picture(found["large"], size=9)
    Image.new("L", (8, 8)).save(found["black"])
    Image.new("RGBA", (8, 8), (1, 2, 3, 100)).save(found["clear"])
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(found["deep"])
    found["text"].write_text("no picture")
    found |= {name: tmp_path / f"{name}.npz" for name in ("floats", "empty")}
    np.savez(found["floats"], images=np.zeros((1, *SHAPE)))
    np.savez(found["empty"], labels=np.zeros(3))
    return found | {"folder": tmp_path / "new"}


@pytest.mark.parametrize(("options", "expected"), REFUSALS, ids=[options for options, _ in REFUSALS])
def test_a_refusal_is_one_sentence_and_writes_nothing(
    options: str, expected: str, checkpoint: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(files["folder"] / "a.png")] if "--out" not in options else []
    assert main(["sample", str(checkpoint), *out, *options.format(**files).split()]) == 2
    printed = capsys.readouterr()
    assert expected in printed.err and printed.err.startswith("error: ") and len(printed.err.splitlines()) == 1
    assert printed.out == "" and not files["folder"].exists()


def test_what_the_model_refuses_is_said_in_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ddpm = save_model(random_model("ddpm"), "ddpm", tmp_path / "model.ckpt")
    line = ["sample", str(ddpm), "--guidance-interval", "3", "3", "--out", str(tmp_path / "new" / "a.png")]
    assert main(line) == 2
    assert capsys.readouterr().err == "error: --guidance-interval needs 0 <= low < high, not 3.0 and 3.0\n"
    assert not (tmp_path / "new").exists()
