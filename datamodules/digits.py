"""1,797 handwritten digits of 8x8 pixels, bundled with scikit-learn; nothing to download.

Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI repository).
The grey levels 0..16 become 0..255 by rounding x * 255 / 16; the splits are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from datamodules.base import DatasetInfo, ImageDataset, Split, stratified_split

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


@lru_cache(maxsize=1)
def load(config: Config) -> ImageDataset:
    """The digits in their three fixed splits, read once per process."""
    from sklearn.datasets import load_digits

    levels, digits = load_digits(return_X_y=True)
    images = np.round(levels * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = digits.astype(np.int64)
    parts = stratified_split(labels, SPLIT_SIZES, SPLIT_SEED)
    train, validation, test = (Split(images[part], labels[part]) for part in parts)
    return ImageDataset(INFO, train, validation, test)
