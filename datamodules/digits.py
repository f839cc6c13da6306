"""1,797 handwritten digits of 8x8 pixels, bundled with scikit-learn; nothing to download.

Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI repository).
The grey levels 0..16 become 0..255 by rounding x * 255 / 16; the splits are our own.
"""

from __future__ import annotations

import importlib.util
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.base import DataNotFoundError, DatasetInfo, ImageDataset, Split, stratified_split

SPLIT_SIZES = (1_197, 100, 500)  # train, validation, test
SPLIT_SEED = 20_240_601

INFO = DatasetInfo(
    name="digits",
    channels=1,
    image_size=8,
    num_classes=10,
    class_names=tuple("0123456789"),
)


@dataclass(frozen=True)
class Config:
    """Nothing to set: the data comes with scikit-learn."""


def locate(config: Config) -> str:
    """Where the data comes from, without loading it."""
    return "bundled with scikit-learn"


def _table() -> NDArray[np.float64]:
    """Grey levels 0..16 of 64 pixels and the digit, (1797, 65).

    Read from scikit-learn's own file, since importing scikit-learn takes two seconds that a plan has not.
    """
    package = importlib.util.find_spec("sklearn")
    path = Path(str(package.origin if package else "")).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        return np.loadtxt(path, delimiter=",")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataNotFoundError(f"scikit-learn's digits cannot be read: {path}: {error}") from None


@lru_cache(maxsize=1)
def load(config: Config) -> ImageDataset:
    """The digits in their three fixed splits, read once per process."""
    table = _table()
    images = np.round(table[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, -1].astype(np.int64)
    parts = stratified_split(labels, SPLIT_SIZES, SPLIT_SEED)
    train, validation, test = (Split(images[part], labels[part]) for part in parts)
    return ImageDataset(INFO, train, validation, test)
