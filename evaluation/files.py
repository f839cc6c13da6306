"""Files that somebody else may have written, read so that none can do harm: everything is limited before it is used.

Sizes are compared with what is allowed before memory is taken, checksums that a format has are checked,
nothing is unpickled, and a file is never reached through a link unless that is asked for. What cannot be
used raises ``FileError``: one sentence with the file, what is wrong with it and what is allowed. No torch.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

MIB = 2**20
MAX_FILE = 2**40
MAX_JSON = 16 * MIB
MAX_DEPTH = 32  # levels of a JSON file; records have 5
MAX_DIGITS = 20  # of a whole number; 2^63 has 19
MAX_TABLE = 256 * MIB  # a CSV file
MAX_ARRAYS = 2048 * MIB  # all arrays of a file together: 10,000 RGB images of 256 x 256 are 1900 MiB
MAX_ARRAY_COUNT = 64
MAX_PICTURE = 64 * MIB
MAX_PIXELS = 64_000_000
MAX_SIDE = 65_535
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
END_RECORD = 22  # bytes of the record with which a ZIP file ends
ENTRY = 1024  # bytes of a ZIP file's directory that one member may take


class FileError(ValueError):
    """A file that cannot be used; the message is one sentence, ``reason`` is it without the file's name."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.reason = reason


class MissingFileError(FileError):
    """There is no file of that name, or no longer: asking first whether it exists would not tell for sure."""


def size_text(size: float) -> str:
    """Bytes as people say them."""
    return f"{size:,.0f} bytes" if size < MIB else f"{size / MIB:,.0f} MiB"


@contextlib.contextmanager
def open_plain(path: Path, limit: int = MAX_FILE, *, follow: bool = False) -> Iterator[IO[bytes]]:
    """An ordinary file of at most ``limit`` bytes, open for reading; no link unless it may ``follow`` one.

    Raises:
        FileError: There is none, it is something else, or it is too large.
    """
    no_link = 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    if not follow and path.is_symlink():
        raise FileError(path, "cannot be read: it is a link, only ordinary files are allowed")
    try:
        # Not blocking: opening a pipe would wait for somebody to write.
        handle = os.open(path, os.O_RDONLY | no_link | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        kind = MissingFileError if isinstance(error, FileNotFoundError | NotADirectoryError) else FileError
        raise kind(path, f"cannot be read: {_os_reason(error)}") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise FileError(path, "cannot be read: it is no ordinary file")
    with open(handle, "rb") as file:
        if found.st_size > limit:
            raise FileError(
                path, f"cannot be read: it has {size_text(found.st_size)} where {size_text(limit)} are allowed"
            )
        yield file


def _os_reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def read_bytes(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """The content of an ordinary file of at most ``limit`` bytes; raises ``FileError``."""
    with open_plain(path, limit, follow=follow) as file:
        try:
            return file.read(limit)
        except OSError as error:
            raise FileError(path, f"cannot be read: {_os_reason(error)}") from None


# JSON.


def read_json(path: Path, what: str = "valid JSON", limit: int = MAX_JSON) -> Any:
    """The content of a JSON file; raises ``FileError``, which says that it is not ``what``."""
    return parse_json(read_bytes(path, limit), path, what)


def parse_json(data: bytes, name: Path | str, what: str = "valid JSON") -> Any:
    """What JSON says, read strictly: UTF-8, finite numbers, every key once, at most ``MAX_DEPTH`` levels.

    A key that comes twice would let two readers see two contents. Raises ``FileError``.
    """
    try:
        content = json.loads(
            data.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole,
            object_pairs_hook=_unique,
        )
        deep = _deeper_than(content, MAX_DEPTH)
    except UnicodeDecodeError:
        raise FileError(name, f"is not {what}: it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise FileError(name, f"is not {what}: {error.msg} in line {error.lineno}") from None
    except ValueError as error:
        raise FileError(name, f"is not {what}: {error}") from None
    except RecursionError:
        deep = True
    if deep:
        raise FileError(name, f"is not {what}: it is nested deeper than the {MAX_DEPTH} levels that are allowed")
    return content


def _refuse_constant(word: str) -> float:
    raise ValueError(f"it holds {word} where finite numbers are allowed")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it holds a number that is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"it holds a whole number of more than {MAX_DIGITS} characters")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} comes twice")
    return found


def _deeper_than(content: Any, levels: int) -> bool:
    """Whether anything lies deeper; level by level, as recursion is what is being guarded against."""
    layer = [content]
    for _ in range(levels):
        layer = [item for value in layer for item in _children(value)]
        if not layer:
            return False
    return True


def _children(value: Any) -> list[Any]:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [child for child in children if isinstance(child, dict | list)]


# ZIP files and the arrays in them.


def check_directory(file: IO[bytes], path: Path | str, most: int) -> None:
    """Look at the last bytes of a ZIP file, which say how long its directory is, before it is read into memory.

    Raises:
        FileError: It ends in anything but its end record, or says that it has more than ``most`` members.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - END_RECORD - 20))
    tail = file.read()
    end = tail[-END_RECORD:]
    if len(end) < END_RECORD or end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise FileError(path, "cannot be read: it is no whole ZIP file")
    members, length = struct.unpack("<HI", end[10:16])
    if tail[-END_RECORD - 20 :][:4] == b"PK\6\7":
        raise FileError(path, "cannot be read: it is a ZIP file of the 64-bit kind, only plain ones are allowed")
    if members > most or length > most * ENTRY:
        raise FileError(path, f"cannot be read: it has {members:,} members where {most:,} are allowed")


def read_npz(path: Path, limit: int = MAX_ARRAYS, *, follow: bool = False) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name; nothing is unpickled, and no array is made before its size is known.

    Raises:
        FileError: It is damaged, or has too many or too large arrays, or some of Python objects.
    """
    with open_plain(path, limit, follow=follow) as file:
        return _arrays(file, path, limit)


def parse_npz(data: bytes, name: Path | str, limit: int = MAX_ARRAYS) -> dict[str, NDArray[Any]]:
    """As ``read_npz`` of a file's bytes."""
    return _arrays(io.BytesIO(data), name, limit)


def read_npy(path: Path, limit: int = MAX_ARRAYS, *, follow: bool = False) -> NDArray[Any]:
    """The array of an ``.npy`` file; raises ``FileError``."""
    with open_plain(path, limit, follow=follow) as file, _unreadable(path, "NumPy arrays"):
        return _array(file, os.fstat(file.fileno()).st_size, path)


def _arrays(file: IO[bytes], path: Path | str, limit: int) -> dict[str, NDArray[Any]]:
    check_directory(file, path, MAX_ARRAY_COUNT)
    with _unreadable(path, "NumPy arrays"), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise FileError(path, "cannot be read as NumPy arrays: a name comes twice")
        total = sum(member.file_size for member in members)
        if total > limit:
            what = f"its arrays have {size_text(total)} where {size_text(limit)} are allowed"
            raise FileError(path, f"cannot be read as NumPy arrays: {what}")
        return {member.filename.removesuffix(".npy"): _member(archive, member, path) for member in members}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path | str) -> NDArray[Any]:
    plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not member.filename.endswith(".npy") or not plain or member.flag_bits & 1:
        raise FileError(path, f"cannot be read as NumPy arrays: its member {member.filename[:60]!r} is no plain array")
    with archive.open(member) as file:
        return _array(file, member.file_size, path)


def _array(file: IO[bytes], size: int, path: Path | str) -> NDArray[Any]:
    """One array of a file of ``size`` bytes, which its header must account for to the byte."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise FileError(path, "cannot be read as NumPy arrays: it is of an unknown version")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file, max_header_size=10_000)
    if dtype.hasobject:
        raise FileError(path, "cannot be read as NumPy arrays: it holds Python objects")
    if dtype.kind not in "biufcSU" or dtype.itemsize == 0 or dtype.subdtype is not None or min(shape, default=0) < 0:
        raise FileError(path, "cannot be read as NumPy arrays: it holds neither numbers nor text")
    expected = math.prod(shape) * dtype.itemsize
    content = size - file.tell()
    if expected != content:
        what = f"its header tells of {expected:,} bytes where there are {content:,}"
        raise FileError(path, f"cannot be read as NumPy arrays: {what}")
    array: NDArray[Any] = np.empty(math.prod(shape), dtype)
    if file.readinto(array.view(np.uint8)) != expected or file.read(1):  # the end is where ZIP looks at its checksum
        raise FileError(path, "cannot be read as NumPy arrays: it is cut off")
    return array.reshape(shape, order="F" if fortran else "C")


@contextlib.contextmanager
def _unreadable(path: Path | str, what: str) -> Iterator[None]:
    """Turn whatever a decoder of damaged files raises, which is nearly anything, into one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FileError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise FileError(path, f"cannot be read as {what}: {reason}") from None


# Pictures.


def open_picture(path: Path, *, follow: bool = False) -> Image.Image:
    """The one image of a picture file, decoded; its size is checked before, and so are a PNG's checksums.

    Raises:
        FileError: It is damaged, of an unknown format, moving, or too large.
    """
    data = read_bytes(path, MAX_PICTURE, follow=follow)
    from PIL import Image  # the command line asks for help without pictures

    with _unreadable(path, "a picture"):
        try:
            image = _checked(Image.open(io.BytesIO(data), formats=FORMATS), path)
        except Image.DecompressionBombError:  # what Pillow itself will not open
            raise _too_large(path, "even more") from None
        if image.format == "PNG":
            image.verify()  # which uses the image up; decoding alone does not look at the checksums of pixels
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
        return image


def _checked(image: Image.Image, path: Path) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise _too_large(path, f"{width}x{height}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise FileError(path, f"cannot be read as a picture: it holds {frames} frames, not one image")
    return image


def _too_large(path: Path, size: str) -> FileError:
    allowed = f"{MAX_PIXELS:,} pixels, {MAX_SIDE:,} a side, are allowed"
    return FileError(path, f"cannot be read as a picture: it has {size} where {allowed}")
