"""Stratified splits and idx files: properties, closed forms and damage."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.base import DataNotFoundError, Split, read_idx, stratified_split

HEADER = bytes((0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3))  # uint8, 2 dimensions: 2 x 3


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    cut=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_split_is_a_partition_with_every_class_in_its_share(counts: list[int], cut: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    first = round(cut * len(labels))
    parts = stratified_split(labels, (first, len(labels) - first), seed)
    assert [len(p) for p in parts] == [first, len(labels) - first]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    expected = np.array(counts) * first / len(labels)
    assert np.abs(np.bincount(labels[parts[0]], minlength=len(counts)) - expected).max() <= len(counts)


def test_split_depends_on_the_seed_and_on_nothing_else() -> None:
    labels = np.arange(1000) % 10
    one, again, other = (stratified_split(labels, (700, 300), seed)[1] for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any()
    assert (np.bincount(labels[one]) == 30).all()
    assert not np.array_equal(one, np.arange(700, 1000))


def test_split_sizes_must_add_up() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) must add up to the 4 labels"):
        stratified_split(np.zeros(4, np.int64), (2, 3), 0)


@pytest.mark.parametrize("images", [np.zeros((2, 3, 4), np.uint8), np.zeros((2, 1, 3, 4), np.float32)])
def test_split_refuses_what_is_no_uint8_image(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        Split(images, np.zeros(2, np.int64))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"array-idx2-ubyte{suffix}"
    content = HEADER + bytes(range(6))
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


DAMAGED = {
    "empty": b"",
    "another type": bytes((0, 0, 13, 2)) + HEADER[4:] + bytes(6),
    "no dimension": bytes((0, 0, 8, 0)) + bytes(1),
    "header cut": HEADER[:7],
    "data cut": HEADER + bytes(5),
    "data too long": HEADER + bytes(7),
    "overflowing header": bytes((0, 0, 8, 3)) + b"\xff" * 12,
    "text": b"<html>404</html>",
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("content", DAMAGED.values(), ids=list(DAMAGED))
def test_damaged_idx_is_one_sentence_with_the_file_name(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataNotFoundError, match="damaged") as caught:
        read_idx(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_every_truncation_and_bit_flip_of_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(HEADER + bytes(range(6)), mtime=0)
    path = tmp_path / "damaged.gz"
    flipped = [whole[:i] + bytes((whole[i] ^ 0x10,)) + whole[i + 1 :] for i in range(10, len(whole))]
    for content in [whole[:length] for length in range(len(whole))] + flipped:
        path.write_bytes(content)
        with pytest.raises(DataNotFoundError):
            read_idx(path)


def test_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.base.MAX_IDX_BYTES", 1 << 16)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(DataNotFoundError, match="more than 65,536 bytes"):
        read_idx(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="none cannot be read"):
        read_idx(tmp_path / "none")
