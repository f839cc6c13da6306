"""Pictures of samples: a grid by class, a strip of images coming out of static, and the same as an animation."""

from __future__ import annotations

import io
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.uint8]
Moving = Literal["GIF", "WEBP"]

MOST_COLUMNS = 12  # of a strip
MOST_FRAMES = 60  # of an animation
ANIMATION_MS, HELD_MS = 3000, 1500  # the whole but for the last frame, about, and the last frame
LEAST_FRAME_MS, MOST_FRAME_MS = 50, 500
LOSSLESS: dict[Moving, dict[str, Any]] = {"GIF": {"optimize": False}, "WEBP": {"lossless": True, "method": 3}}


def tile(images: Array, columns: int, gap: int = 1) -> Array:
    """uint8 (N, C, H, W) -> one picture (H', W') or (H', W', 3), ``columns`` images a row on white."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        sheet[y : y + h, x : x + w] = image.transpose(1, 2, 0)
    return sheet[..., 0] if c == 1 else sheet


def square(images: Array) -> Array:
    """uint8 (N, C, H, W) -> one picture with about as many images a row as rows."""
    return tile(images, columns=math.ceil(math.sqrt(len(images))))


def by_class(images: Array, labels: NDArray[np.int64], per_class: int = 10, classes: int = 10) -> Array:
    """The first ``per_class`` images of each of the first classes, a row a class."""
    rows = [images[labels == k][:per_class] for k in range(classes)]
    width = min((len(r) for r in rows if len(r)), default=0)
    return tile(np.concatenate([r[:width] for r in rows]), max(width, 1))


def thinned(n: int, most: int) -> list[int]:
    """At most ``most`` (2 or more) of the indices 0..n-1, evenly spread, the first and the last among them."""
    return list(range(n)) if n <= most else np.linspace(0, n - 1, most).round().astype(int).tolist()


def trajectory_picture(trajectory: Array, most_columns: int = MOST_COLUMNS) -> Array:
    """uint8 (steps, n, C, H, W) -> a row an image, a column a step, from static to picture.

    Of many steps only some are shown, the first and the last always.
    """
    shown = trajectory[thinned(len(trajectory), most_columns)]
    columns, n = shown.shape[:2]
    return tile(shown.swapaxes(0, 1).reshape(columns * n, *shown.shape[2:]), columns)


def enlarged(image: Image.Image, least_height: int) -> Image.Image:
    """The picture, enlarged by a whole factor without smoothing until it is at least that high."""
    factor = max(1, -(-least_height // image.height))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def png_bytes(picture: Array, least_height: int = 400) -> bytes:
    """A PNG, enlarged by a whole factor without smoothing until it is at least that high."""
    buffer = io.BytesIO()
    enlarged(Image.fromarray(picture), least_height).save(buffer, "PNG")
    return buffer.getvalue()


def animation_bytes(trajectory: Array, kind: Moving, least_height: int = 400) -> bytes:
    """uint8 (steps, n, C, H, W) -> a GIF or WebP that loops: a square of all images a frame, the last one held.

    Of many steps only some are shown, the first and the last always. Pixels are exact but for a GIF of more
    than 256 colours a frame; equal frames in a row may become one that is shown longer.
    """
    frames = [_frame(images, kind, least_height) for images in trajectory[thinned(len(trajectory), MOST_FRAMES)]]
    each = ANIMATION_MS // len(frames) // 10 * 10  # GIF counts in hundredths of a second
    durations = [min(max(each, LEAST_FRAME_MS), MOST_FRAME_MS)] * (len(frames) - 1) + [HELD_MS]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, kind, save_all=True, append_images=frames[1:], duration=durations, loop=0, **LOSSLESS[kind]
    )
    return buffer.getvalue()


def _frame(images: Array, kind: Moving, least_height: int) -> Image.Image:
    picture = Image.fromarray(square(images))
    if kind == "GIF" and picture.mode == "RGB":
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    return enlarged(picture, least_height)
