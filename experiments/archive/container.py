"""The ZIP file of an archive, believed in nothing: names, sizes, headers, order and checksums are all checked.

Only what ``experiments.archive.export`` writes is read: plain files, stored one after the other without
gap, overlap or anything before, between and after them, under names that are known. So nothing can be
larger than the file itself, lie outside the target, or be there for one reader and not for another.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from evaluation.files import FileError, check_directory, open_plain, size_text
from experiments.archive import layout

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
UTF8_NAME = 0x800
MS_DOS_FOLDER = 0x10
SUM = re.compile(r"([0-9a-f]{64})  ([!-~]+)")
CHUNK = 2**20


class ArchiveError(ValueError):
    """An archive that is refused; the message is one sentence."""


def unpack(path: Path, folder: Path) -> list[str]:
    """Check an archive and write its members into an empty folder; returns their names.

    Raises:
        ArchiveError: Something about it is not as it should be.
    """
    with _opened(path) as (file, archive):
        members = archive.infolist()
        _check_names(members, path)
        for member in members:
            _check_member(member, path)
        _check_order(file, archive, members, path)
        expected = _sums(archive, members, path)
        for member in members:
            digest = _extract(archive, member, folder / member.filename)
            if digest != expected.get(member.filename, digest):
                raise ArchiveError(f"{path} is damaged: {member.filename} does not have its checksum in {layout.SUMS}")
    return [member.filename for member in members]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], zipfile.ZipFile]]:
    """The open file, raw and as an archive; whatever a ZIP reader raises becomes one sentence."""
    try:
        with open_plain(path, layout.MAX_ARCHIVE, follow=True) as file:
            check_directory(file, path, layout.MAX_MEMBERS)
            with zipfile.ZipFile(file) as archive:
                yield file, archive
    except FileError as error:
        raise ArchiveError(str(error)) from None
    except OSError as error:
        raise ArchiveError(f"{path} cannot be unpacked: {error.strerror or error}") from None
    except ArchiveError:
        raise
    except Exception as error:  # damaged files raise one of many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ArchiveError(f"{path} cannot be read: {reason}") from None


def _check_names(members: list[zipfile.ZipInfo], path: Path) -> None:
    seen: dict[str, str] = {}
    for member in members:
        name = member.orig_filename
        shown = repr(name[:100])
        parts = re.split(r"[/\\]", name)
        if name.startswith(("/", "\\")) or ".." in parts or "\\" in name or ":" in name or not name.isprintable():
            raise ArchiveError(f"{path} is refused: {shown} would be written outside its place")
        if name != member.filename or layout.size_limit(name) is None:
            raise ArchiveError(f"{path} is refused: {shown} is no file that an archive of runs may hold")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ArchiveError(f"{path} is refused: {shown} and {other!r} are the same name where case does not count")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ArchiveError(f"{path} is refused: {twice!r} is in it twice")


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    name, limit = member.filename, layout.size_limit(member.filename) or 0
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or member.external_attr & MS_DOS_FOLDER:
        what = "a link" if kind == stat.S_IFLNK else "no ordinary file"
        raise ArchiveError(f"{path} is refused: {name} is {what}, only ordinary files are allowed")
    if member.flag_bits & ~UTF8_NAME:
        raise ArchiveError(f"{path} is refused: {name} is encrypted or streamed, only plain members are allowed")
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ArchiveError(f"{path} is refused: {name} is compressed, members of an archive of runs are only stored")
    if member.file_size > limit:
        found = f"has {size_text(member.file_size)} where {size_text(limit)} are allowed"
        raise ArchiveError(f"{path} is refused: {name} {found}")


def _check_order(file: IO[bytes], archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], path: Path) -> None:
    """Every member's own header says what the directory says, and one follows the other to the byte."""
    place = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        if member.header_offset != place:
            raise ArchiveError(f"{path} is refused: {member.filename} overlaps another member or follows a gap")
        file.seek(place)
        header = file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size:
            raise ArchiveError(f"{path} is refused: {member.filename} is cut off")
        mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = LOCAL_HEADER.unpack(header)
        name = file.read(name_length)
        told = (mark, flags, method, crc, packed, size, name, extra_length)
        size_told, name_told = member.file_size, member.filename.encode()
        if told != (b"PK\3\4", member.flag_bits, 0, member.CRC, size_told, size_told, name_told, 0):
            raise ArchiveError(f"{path} is refused: {member.filename} has two headers that do not agree")
        place += LOCAL_HEADER.size + name_length + size_told
    end = file.seek(0, os.SEEK_END)
    file.seek(end - 22)
    length, start = struct.unpack("<II", file.read(22)[12:20])
    if archive.start_dir != place or start != place or start + length + 22 != end:
        raise ArchiveError(f"{path} is refused: it holds something besides its members")


def _sums(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], path: Path) -> dict[str, str]:
    """The checksums by name, one for every member but the list itself."""
    names = {member.filename for member in members} - {layout.SUMS}
    if layout.SUMS not in archive.namelist():
        raise ArchiveError(f"{path} is refused: it has no {layout.SUMS}")
    lines = archive.read(layout.SUMS).decode("ascii", "replace").splitlines()
    found = [SUM.fullmatch(line) for line in lines]
    sums = {match[2]: match[1] for match in found if match}
    if len(sums) < len(lines):
        raise ArchiveError(f"{path} is damaged: {layout.SUMS} has lines that are no checksum, or a name twice")
    odd = sorted(names ^ set(sums))
    if odd:
        what = "has no checksum in" if odd[0] in names else "is not in the archive, but in its"
        raise ArchiveError(f"{path} is refused: {odd[0][:100]} {what} {layout.SUMS}")
    return sums


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> str:
    """Write one member, whose checksum ZIP checks too; returns its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with archive.open(member) as source, open(target, "xb") as sink:
        while data := source.read(CHUNK):
            digest.update(data)
            sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())
    return digest.hexdigest()
