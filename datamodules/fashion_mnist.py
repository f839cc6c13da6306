"""70,000 pictures of clothes, 28x28, in ten classes; a local copy or a 30 MB download.

Xiao et al. 2017, "Fashion-MNIST" (arXiv:1708.07747). The four idx files are read here, without
torchvision's MD5 check: Debian's package holds the same bytes under another gzip header.
The official 60,000 training images are split into train and validation; test is the official one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from datamodules.base import DataNotFoundError, DatasetInfo, ImageDataset, Split, read_idx, stratified_split

SPLIT_SIZES = (55_000, 5_000)  # train, validation
SPLIT_SEED = 20_240_601
SHAPES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
ADVICE = "install Debian's package (apt-get install dataset-fashion-mnist) or name a folder with --data.root"

INFO = DatasetInfo(
    name="fashion_mnist",
    channels=1,
    image_size=28,
    num_classes=10,
    class_names=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Where the files are."""

    root: str = ""
    """Folder with the four idx files; empty: $PARAGON_DATA, Debian's folder, then a download."""


def _file(folder: Path, stem: str) -> Path | None:
    candidates = (folder / f"{stem}.gz", folder / stem)
    return next((path for path in candidates if path.is_file()), None)


def _download_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paragon"


def _sought(config: Config) -> list[Path]:
    if config.root:
        roots = [Path(config.root).expanduser()]
    else:
        given = os.environ.get("PARAGON_DATA")
        roots = [Path(given) / "fashion_mnist", Path(given)] if given else []
        roots += [DEBIAN_FOLDER, _download_root()]
    return [folder for root in roots for folder in (root, root / "FashionMNIST" / "raw")]


def _missing(config: Config, why: str = "") -> DataNotFoundError:
    sought = ", ".join(str(folder) for folder in _sought(config)[::2])
    return DataNotFoundError(f"the four Fashion-MNIST idx files are not in {sought}{why}; {ADVICE}")


def _find(config: Config) -> Path | None:
    """The first folder that holds all files; a given root must."""
    folder = next((f for f in _sought(config) if all(_file(f, stem) for stem in SHAPES)), None)
    if folder is None and config.root:
        raise _missing(config)
    return folder


def locate(config: Config) -> str:
    """Where the data comes from, without loading it; ``DataNotFoundError`` if a given root lacks it."""
    return str(_find(config) or f"torchvision's download into {_download_root()}")


def is_local(config: Config) -> bool:
    """Whether ``load`` needs no download; ``DataNotFoundError`` if a given root lacks the files."""
    return _find(config) is not None


def _download(config: Config) -> Path:
    try:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(_download_root()), download=True)
    except (ImportError, OSError, RuntimeError) as error:
        raise _missing(config, f" and the download failed ({' '.join(str(error).split())})") from None
    return _download_root() / "FashionMNIST" / "raw"


def load(config: Config) -> ImageDataset:
    """The pictures in their three fixed splits, read once per process and folder.

    Raises:
        DataNotFoundError: One sentence if there are no files or one of them is damaged.
    """
    return _read(_find(config) or _download(config))


@lru_cache(maxsize=1)
def _read(folder: Path) -> ImageDataset:
    arrays = [read_idx(_file(folder, stem) or folder / stem) for stem in SHAPES]
    for stem, array in zip(SHAPES, arrays, strict=True):
        if array.shape != SHAPES[stem]:
            raise DataNotFoundError(f"{folder / stem} has shape {array.shape} instead of {SHAPES[stem]}")
    if max(arrays[1].max(), arrays[3].max()) >= INFO.num_classes:
        raise DataNotFoundError(f"{folder} holds labels above 9, Fashion-MNIST has ten classes")
    images, labels = arrays[0][:, None], arrays[1].astype(np.int64)
    parts = stratified_split(labels, SPLIT_SIZES, SPLIT_SEED)
    train, validation = (Split(images[part], labels[part]) for part in parts)
    # A copy: what comes from a file's bytes is read-only, and torch wants writable arrays.
    test = Split(arrays[2][:, None].copy(), arrays[3].astype(np.int64))
    return ImageDataset(INFO, train, validation, test)
