"""Images from outside: what is read, what is refused and with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from datamodules.base import DatasetInfo
from evaluation.fingerprint import AS_GIVEN, image_hash
from experiments.external import QUANTISER, ExternalError, read_images

GREY = DatasetInfo("grey8", channels=1, image_size=8, num_classes=3, class_names=("a", "b", "c"))
COLOUR = DatasetInfo("colour8", channels=3, image_size=8, num_classes=3, class_names=("a", "b", "c"))
RNG = np.random.default_rng(0)
GREY_IMAGES = RNG.integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
COLOUR_IMAGES = RNG.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)


def save_folder(folder: Path, images: NDArray[np.uint8], suffix: str = ".png", **options: Any) -> Path:
    """One file an image, named so that their order is the array's."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{i:03d}{suffix}", **options)
    return folder


def save_array(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def refused(path: Path, info: DatasetInfo = GREY, *, resize: bool = False) -> str:
    """The sentence with which images are refused."""
    with pytest.raises(ExternalError) as caught:
        read_images(path, info, resize=resize)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


LOSSLESS = [
    *((suffix, GREY, GREY_IMAGES) for suffix in (".png", ".bmp", ".tif", ".PNG")),  # WebP has no grey images
    *((suffix, COLOUR, COLOUR_IMAGES) for suffix in (".png", ".bmp", ".tif", ".webp", ".PNG")),
]


@pytest.mark.parametrize(("suffix", "info", "images"), LOSSLESS)
def test_a_folder_of_lossless_files_comes_back(
    suffix: str, info: DatasetInfo, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    save_folder(tmp_path / "a", images[:3], suffix, **({"lossless": True} if suffix == ".webp" else {}))
    save_folder(tmp_path / "b" / "c", images[3:])
    (tmp_path / "notes.txt").write_text("not an image")
    found = read_images(tmp_path, info, resize=False)
    assert found.images.dtype == np.uint8 and (found.images == images).all()
    assert (found.labels, found.resize, found.unreadable) == (None, "none", ())
    assert found.sha256 == image_hash(images)
    assert found.quantiser == QUANTISER == AS_GIVEN


def test_a_photograph_is_what_its_decoder_says(tmp_path: Path) -> None:
    save_folder(tmp_path, COLOUR_IMAGES, ".jpeg", quality=90)
    found = read_images(tmp_path, COLOUR, resize=False)
    with Image.open(tmp_path / "000.jpeg") as image:
        assert (found.images[0] == np.asarray(image).transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("info", "array", "expected"),
    [
        (GREY, GREY_IMAGES, GREY_IMAGES),
        (GREY, GREY_IMAGES[:, 0], GREY_IMAGES),
        (GREY, GREY_IMAGES.transpose(0, 2, 3, 1), GREY_IMAGES),
        (COLOUR, COLOUR_IMAGES, COLOUR_IMAGES),
        (COLOUR, COLOUR_IMAGES.transpose(0, 2, 3, 1), COLOUR_IMAGES),
    ],
    ids=["NCHW", "NHW", "NHW1", "N3HW", "NHW3"],
)
def test_axis_orders_of_arrays(info: DatasetInfo, array: Any, expected: Any, tmp_path: Path) -> None:
    found = read_images(save_array(tmp_path / "a.npy", array), info, resize=False)
    assert (found.images == expected).all() and found.images.flags.c_contiguous
    assert found.sha256 == image_hash(expected)


def test_where_both_orders_fit_the_channels_are_second(tmp_path: Path) -> None:
    tall = DatasetInfo("odd", channels=3, image_size=3, num_classes=1, class_names=("a",))
    cube = RNG.integers(0, 256, (4, 3, 3, 3), dtype=np.uint8)
    assert (read_images(save_array(tmp_path / "a.npy", cube), tall, resize=False).images == cube).all()


def test_labels_travel_with_an_npz(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 1, 0], dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=GREY_IMAGES, labels=labels, other=np.zeros(3))
    found = read_images(tmp_path / "a.npz", GREY, resize=False)
    assert found.labels is not None and found.labels.dtype == np.int64 and (found.labels == labels).all()
    np.savez_compressed(tmp_path / "b.npz", arr_0=GREY_IMAGES)
    assert read_images(tmp_path / "b.npz", GREY, resize=False).labels is None


def damaged_folder(folder: Path) -> Path:
    """Two good files among one each of what cannot be read."""
    save_folder(folder, GREY_IMAGES[:2])
    whole = (folder / "000.png").read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("hello")
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(RNG.integers(0, 65536, (8, 8)).astype(np.uint16)).save(folder / "deep.png")
    frames = [Image.fromarray(x[0]) for x in GREY_IMAGES[:2]]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("CMYK", (8, 8)).save(folder / "print.jpg")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "float.tif")
    return folder


REASONS = {
    "empty.png": "", "text.jpg": "", "truncated.png": "", "deep.png": "more than 8 bits",
    "moving.gif": "2 frames, not one image", "print.jpg": "colour mode CMYK", "float.tif": "more than 8 bits",
}


def test_files_that_cannot_be_read_are_named_one_by_one(tmp_path: Path) -> None:
    found = read_images(damaged_folder(tmp_path), GREY, resize=False)
    assert (found.images == GREY_IMAGES[:2]).all()
    assert len(found.unreadable) == len(REASONS)
    for name, reason in REASONS.items():
        (sentence,) = [s for s in found.unreadable if s.startswith(f"{tmp_path / name} cannot be read")]
        assert reason in sentence and "\n" not in sentence and not sentence.endswith(": ")


def test_sixteen_bits_of_colour_are_not_cut_to_eight(tmp_path: Path) -> None:
    save_folder(tmp_path, COLOUR_IMAGES)
    (tmp_path / "deep.png").write_bytes(png_of_16_bits())
    with Image.open(tmp_path / "deep.png") as image:
        assert image.mode == "RGB"  # as if nothing were the matter
    (sentence,) = read_images(tmp_path, COLOUR, resize=False).unreadable
    assert "deep.png" in sentence and "more than 8 bits" in sentence


def png_of_16_bits() -> bytes:
    """An 8x8 RGB image of 16 bits, written by hand: Pillow cannot."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(8 * 6) for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_if_nothing_can_be_read_it_is_refused(tmp_path: Path) -> None:
    assert "holds no image files" in refused(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    assert "none of the 1 image files" in refused(tmp_path)
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "neither a folder nor an .npz or .npy file" in refused(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    save_folder(tmp_path, GREY_IMAGES[:1])
    assert "holds 1 image, the exam needs at least 2" in refused(tmp_path)


@pytest.mark.parametrize(
    ("images", "info", "expected"),
    [
        (RNG.integers(0, 256, (3, 1, 9, 7), dtype=np.uint8), GREY, "is 7x9 grey where grey8 has 8x8 grey images"),
        (COLOUR_IMAGES, GREY, "is 8x8 RGB where grey8 has 8x8 grey images"),
        (GREY_IMAGES, COLOUR, "is 8x8 grey where colour8 has 8x8 RGB images"),
    ],
    ids=["size", "colour", "grey"],
)
def test_wrong_size_or_colour_is_one_sentence_with_the_way_out(
    images: Any, info: DatasetInfo, expected: str, tmp_path: Path
) -> None:
    folder = save_folder(tmp_path / "folder", images)
    for path in (folder, save_array(tmp_path / "a.npy", images)):
        message = refused(path, info)
        assert expected in message and message.endswith("give --resize to convert them")
        found = read_images(path, info, resize=True)
        assert found.images.shape == (len(images), info.channels, 8, 8) and found.resize != "none"


def test_one_image_of_another_size_refuses_the_folder_by_its_name(tmp_path: Path) -> None:
    save_folder(tmp_path, GREY_IMAGES)
    Image.new("L", (16, 16)).save(tmp_path / "zz.png")
    assert f"{tmp_path / 'zz.png'} is 16x16 grey" in refused(tmp_path)


def test_a_resize_is_antialiased_and_recorded(tmp_path: Path) -> None:
    """Fine stripes become grey; picking every fourth pixel would leave them black or white."""
    stripes = np.zeros((2, 1, 32, 32), np.uint8)
    stripes[..., ::2] = 255
    found = read_images(save_array(tmp_path / "a.npy", stripes), GREY, resize=True)
    assert found.images.min() > 100 and found.images.max() < 155
    assert "Lanczos" in found.resize and "8x8" in found.resize
    untouched = read_images(save_array(tmp_path / "b.npy", GREY_IMAGES), GREY, resize=True)
    assert (untouched.images == GREY_IMAGES).all() and untouched.resize == "none"


def test_colour_conversion_by_its_formula(tmp_path: Path) -> None:
    found = read_images(save_array(tmp_path / "a.npy", COLOUR_IMAGES), GREY, resize=True)
    expected = np.einsum("nchw,c->nhw", COLOUR_IMAGES.astype(float), [0.299, 0.587, 0.114])
    assert np.abs(found.images[:, 0] - expected).max() <= 1
    assert "ITU-R 601" in found.resize
    back = read_images(save_array(tmp_path / "b.npy", GREY_IMAGES), COLOUR, resize=True)
    assert (back.images == GREY_IMAGES.repeat(3, axis=1)).all()


def test_transparency(tmp_path: Path) -> None:
    opaque = np.concatenate([COLOUR_IMAGES, np.full((5, 1, 8, 8), 255, np.uint8)], axis=1)
    save_folder(tmp_path / "opaque", opaque)
    assert (read_images(tmp_path / "opaque", COLOUR, resize=False).images == COLOUR_IMAGES).all()
    clear = opaque.copy()
    clear[:, 3, :4] = 0
    folder = save_folder(tmp_path / "clear", clear)
    assert "transparent pixels" in refused(folder, COLOUR) and "--resize" in refused(folder, COLOUR)
    found = read_images(folder, COLOUR, resize=True)
    assert (found.images[:, :, :4] == 255).all() and (found.images[:, :, 4:] == COLOUR_IMAGES[:, :, 4:]).all()
    assert found.resize == "transparent pixels on white"


def test_palettes_and_bits_are_read_as_what_they_show(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR_IMAGES[0].transpose(1, 2, 0)).quantize(16)
    palette.save(tmp_path / "0.png")
    palette.save(tmp_path / "1.png")
    found = read_images(tmp_path, COLOUR, resize=False)
    assert (found.images[0] == np.asarray(palette.convert("RGB")).transpose(2, 0, 1)).all()
    bits = tmp_path / "bits"
    bits.mkdir()
    for i in range(2):
        Image.fromarray(GREY_IMAGES[i, 0] > 127).save(bits / f"{i}.png")
    assert (read_images(bits, GREY, resize=False).images == 255 * (GREY_IMAGES[:2] > 127)).all()


BAD_ARRAYS = [
    (GREY_IMAGES.astype(np.float32) / 255, "float32 values where uint8"),
    (np.full((3, 8, 8), np.nan), "float64 values where uint8"),
    (GREY_IMAGES.astype(np.int64), "int64 values where uint8"),
    (GREY_IMAGES.astype(np.uint16), "uint16 values where uint8"),
    (GREY_IMAGES > 100, "bool values where uint8"),
    (GREY_IMAGES[:0], "the shape (0, 1, 8, 8)"),
    (GREY_IMAGES[0, 0], "the shape (8, 8)"),
    (GREY_IMAGES[None], "the shape (1, 5, 1, 8, 8)"),
    (np.zeros((5, 2, 8, 8), np.uint8), "second or last number should be the channels"),
    (np.zeros((5, 8, 8, 4), np.uint8), "second or last number should be the channels"),
]


@pytest.mark.parametrize(("array", "expected"), BAD_ARRAYS, ids=[text for _, text in BAD_ARRAYS])
@pytest.mark.parametrize("resize", [False, True])
def test_arrays_that_are_no_uint8_images(array: Any, expected: str, resize: bool, tmp_path: Path) -> None:
    assert expected in refused(save_array(tmp_path / "a.npy", array), resize=resize)


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    objects = save_array(tmp_path / "objects.npy", np.array([{"a": 1}, None], dtype=object))
    assert "it holds Python objects" in refused(objects)
    for name in ("text.npy", "text.npz"):
        (tmp_path / name).write_text("hello, these are no arrays")
        refused(tmp_path / name)
    whole = save_array(tmp_path / "cut.npy", GREY_IMAGES)
    whole.write_bytes(whole.read_bytes()[:-10])
    refused(whole)
    np.savez(tmp_path / "cut.npz", images=GREY_IMAGES)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:200])
    refused(tmp_path / "cut.npz")
    (tmp_path / "none.npy").write_bytes(b"")
    refused(tmp_path / "none.npy")


def test_an_npz_must_say_which_array_is_meant(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=GREY_IMAGES, two=GREY_IMAGES)
    assert "has no array 'images', it has: one, two" in refused(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", labels=np.zeros(5, np.int64))
    assert "has no array 'images'" in refused(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.zeros(4, np.int64), "must be 5 whole numbers"),
        (np.zeros(5), "must be 5 whole numbers, not float64"),
        (np.zeros((5, 1), np.int64), "must be 5 whole numbers"),
        (np.array([0, 1, 2, 3, 0]), "must lie in 0..2, not 3"),
        (np.array([0, -1, 2, 1, 0]), "must lie in 0..2, not -1"),
    ],
)
def test_labels_that_do_not_fit(labels: Any, expected: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=GREY_IMAGES, labels=labels)
    assert expected in refused(tmp_path / "a.npz")
