"""Pictures of samples: a grid by class, and a strip of images coming out of static."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.uint8]


def tile(images: Array, columns: int, gap: int = 1) -> Array:
    """uint8 (N, C, H, W) -> one picture (H', W') or (H', W', 3), ``columns`` images a row on white."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        sheet[y : y + h, x : x + w] = image.transpose(1, 2, 0)
    return sheet[..., 0] if c == 1 else sheet


def by_class(images: Array, labels: NDArray[np.int64], per_class: int = 10, classes: int = 10) -> Array:
    """The first ``per_class`` images of each of the first classes, a row a class."""
    rows = [images[labels == k][:per_class] for k in range(classes)]
    width = min((len(r) for r in rows if len(r)), default=0)
    return tile(np.concatenate([r[:width] for r in rows]), max(width, 1))


def trajectory_picture(trajectory: Array) -> Array:
    """uint8 (steps, n, C, H, W) -> a row an image, a column a step, from static to picture."""
    steps, n = trajectory.shape[:2]
    return tile(trajectory.swapaxes(0, 1).reshape(steps * n, *trajectory.shape[2:]), steps)


def png_bytes(picture: Array, least_height: int = 400) -> bytes:
    """A PNG, enlarged by a whole factor without smoothing until it is at least that high."""
    image = Image.fromarray(picture)
    factor = max(1, -(-least_height // image.height))
    buffer = io.BytesIO()
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()
