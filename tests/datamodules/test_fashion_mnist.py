"""Where Fashion-MNIST is sought, and what is said if it is not there: on made-up files of its shape."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from datamodules import fashion_mnist
from datamodules.base import DataNotFoundError
from datamodules.fashion_mnist import SHAPES, Config, load, locate


def header(shape: tuple[int, ...]) -> bytes:
    """An idx header for bytes."""
    return bytes((0, 0, 8, len(shape))) + b"".join(n.to_bytes(4, "big") for n in shape)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four files of Fashion-MNIST's shape: random pixels, labels in turn; one gzipped."""
    folder = tmp_path_factory.mktemp("made_up")
    rng = np.random.default_rng(0)
    for stem, shape in SHAPES.items():
        values = rng.integers(0, 256, shape, np.uint8) if len(shape) > 1 else np.arange(shape[0]) % 10
        content = header(shape) + values.astype(np.uint8).tobytes()
        if stem.startswith("train-labels"):
            (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / stem).write_bytes(content)
    return folder


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the data and without a network; the cache folder lies in ``tmp_path``."""
    monkeypatch.delenv("PARAGON_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path


def linked(source: Path, target: Path, without: str = "") -> Path:
    """``target`` with links to all files of ``source`` but those that start with ``without``."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if not without or not path.name.startswith(without):
            os.link(path, target / path.name)
    return target


def test_splits(made_up: Path) -> None:
    data = load(Config(root=str(made_up)))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    assert all(
        (np.bincount(s.labels) == len(s) // 10).all() for s in (data.train, data.validation, data.test)
    )
    raw = np.fromfile(made_up / "t10k-images-idx3-ubyte", np.uint8, offset=16)
    assert np.array_equal(data.test.images.ravel(), raw)
    official = np.fromfile(made_up / "train-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 784)
    ours = np.concatenate((data.train.images, data.validation.images)).reshape(-1, 784)
    assert {row.tobytes() for row in ours} == {row.tobytes() for row in official}


@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_given_root_is_used_and_nothing_else(made_up: Path, nowhere: Path, below: str) -> None:
    folder = linked(made_up, nowhere / "root" / below)
    assert locate(Config(root=str(nowhere / "root"))) == str(folder)
    linked(made_up, nowhere / "debian")
    for ask in (locate, load):
        with pytest.raises(DataNotFoundError, match=r"are not in \S+empty; install") as caught:
            ask(Config(root=str(nowhere / "empty")))
        assert "apt-get install dataset-fashion-mnist" in str(caught.value)
        assert "--data.root" in str(caught.value)


def test_order_of_places(made_up: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(Config()) == f"torchvision's download into {nowhere / 'cache' / 'paragon'}"
    places = ["cache/paragon/FashionMNIST/raw", "debian", "given", "given/fashion_mnist"]
    monkeypatch.setenv("PARAGON_DATA", str(nowhere / "given"))
    for place in places:
        folder = linked(made_up, nowhere / place)
        assert locate(Config()) == str(folder)
    assert len(load(Config()).test) == 10_000


def test_incomplete_folder_is_passed_over(made_up: Path, nowhere: Path) -> None:
    linked(made_up, nowhere / "debian", without="t10k-labels")
    assert "download" in locate(Config())


def test_no_data_and_no_network_is_one_sentence(nowhere: Path) -> None:
    with pytest.raises(DataNotFoundError, match="the download failed") as caught:
        load(Config())
    assert str(nowhere / "debian") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stem", "content", "sentence"),
    [
        ("t10k-images-idx3-ubyte", header((10_000, 28, 28)) + bytes(99), "is damaged: it holds 99 bytes"),
        ("t10k-images-idx3-ubyte", header((7, 28, 28)) + bytes(7 * 784), r"shape \(7, 28, 28\) instead"),
        ("t10k-labels-idx1-ubyte", header((10_000,)) + b"\x0a" * 10_000, "labels above 9"),
        ("train-labels-idx1-ubyte", b"<html>", "not an idx file"),
    ],
)
def test_damaged_file(made_up: Path, tmp_path: Path, stem: str, content: bytes, sentence: str) -> None:
    folder = linked(made_up, tmp_path / "damaged", without=stem)
    (folder / stem).write_bytes(content)
    with pytest.raises(DataNotFoundError, match=sentence):
        load(Config(root=str(folder)))
