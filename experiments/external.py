"""Images made elsewhere, read for the exam: a folder of image files, an ``.npz`` or an ``.npy``.

Nothing is corrected silently. A file that cannot be read as one 8-bit image is named and left out; images
of another size or colour are refused unless a resize is asked for, and what was then done is recorded.
Light: NumPy and Pillow, no torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from datamodules.base import DatasetInfo
from evaluation.files import FileError, open_picture, read_npy, read_npz

Array = NDArray[np.uint8]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
ARRAYS = (".npz", ".npy")
LEAST_IMAGES = 2
QUANTISER = "uint8 as given"
COLOURS = {1: "grey", 3: "RGB"}
OPAQUE = 255
WAY_OUT = "give --resize to convert them"


class ExternalError(ValueError):
    """Images that cannot sit the exam; the message is one sentence."""


class _UnreadableError(ValueError):
    """A single file that is left out; the message is the reason."""


@dataclass(frozen=True)
class External:
    """Images uint8 (N, C, H, W) as the dataset has them, with labels int64 (N,) if there are any.

    ``sha256`` is over shape and bytes of the images, ``resize`` says in words what was done to their
    size and colour ("none" if nothing), ``unreadable`` has one sentence for each file left out.
    """

    images: Array
    labels: NDArray[np.int64] | None
    sha256: str
    quantiser: str
    resize: str
    unreadable: tuple[str, ...]


def read_images(path: Path, info: DatasetInfo, *, resize: bool) -> External:
    """Read images for the exam of a dataset.

    A folder is searched recursively for files with an image suffix, in the order of their paths; other
    files are ignored. Each must hold one 8-bit grey, palette or RGB image; an alpha channel that is opaque
    everywhere is dropped; EXIF orientation is not applied. An ``.npz`` holds ``images`` (or one array only)
    and perhaps integer ``labels``. Arrays are uint8 (N, C, H, W), (N, H, W, C) or, for grey images,
    (N, H, W); of two possible places the channels are sought first where there are as many as the dataset
    has, and if both fit the order is (N, C, H, W).

    Args:
        path: The folder or file.
        info: What the images must look like.
        resize: Scale to the dataset's size (Pillow's Lanczos filter, antialiased, each axis by its own
            factor), convert between grey and RGB, and lay transparent pixels on white.

    Raises:
        ExternalError: One sentence: nothing there, a wrong size, colour, type or label, too few images.
    """
    if path.is_dir():
        images, done, unreadable = _read_folder(path, info, resize)
        labels = None
    elif path.is_file() and path.suffix.lower() in ARRAYS:
        array, labels = _load_arrays(path)
        images, done = _fit_array(array, path, info, resize)
        unreadable = []
    else:
        found = "is neither a folder nor an .npz or .npy file" if path.exists() else "does not exist"
        raise ExternalError(f"{path} {found}")
    if len(images) < LEAST_IMAGES:
        raise ExternalError(f"{path} holds {len(images)} image, the exam needs at least {LEAST_IMAGES}")
    images = np.ascontiguousarray(images)
    digest = hashlib.sha256(repr(images.shape).encode())  # as evaluation.fingerprint has it, without torch
    digest.update(images.data)
    checked = None if labels is None else _check_labels(labels, len(images), path, info)
    return External(images, checked, digest.hexdigest(), QUANTISER, "; ".join(done) or "none", tuple(unreadable))


# One image.


def _describe(size: tuple[int, int], channels: int) -> str:
    return f"{size[0]}x{size[1]} {COLOURS.get(channels, f'{channels}-channel')}"


def _convert(image: Image.Image, info: DatasetInfo) -> tuple[Image.Image, list[str]]:
    """The image in the dataset's colour and size, and what that took."""
    done = []
    mode = "L" if info.channels == 1 else "RGB"
    if image.mode != mode:
        done.append("RGB to grey by ITU-R 601" if mode == "L" else "grey to RGB by repetition")
        image = image.convert(mode)
    size = (info.image_size, info.image_size)
    if image.size != size:
        done.append(f"Pillow {PIL.__version__} Lanczos, antialiased, to {size[0]}x{size[1]}")
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image, done


def _fit(image: Image.Image, name: str, info: DatasetInfo, resize: bool) -> tuple[Array, list[str]]:
    """An "L" or "RGB" image as (C, H, W), converted if that is asked for and refused if it is needed and not."""
    channels = len(image.getbands())
    expected = (info.image_size, info.image_size)
    done: list[str] = []
    if (image.size, channels) != (expected, info.channels):
        if not resize:
            raise ExternalError(
                f"{name} is {_describe(image.size, channels)} where {info.name} has "
                f"{_describe(expected, info.channels)} images; {WAY_OUT}"
            )
        image, done = _convert(image, info)
    pixels = np.asarray(image, dtype=np.uint8)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), done


# A folder.


def _read_folder(path: Path, info: DatasetInfo, resize: bool) -> tuple[Array, list[str], list[str]]:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    images: list[Array] = []
    done: dict[str, None] = {}
    unreadable: list[str] = []
    for file in files:
        try:
            image = _open(file)
        except _UnreadableError as error:
            unreadable.append(f"{file} cannot be read and is left out: {error}")
            continue
        image, flattened = _without_alpha(image, file, resize)
        pixels, steps = _fit(image, str(file), info, resize)
        images.append(pixels)
        done |= dict.fromkeys([*flattened, *steps])
    if not images:
        what = f"none of the {len(files)} image files in {path} can be read" if files else (
            f"{path} holds no image files ({', '.join(s[1:] for s in SUFFIXES)})"
        )
        first = f"; the first: {unreadable[0]}" if unreadable else ""
        raise ExternalError(what + first)
    return np.stack(images), list(done), unreadable


def _open(file: Path) -> Image.Image:
    """The one 8-bit image of a file in mode L, RGB, LA or RGBA; ``_UnreadableError`` says why there is none."""
    try:
        image = open_picture(file, follow=True)
    except FileError as error:
        raise _UnreadableError(error.reason.removeprefix("cannot be read as a picture: ")) from None
    _check_file(image, file)
    return _plain_mode(image)


def _check_file(image: Image.Image, file: Path) -> None:
    with open(file, "rb") as content:
        header = content.read(25)
    deep = image.format == "PNG" and header[24] == 16  # Pillow would cut 16-bit RGB to 8 bits without a word
    if deep or image.mode.startswith(("I", "F")):
        raise _UnreadableError("its pixels have more than 8 bits")


def _plain_mode(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "L"):
        return image.convert("LA" if "transparency" in image.info else "L")
    if image.mode in ("P", "RGB"):
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("LA", "RGBA", "PA"):
        return image.convert("LA" if image.mode == "LA" else "RGBA")
    raise _UnreadableError(f"its colour mode {image.mode} is neither grey nor RGB")


def _without_alpha(image: Image.Image, file: Path, resize: bool) -> tuple[Image.Image, list[str]]:
    """The image without its alpha channel, which must be opaque unless a conversion is asked for."""
    if "A" not in image.getbands():
        return image, []
    plain = image.mode.removesuffix("A")
    if image.getchannel("A").getextrema()[0] == OPAQUE:
        return image.convert(plain), []
    if not resize:
        raise ExternalError(f"{file} has transparent pixels, which have no colour; give --resize to lay them on white")
    sheet = Image.new("RGBA", image.size, "white")
    sheet.alpha_composite(image.convert("RGBA"))
    return sheet.convert(plain), ["transparent pixels on white"]


# Arrays.


def _load_arrays(path: Path) -> tuple[NDArray[np.generic], NDArray[np.generic] | None]:
    """The images of a NumPy file, and the labels if it has any; nothing is unpickled."""
    try:
        if path.suffix.lower() == ".npy":
            return read_npy(path, follow=True), None
        content = read_npz(path, follow=True)
    except FileError as error:
        raise ExternalError(str(error)) from None
    names = [name for name in content if name != "labels"]
    if "images" not in names and len(names) != 1:
        raise ExternalError(f"{path} has no array 'images', it has: {', '.join(content) or 'nothing'}")
    return content["images" if "images" in names else names[0]], content.get("labels")


def _fit_array(
    array: NDArray[np.generic], path: Path, info: DatasetInfo, resize: bool
) -> tuple[Array, list[str]]:
    """The array as uint8 (N, C, H, W) of the dataset's size and colour, and what that took."""
    if array.dtype != np.uint8:
        expected = "uint8 (0 to 255) is expected; quantise them first"
        raise ExternalError(f"{path} holds {array.dtype} values where {expected}")
    if array.size == 0 or array.ndim not in (3, 4):
        raise ExternalError(
            f"{path} has the shape {array.shape} where (N, C, H, W), (N, H, W, C) or (N, H, W) is expected"
        )
    images = _channels_first(array.astype(np.uint8, copy=False), path, info)
    size = (images.shape[3], images.shape[2])
    if (size, images.shape[1]) == ((info.image_size, info.image_size), info.channels):
        return np.ascontiguousarray(images), []
    fitted = [_fit(_as_image(image), f"every image in {path}", info, resize) for image in images]
    return np.stack([pixels for pixels, _ in fitted]), fitted[0][1]


def _channels_first(array: Array, path: Path, info: DatasetInfo) -> Array:
    if array.ndim == 3:
        return array[:, None]
    for allowed in ((info.channels,), tuple(COLOURS)):
        if array.shape[1] in allowed:
            return array
        if array.shape[3] in allowed:
            return array.transpose(0, 3, 1, 2)
    raise ExternalError(
        f"{path} has the shape {array.shape}, whose second or last number should be the channels "
        f"({info.channels} in {info.name})"
    )


def _as_image(pixels: Array) -> Image.Image:
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _check_labels(labels: NDArray[Any], n: int, path: Path, info: DatasetInfo) -> NDArray[np.int64]:
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ExternalError(f"the labels in {path} must be {n} whole numbers, not {labels.dtype} {labels.shape}")
    for extreme in (int(labels.min()), int(labels.max())):  # before the cast: uint64 could wrap
        if not 0 <= extreme < info.num_classes:
            raise ExternalError(f"the labels in {path} must lie in 0..{info.num_classes - 1}, not {extreme}")
    return labels.astype(np.int64)
