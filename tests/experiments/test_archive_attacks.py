"""Archives that mean harm, or were damaged: every way to lie in a ZIP file ends in one sentence and leaves no trace."""

from __future__ import annotations

import hashlib
import shutil
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.seal import seal
from experiments.archive import layout
from experiments.archive.container import ArchiveError
from experiments.archive.importing import import_archive
from experiments.cli import main
from tests.experiments.sealed import (
    contents,
    identified,
    members,
    small_archive,
    write_cell,
)
from tests.hostile import damaged, one_sentence
from tests.reports import synthetic

EPOCH = (1980, 1, 1, 0, 0, 0)
Members = dict[str, bytes]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The archive of a single cell without controls."""
    return small_archive(tmp_path)


def repack(path: Path, content: Members, change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    """An archive of given members, with right checksums; ``change`` may spoil what is said of each."""
    sums = {name: data for name, data in content.items() if name != "SHA256SUMS"}
    text = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(sums.items()))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in sorted((sums | {"SHA256SUMS": text.encode()}).items()):
            member = zipfile.ZipInfo(name, EPOCH)
            member.create_system, member.external_attr = 3, 0o100644 << 16
            if change:
                change(member)
            archive.writestr(member, data)
    return path


def refused(path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which an archive is refused; nothing is written."""
    before = contents(out.parent)
    capsys.readouterr()
    assert main(["import", str(path), "--out", str(out)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and one_sentence(shown.err.strip(), str(path)) and shown.err.startswith("error: ")
    assert contents(out.parent) == before and not list(out.parent.glob("**/.paragon-import*"))
    return shown.err


# What is refused.

NAMES = [
    "/etc/passwd", "../evil.json", "gan/../../evil", "gan\\digits\\x", "C:/evil", "C:\\evil", "gan/./x", "", "evil.py",
    "gan/digits/0123456789ab/seed=0/evil.py", "gan/digits/0123456789ab/seed=00/record.json", "gan/digits/",
    "gan/digits/0123456789ab/seed=0/logs/x", "controls/digits/0123456789ab/copycat.png", "report/index.html",
    "controls/digits/0123456789ab/seed=0/record.json", "gan/digits/0123456789AB/seed=0/record.json", "selftest.json",
    "readme.md", ".lock", "gan/digits/0123456789ab/seed=0/.lock", "x" * 300, "ga\u0430/digits/0123456789ab/seed=0/done",
    "gan/digits/0123456789ab/seed=0/done\n", "-rf/digits/0123456789ab/seed=0/done",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = repack(tmp_path / "evil.zip", members(small) | {name: b"{}"})
    said = refused(path, tmp_path / "runs", capsys)
    assert any(part in said for part in ("outside its place", "no file that an archive", "where case does not count"))


def test_a_name_that_ends_before_its_end(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = small.read_bytes()
    path = tmp_path / "evil.zip"
    path.write_bytes(whole.replace(b"results.csv", b"metrics\0csv"))
    refused(path, tmp_path / "runs", capsys)


def kinds(what: str) -> Callable[[zipfile.ZipInfo], None]:
    """What spoils the samples' entry."""

    def change(member: zipfile.ZipInfo) -> None:
        if member.filename.endswith("samples.npz"):
            if what == "deflated":
                member.compress_type = zipfile.ZIP_DEFLATED
            else:
                member.external_attr = getattr(stat, what) << 16 | 0o777 << 16

    return change


@pytest.mark.parametrize("what", ["S_IFLNK", "S_IFIFO", "S_IFCHR", "S_IFDIR", "S_IFSOCK", "deflated"])
def test_kinds_of_members(what: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(repack(tmp_path / "evil.zip", members(small), kinds(what)), tmp_path / "runs", capsys)
    assert {"S_IFLNK": "is a link", "deflated": "is compressed"}.get(what, "is no ordinary file") in said


def test_a_name_that_comes_twice(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.zip"
    shutil.copy(small, path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(zipfile.ZipInfo("README.md", EPOCH), b"another")
    assert "'README.md' is in it twice" in refused(path, tmp_path / "runs", capsys)


def spoil(path: Path, target: Path, entry: str, offset: int, value: bytes, *, local: bool = False) -> Path:
    """An archive in which some bytes of a member's entry (or of its own header) are others."""
    data = bytearray(path.read_bytes())
    mark, name_at = (b"PK\3\4", 30) if local else (b"PK\1\2", 46)
    place = data.find(mark)
    while not data[place + name_at :].startswith(entry.encode()):
        place = data.index(mark, place + 1)
    data[place + offset : place + offset + len(value)] = value
    target.write_bytes(data)
    return target


HEADERS = [
    ("size in the directory", 20, struct.pack("<II", 10, 10), False),
    ("huge size in the directory", 20, struct.pack("<II", 2**31, 2**31), False),
    ("small packed size, a bomb", 20, struct.pack("<II", 10, 2**31), False),
    ("offset of another member", 42, struct.pack("<I", 0), False),
    ("offset into nowhere", 42, struct.pack("<I", 2**30), False),
    ("encrypted", 8, b"\1", False),
    ("streamed", 8, b"\x08", False),
    ("size in its own header", 18, struct.pack("<II", 10, 10), True),
    ("name in its own header", 30, b"METRICS.csv", True),
    ("method in its own header", 8, b"\x08", True),
    ("checksum in its own header", 14, b"abcd", True),
]


@pytest.mark.parametrize(("offset", "value", "local"), [h[1:] for h in HEADERS], ids=[h[0] for h in HEADERS])
def test_headers_that_lie(
    offset: int, value: bytes, local: bool, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spoil(small, tmp_path / "evil.zip", "results.csv", offset, value, local=local)
    refused(path, tmp_path / "runs", capsys)


def test_what_is_hidden_before_between_and_behind(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole = tmp_path / "evil.zip", small.read_bytes()
    path.write_bytes(b"#!/bin/sh\n" + whole)
    assert "gap" in refused(path, tmp_path / "runs", capsys)
    path.write_bytes(whole + b"more")
    assert "no whole ZIP file" in refused(path, tmp_path / "runs", capsys)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members(small).items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data)
        archive.comment = b"a comment"
    assert "no whole ZIP file" in refused(path, tmp_path / "runs", capsys)


def test_more_members_than_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README.md", b"")
    data = bytearray(path.read_bytes())
    data[-14:-10] = struct.pack("<HH", 60_001, 60_001)
    path.write_bytes(data)
    assert "60,001 members where 60,000 are allowed" in refused(path, tmp_path / "runs", capsys)


def test_a_member_that_is_too_large(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(layout.CELL_FILES, "samples.npz", 100)
    assert "samples.npz has" in refused(small, tmp_path / "runs", capsys)
    monkeypatch.setattr("experiments.archive.layout.MAX_ARCHIVE", 1000)
    assert "where 1,000 bytes are allowed" in refused(small, tmp_path / "runs", capsys)


def cell_of(content: Members) -> str:
    """The folder of the only cell."""
    return next(name for name in content if name.endswith("/record.json")).removesuffix("/record.json")


def without(content: Members, name: str) -> Members:
    return {key: data for key, data in content.items() if not key.endswith(name)}


def edited(content: Members, name: str, old: str, new: str) -> Members:
    """The members with a text changed and, as whoever means harm would, sealed again where it is a record."""
    key = next(key for key in content if key.endswith(name))
    assert old.encode() in content[key]
    return content | {key: content[key].replace(old.encode(), new.encode(), 1)}


def resealed(content: Members, folder: Path) -> Members:
    """The only cell under a seal that fits whatever it holds."""
    cell = cell_of(content)
    for name, data in content.items():
        if name.startswith(cell) and not name.endswith("/done"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    seal(folder / cell)
    return content | {f"{cell}/done": (folder / cell / "done").read_bytes()}


def moved(content: Members, new: str) -> Members:
    cell = cell_of(content)
    return {name.replace(cell, new): data for name, data in content.items()}


CONTENTS: list[tuple[str, Callable[[Members], Members], bool, str]] = [
    ("no record", lambda m: without(m, "/record.json"), False, "lacks record.json"),
    ("no marker", lambda m: without(m, "/done"), False, "lacks done"),
    ("no samples", lambda m: without(m, "/samples.npz"), False, "do not have the same files: samples.npz"),
    ("empty marker", lambda m: m | {f"{cell_of(m)}/done": b""}, False, "do not have the same files"),
    ("damaged marker", lambda m: m | {f"{cell_of(m)}/done": b"{"}, False, "is damaged"),
    ("an edited record", lambda m: edited(m, "/record.json", "0.7", "0.8"), False, "not what was sealed"),
    ("an edited file", lambda m: edited(m, "/metrics.csv", "0.5", "0.4"), False, "checksum is not the sealed one"),
    ("another width", lambda m: edited(m, "/record.json", '"width": 8', '"width": 9'), True, "its hash is"),
    ("another config", lambda m: edited(m, "/config.json", '"width": 8', '"width": 9'), True, "differs from the conf"),
    ("another seed", lambda m: edited(m, "/record.json", '"seed": 0', '"seed": 1'), False, "belongs to another cell"),
    ("elsewhere", lambda m: moved(m, "gan/digits/0123456789ab/seed=0"), False, "belongs to another cell"),
    ("a control", lambda m: edited(m, "/record.json", '"trained"', '"control"'), True, "another place"),
    ("no JSON", lambda m: m | {f"{cell_of(m)}/config.json": b"["}, True, "is not valid JSON"),
    ("no samples in it", lambda m: m | {f"{cell_of(m)}/samples.npz": b"PK"}, True, "no whole ZIP file"),
    ("no picture", lambda m: m | {f"{cell_of(m)}/samples.png": b"GIF89a"}, True, "cannot be read as a picture"),
    ("no log", lambda m: m | {f"{cell_of(m)}/metrics.csv": b"a\n1\n"}, True, "needs a column images_seen"),
    ("a checkpoint that is not sealed", lambda m: m | {f"{cell_of(m)}/checkpoints/model.ckpt": b"x"}, False, "same"),
    ("half a control", lambda m: m | {"controls/digits/0123456789ab/copycat.npz": b""}, False, "lacks .json"),
    ("no cells", lambda m: {"README.md": b""}, False, "holds no cells"),
]


@pytest.mark.parametrize(("change", "reseal", "reason"), [c[1:] for c in CONTENTS], ids=[c[0] for c in CONTENTS])
def test_contents(
    change: Callable[[Members], Members], reseal: bool, reason: str, small: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = change(members(small))
    if reseal:
        content = resealed(content, tmp_path / "resealed")
    assert reason in refused(repack(tmp_path / "evil.zip", content), tmp_path / "runs", capsys)


def test_images_under_the_name_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell(tmp_path / "one", identified(synthetic.external("gan")))
    assert main(["export", str(tmp_path / "one"), "--out", str(tmp_path / "a.zip")]) == 0
    assert "under the name of a model" in refused(tmp_path / "a.zip", tmp_path / "runs", capsys)


SUMS: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("missing line", lambda text: text.split(b"\n", 1)[1], "has no checksum in"),
    ("more", lambda text: text + b"0" * 64 + b"  nothing\n", "is not in the archive, but in its"),
    ("wrong", lambda text: b"0" * 64 + text[64:], "does not have its checksum"),
    ("twice", lambda text: text + text.split(b"\n")[0] + b"\n", "or a name twice"),
    ("no checksum", lambda text: text + b"hello\n", "that are no checksum"),
]


@pytest.mark.parametrize(("change", "reason"), [s[1:] for s in SUMS], ids=[s[0] for s in SUMS])
def test_checksums_that_do_not_hold(
    change: Callable[[bytes], bytes], reason: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = members(small)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name, data in sorted(content.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), change(data) if name == "SHA256SUMS" else data)
    assert reason in refused(tmp_path / "evil.zip", tmp_path / "runs", capsys)
    repack(tmp_path / "evil.zip", content)
    data = (tmp_path / "evil.zip").read_bytes().replace(b"SHA256SUMS", b"SHA256SUMZ")
    (tmp_path / "evil.zip").write_bytes(data)
    assert "no file that an archive" in refused(tmp_path / "evil.zip", tmp_path / "runs", capsys)


def test_random_damage(small: Path, tmp_path: Path) -> None:
    import_archive(small, tmp_path / "whole")
    expected, whole = contents(tmp_path / "whole"), small.read_bytes()
    accepted = 0
    for number, data in enumerate(damaged(whole)):
        path, out = tmp_path / "d.zip", tmp_path / f"out{number}"
        path.write_bytes(data)
        try:
            import_archive(path, out)
            assert contents(out) == expected
            accepted += 1
        except ArchiveError as error:
            assert one_sentence(str(error), str(path)) and not out.exists()
    assert accepted < 50
