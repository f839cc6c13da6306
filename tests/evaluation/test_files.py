"""Files from outside: limits come before memory, damage is one sentence, and numbers never change in silence."""

from __future__ import annotations

import io
import os
import resource
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation import files
from evaluation.features.cache import cached_features
from evaluation.features.extractors import FeatureExtractor
from evaluation.files import FileError, open_picture, parse_json, read_bytes, read_json, read_npy, read_npz
from evaluation.seal import SealError, faults, read_seal
from reports.collect import collect, load_log, load_samples
from reports.page import write_report
from tests.evaluation.test_features_cache import IMAGES, Means, same
from tests.experiments.sealed import cell_record, write_cell
from tests.hostile import damaged, one_sentence
from tests.reports import synthetic


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """The sentence with which a file is refused."""
    with pytest.raises(FileError) as caught:
        read(path)
    assert one_sentence(str(caught.value), str(path))
    return caught.value.reason


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


BAD_JSON = [
    (b"", "Expecting value"),
    (b"{", "in line 1"),
    (b'{"a": 1,\n"a": 2}', "the key 'a' comes twice"),
    (b"[NaN]", "it holds NaN where finite numbers are allowed"),
    (b"[-Infinity]", "it holds -Infinity"),
    (b"[1e999]", "it holds a number that is too large"),
    (b"[" + b"9" * 5000 + b"]", "a whole number of more than 20 characters"),
    (b"[" * 33 + b"]" * 33, "nested deeper than the 32 levels"),
    (b"[" * 100_000, "nested deeper than the 32 levels"),
    (b'{"a":' * 100_000, "nested deeper than the 32 levels"),
    (b'"\xff"', "it is not UTF-8 text"),
    (b"\xef\xbb\xbf{}", "BOM"),
]


@pytest.mark.parametrize(("content", "reason"), BAD_JSON, ids=[reason for _, reason in BAD_JSON])
def test_json_that_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refusal(read_json, written(tmp_path / "a.json", content))


def test_json_that_is_read() -> None:
    text = b'{"a": [1, -2.5e-3, true, null, "\\u00e9"], "b": 12345678901234567890}'
    assert parse_json(text, "x") == {"a": [1, -0.0025, True, None, "é"], "b": 12345678901234567890}
    deep = b"[" * 32 + b"]" * 32
    assert parse_json(deep, "x")


def test_what_is_no_ordinary_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    secret = written(tmp_path / "secret", b"{}")
    (tmp_path / "link").symlink_to(secret)
    for name, reason in (
        ("pipe", "no ordinary file"), ("link", "it is a link"), ("none", "does not exist"), (".", "no ordinary file"),
    ):
        assert reason in refusal(read_json, tmp_path / name)
    written(tmp_path / "large", bytes(101))
    assert "it has 101 bytes where 100 bytes are allowed" in refusal(lambda p: read_bytes(p, 100), tmp_path / "large")
    assert read_bytes(tmp_path / "link", 2, follow=True) == b"{}"


def member(header: dict[str, Any], data: bytes = b"") -> bytes:
    """An .npy file that says of itself what is given."""
    text = repr({"descr": "<f8", "fortran_order": False, "shape": (1,)} | header)
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n" + data


def archive(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


BAD_MEMBERS = [
    ("too much", member({"shape": (10**12,)}), "its header tells of 8,000,000,000,000 bytes where there are 0"),
    ("overflow", member({"shape": (2**62, 2**62)}), "its header tells of"),
    ("negative", member({"shape": (-1,)}), "neither numbers nor text"),
    ("too little", member({"shape": (1,)}, bytes(16)), "its header tells of 8 bytes where there are 16"),
    ("objects", member({"descr": "|O"}, bytes(8)), "it holds Python objects"),
    ("records", member({"descr": [("a", "<f8")]}, bytes(8)), "neither numbers nor text"),
    ("void", member({"descr": "|V8"}, bytes(8)), "neither numbers nor text"),
    ("empty items", member({"descr": "|S0", "shape": (10**12,)}), "neither numbers nor text"),
    ("a call", member({}).replace(b"'<f8'", b"exit()"), "cannot be read as NumPy arrays"),
    ("version", b"\x93NUMPY\x09\0" + bytes(100), "unknown version"),
    ("pickle", b"\x80\x04\x95", "cannot be read as NumPy arrays"),
]


@pytest.mark.parametrize(("content", "reason"), [m[1:] for m in BAD_MEMBERS], ids=[m[0] for m in BAD_MEMBERS])
def test_arrays_that_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", archive({"images.npy": content}))
    assert reason in refusal(read_npz, path)
    assert reason in refusal(read_npy, written(tmp_path / "a.npy", content))


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    zeros = bytes(30 * 2**20)
    one = member({"descr": "|u1", "shape": (len(zeros),)}, zeros)
    bomb = written(tmp_path / "bomb.npz", archive({"images.npy": one}))
    assert bomb.stat().st_size < 50_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "its arrays have 30 MiB where 20 MiB are allowed" in refusal(lambda p: read_npz(p, 20 * 2**20), bomb)
    lying = bytearray(bomb.read_bytes())
    place = lying.rindex(b"PK\1\2") + 24
    lying[place : place + 4] = struct.pack("<I", 1000)  # the directory says that it is small
    assert "cannot be read as" in refusal(read_npz, written(tmp_path / "lying.npz", bytes(lying)))
    many = archive({f"{i}.npy": b"" for i in range(65)})
    assert "it has 65 members where 64 are allowed" in refusal(read_npz, written(tmp_path / "many.npz", many))
    long = bytearray(archive({"a.npy": b""}))
    long[-10:-6] = struct.pack("<I", 2**30)
    assert "members where 64 are allowed" in refusal(read_npz, written(tmp_path / "long.npz", bytes(long)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


def test_members_that_are_no_plain_arrays(tmp_path: Path) -> None:
    good = member({}, bytes(8))
    for name, content in {
        "bz2": archive({"images.npy": good}, zipfile.ZIP_BZIP2), "text": archive({"images.txt": good}),
    }.items():
        assert "is no plain array" in refusal(read_npz, written(tmp_path / name, content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("images.npy", good)
            file.writestr("images.npy", member({}, b"\1" * 8))
    assert "a name comes twice" in refusal(read_npz, written(tmp_path / "twice", buffer.getvalue()))


def test_arrays_of_all_kinds_come_back(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a": IMAGES, "f": np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4))), "e": np.zeros((0, 3)),
        "s": np.float32(2), "t": np.array(["ab", "c"]), "c": np.array([1j]), "b": np.array([True, False]),
    }  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz")
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
    np.save(tmp_path / "f.npy", arrays["f"])
    assert np.array_equal(read_npy(tmp_path / "f.npy"), arrays["f"])


def png(width: int, height: int) -> bytes:
    """A grey PNG that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_pictures_that_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), 90 * i, np.uint8)) for i in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")
    written(tmp_path / "bomb.png", png(60_000, 60_000))
    written(tmp_path / "long.png", png(70_000, 1))
    for name, reason in (
        ("moving.gif", "it holds 3 frames, not one image"), ("a.eps", "cannot be read as a picture"),
        ("bomb.png", "where 64,000,000 pixels"), ("long.png", "it has 70000x1 where"),
    ):
        assert reason in refusal(open_picture, tmp_path / name)


def test_a_picture_comes_back(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), pixels)


def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "metrics.csv", b"images_seen,loss\n1,2\n")
    assert load_log(path)["loss"].tolist() == [2]
    assert "its column loss holds more than numbers" in refusal(load_log, written(path, b"images_seen,loss\n1,2x\n"))
    monkeypatch.setattr("reports.collect.MAX_TABLE", 10)
    assert "where 10 bytes are allowed" in refusal(load_log, path)


# Random damage.


def test_damaged_samples(tmp_path: Path) -> None:
    images, labels = IMAGES, np.arange(5)
    for seed, save in enumerate((np.savez, np.savez_compressed)):
        save(tmp_path / "whole.npz", images=images, labels=labels)
        refused = 0
        for content in damaged((tmp_path / "whole.npz").read_bytes(), seed=seed):
            path = written(tmp_path / "s.npz", content)
            try:
                found = load_samples(path)
                assert np.array_equal(found[0], images) and np.array_equal(found[1], labels)
            except FileError as error:
                refused += 1
                assert one_sentence(str(error), str(path))
        assert refused > 60


def test_damaged_pictures(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 20), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "whole.png")
    for content in damaged((tmp_path / "whole.png").read_bytes()):
        path = written(tmp_path / "p.png", content)
        try:
            assert np.array_equal(np.asarray(open_picture(path)), pixels)
        except FileError as error:
            assert one_sentence(str(error), str(path))


def test_damaged_records(tmp_path: Path) -> None:
    expected = cell_record("gan")
    path = write_cell(tmp_path, expected) / "record.json"
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        found = collect(tmp_path)
        if found.runs:
            assert [run.record for run in found.runs] == [expected] and not found.unreadable
        else:
            (sentence,) = found.unreadable
            assert one_sentence(sentence, "record.json")


def test_damaged_markers(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, cell_record("gan"))
    whole, expected = (folder / "done").read_bytes(), read_seal(folder)
    for content in damaged(whole):
        (folder / "done").write_bytes(content)
        try:
            found = read_seal(folder)
            assert found == expected or (found is None and content == b"") or faults(folder)
        except SealError as error:
            assert one_sentence(str(error), "done")


def test_damaged_features_are_computed_again(tmp_path: Path) -> None:
    extractor = FeatureExtractor("means", "", Means())
    expected = cached_features(extractor, IMAGES, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert same(cached_features(extractor, IMAGES, folder=tmp_path), expected)
        assert all(one_sentence(str(w.message), str(path)) for w in said)


# Records that mean harm.


def test_a_seal_does_not_reach_outside_its_folder(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, cell_record("gan"))
    text = (folder / "done").read_text()
    for name in ("../secret", "/etc/passwd", "a/../../b", ""):
        (folder / "done").write_text(text.replace("samples.png", name))
        assert "it names files outside its folder" in faults(folder)[0]


@pytest.mark.parametrize("field", ["model", "dataset", "config_hash"])
@pytest.mark.parametrize("name", ["../../evil", "/evil", "a\\b", "", "<script>", "$\\frac{$", "x" * 65, "."])
def test_names_of_records_are_plain(field: str, name: str, tmp_path: Path) -> None:
    made = replace(cell_record("gan"), **{field: name})
    made.save(tmp_path / "m" / "d" / "h" / "seed=0" / "record.json")
    found = collect(tmp_path)
    assert found.runs == () and "is no name" in found.unreadable[0]


@pytest.mark.parametrize("budget", [None, "much", True, -1, [1.0]])
def test_budgets_of_records_are_numbers(budget: object, tmp_path: Path) -> None:
    made = cell_record("gan")
    replace(made, config=made.config | {"budget": budget}).save(tmp_path / "m/d/h/seed=0/record.json")
    found = collect(tmp_path)
    assert found.runs == () and "config.budget: a number of FLOPs is allowed" in found.unreadable[0]


def test_intervals_of_records_have_a_width(tmp_path: Path) -> None:
    made = cell_record("gan")
    odd = replace(made.metrics["recall"], ci_low=0.8, ci_high=0.6)
    replace(made, metrics=made.metrics | {"recall": odd}).save(tmp_path / "m/d/h/seed=0/record.json")
    found = collect(tmp_path)
    assert found.runs == () and "'recall' has an interval that ends before it begins" in found.unreadable[0]


def test_links_in_a_cell_are_not_followed(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    folder = synthetic.write_cell(out, synthetic.record("diffusion"))
    for name in ("samples.npz", "trajectory.png", "metrics.csv"):
        outside = tmp_path / name
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)
    page = write_report(out).read_text()
    assert page.count("it is a link, only ordinary files are allowed") == 3
    (folder / "record.json").rename(tmp_path / "record.json")
    (folder / "record.json").symlink_to(tmp_path / "record.json")
    assert "it is a link" in collect(out).unreadable[0]


def test_strings_of_records_are_text_in_every_format(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> $\\frac{$ \\input{/etc/passwd} [x] * | `"
    made = synthetic.complete(synthetic.record("gan"))
    likelihood = replace(made.likelihood, kind=evil, self_check=evil)
    metrics = made.metrics | {evil: made.metrics["recall"]}
    place = replace(made.provenance, cpu=evil, versions={evil: evil})
    made = replace(made, likelihood=likelihood, likelihoods=(likelihood,), metrics=metrics, provenance=place)
    synthetic.write_cell(tmp_path, made, files=False)
    report = write_report(tmp_path).parent
    assert "<script" not in (report / "index.html").read_text()
    assert not any(c in (report / "table.tex").read_text() for c in ("\\frac", "\\input", "<script"))
    text = (report / "table.md").read_text()
    assert text.count("<script") == text.count("\\<script")


def test_limits_are_what_records_need() -> None:
    assert files.MAX_ARRAYS >= 10_000 * 3 * 256**2 and files.MAX_JSON > 2**20
