"""Pictures: where each image lands, and what a PNG holds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from evaluation.pictures import (
    Moving,
    animation_bytes,
    by_class,
    png_bytes,
    square,
    thinned,
    tile,
    trajectory_picture,
)


def images(n: int, channels: int = 1) -> np.ndarray:
    """Image i is filled with the grey level i."""
    return np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((channels, 3, 2), np.uint8)


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (6, 3), (7, 3), (2, 5)])
def test_tiles(n: int, columns: int) -> None:
    sheet = tile(images(n), columns)
    rows = -(-n // columns)
    assert sheet.shape == (rows * 4 + 1, columns * 3 + 1)
    cells = [sheet[1 + 4 * (i // columns) :][:3, 1 + 3 * (i % columns) :][:, :2] for i in range(rows * columns)]
    for i, cell in enumerate(cells):
        assert (cell == (i if i < n else 255)).all()
    assert (sheet == 255).sum() == sheet.size - 6 * n


def test_colours() -> None:
    picture = np.zeros((1, 3, 2, 2), np.uint8)
    picture[0, 2] = 200
    sheet = tile(picture, 1)
    assert sheet.shape == (4, 4, 3) and sheet[1, 1].tolist() == [0, 0, 200]


def test_a_row_per_class_as_wide_as_the_rarest() -> None:
    labels = np.array([1, 0, 1, 2, 0, 0, 1, 2])
    sheet = by_class(images(8), labels, per_class=10, classes=4)  # the last class is not there
    assert sheet.shape == (3 * 4 + 1, 2 * 3 + 1)
    assert sheet[1::4, 1::3].tolist() == [[1, 4], [0, 2], [3, 7]]
    assert by_class(images(8), labels, per_class=1, classes=3)[1::4, 1::3].tolist() == [[1], [0], [3]]


def test_by_class_without_images() -> None:
    assert by_class(images(2), np.array([5, 5]), classes=3).size > 0


def test_a_row_per_image_and_a_column_per_step() -> None:
    trajectory = images(6).reshape(3, 2, 1, 3, 2)  # step s of image i has level 2 s + i
    assert trajectory_picture(trajectory)[1::4, 1::3].tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (401, 3)])
def test_png(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    factor = -(-400 // shape[0])
    read = np.asarray(Image.open(io.BytesIO(png_bytes(picture))))
    assert read.shape[0] == factor * shape[0] >= 400
    assert (read[::factor, ::factor] == picture).all()


@pytest.mark.parametrize(("n", "most", "expected"), [
    (1, 12, [0]), (4, 4, [0, 1, 2, 3]), (5, 3, [0, 2, 4]), (1001, 2, [0, 1000]),
])
def test_thinning_keeps_the_ends(n: int, most: int, expected: list[int]) -> None:
    assert thinned(n, most) == expected


def test_thinning_is_even() -> None:
    chosen = thinned(251, 60)
    assert len(set(chosen)) == 60 and (chosen[0], chosen[-1]) == (0, 250)
    assert set(np.diff(chosen)) == {4, 5}


def test_a_strip_of_many_steps_has_few_columns() -> None:
    trajectory = images(251).reshape(251, 1, 1, 3, 2)
    strip = trajectory_picture(trajectory)
    assert strip.shape == (5, 12 * 3 + 1)
    assert strip[1, 1::3].tolist() == thinned(251, 12)


def frames_of(data: bytes, mode: str) -> tuple[list[np.ndarray], list[int], Image.Image]:
    """The composed frames of an animation and how long each is shown, in milliseconds."""
    animation = Image.open(io.BytesIO(data))
    frames, durations = [], []
    for i in range(animation.n_frames):
        animation.seek(i)
        animation.load()
        frames.append(np.asarray(animation.convert(mode)))
        durations.append(animation.info["duration"])
    return frames, durations, animation


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_shows_every_step_and_ends_in_the_samples(kind: Moving, channels: int) -> None:
    trajectory = np.random.default_rng(0).integers(0, 256, (7, 5, channels, 3, 2), dtype=np.uint8)
    trajectory //= 64 if channels == 3 else 1  # no more than 256 colours, which is all a GIF can hold
    frames, durations, animation = frames_of(animation_bytes(trajectory, kind), "L" if channels == 1 else "RGB")
    assert animation.format == kind and animation.info["loop"] == 0  # for ever
    assert len(frames) == 7 and durations == [420] * 6 + [1500]
    for frame, step in zip(frames, trajectory, strict=True):
        factor = len(frame) // len(square(step))
        assert len(frame) >= 400
        assert (frame == square(step).repeat(factor, 0).repeat(factor, 1)).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_of_many_steps_has_few_frames(kind: Moving) -> None:
    trajectory = images(251).reshape(251, 1, 1, 3, 2)
    frames, durations, _ = frames_of(animation_bytes(trajectory, kind), "L")
    assert len(frames) == 60 and durations == [50] * 59 + [1500]
    middles = [frame[len(frame) // 2, frame.shape[1] // 2] for frame in frames]
    assert middles == thinned(251, 60)
