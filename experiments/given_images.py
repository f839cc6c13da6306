"""Pictures that a user gives to a model: to start from, or to paint a part of anew. No torch.

They must have the model's size, as a resize would be a choice that others can make better; grey and colour
are converted into each other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.files import FileError, open_picture, read_npz

WHITE = 128  # a mask's pixels from this level on are white
OPAQUE = 255
PLAIN = ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "CMYK", "YCbCr")  # modes of 8 bits a channel


def read_given(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The images of an ``.npz`` file's ``images``, or the one of a picture file, uint8 (k, C, H, W).

    Args:
        path: ``.npz``, or else a picture (PNG, JPEG, ...).
        shape: (C, H, W) of the model.

    Raises:
        FileError: One sentence: it cannot be read, or its size is not the model's.
    """
    if path.suffix.lower() == ".npz":
        return _given_array(path, shape)
    picture = _picture(path, shape).convert("L" if shape[0] == 1 else "RGB")
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None, None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)[None]


def read_mask(path: Path, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """A mask, bool (H, W), True where the picture in ``path`` is black: there pixels are kept.

    White, from the level 128 on, is what is to be painted anew. Raises ``FileError`` as ``read_given``.
    """
    kept: NDArray[np.bool_] = np.asarray(_picture(path, shape).convert("L")) < WHITE
    if kept.all():
        raise FileError(path, f"has no white (at least {WHITE} of 255), so nothing would be painted anew")
    return kept


def _given_array(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    content = read_npz(path, follow=True)
    if "images" not in content:
        raise FileError(path, f"has no array 'images', it has: {', '.join(content) or 'nothing'}")
    images = content["images"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape or len(images) == 0:
        expected = ", ".join(map(str, shape))
        raise FileError(path, f"holds {images.dtype} {images.shape} where the model takes uint8 (N, {expected})")
    return images


def _picture(path: Path, shape: tuple[int, int, int]) -> Image.Image:
    picture = open_picture(path, follow=True)
    size = (shape[2], shape[1])
    if picture.size != size:
        found, expected = ("x".join(map(str, each)) for each in (picture.size, size))
        raise FileError(path, f"is {found} where the model makes {expected} pixels; give a picture of that size")
    if picture.mode not in PLAIN:
        raise FileError(path, f"cannot be used: its mode {picture.mode} is neither grey nor colour of 8 bits")
    if "transparency" in picture.info or "A" in picture.getbands():
        picture = picture.convert("RGBA")
        if np.asarray(picture.getchannel("A")).min() < OPAQUE:
            raise FileError(path, "has transparent pixels, which have no colour")
    return picture
