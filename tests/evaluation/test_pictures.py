"""Pictures: where each image lands, and what a PNG holds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from evaluation.pictures import by_class, png_bytes, tile, trajectory_picture


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
