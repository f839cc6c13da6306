"""What every dataset has in common: the description, the splits and their fingerprint.

A dataset is one file beside this one with three names: ``INFO`` (a ``DatasetInfo``),
``Config`` (a frozen dataclass, possibly empty) and ``load(config) -> ImageDataset``.
Nothing here imports torch, so that the command line stays quick.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

MAX_IDX_BYTES = 1 << 28  # far above any of these files: a gzip bomb must not fill the memory


class DataNotFoundError(RuntimeError):
    """The data is not on this machine; the message says in one sentence where it was sought."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before its files are read.

    ``features`` names the feature extractor that fits it, where that is not one of its own name.
    """

    name: str
    channels: int
    image_size: int
    num_classes: int
    class_names: tuple[str, ...]
    features: str = ""

    @property
    def default_features(self) -> str:
        """The feature extractor that is used unless another is asked for."""
        return self.features or self.name


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, C, H, W) with their labels int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            found = f"{self.images.dtype} {self.images.shape}"
            raise ValueError(f"images must be uint8 (N, C, H, W), not {found}")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {self.labels.shape}"
            raise ValueError(f"labels must be int64 ({len(self.images)},), not {found}")

    def __len__(self) -> int:
        return len(self.images)


class Density(Protocol):
    """A source whose probability mass function over uint8 images is known: a mixture of distinct modes."""

    def __hash__(self) -> int:
        """What is worked out about a density is kept by it."""

    @property
    def num_modes(self) -> int:
        """Number of mixture components."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """Probability of each component, (num_modes,), adding up to 1."""

    def log_prob(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Exact log p(x) in nats, (N,), of any uint8 images (N, C, H, W); ``ValueError`` for another shape."""

    def mode(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The component each image most probably comes from, (N,), in 0..num_modes - 1."""

    def entropy(self) -> tuple[float, float]:
        """Entropy in nats per image and its standard error."""

    def sample(self, n: int, seed: int) -> NDArray[np.uint8]:
        """n independent draws, uint8 (n, C, H, W); the same for the same seed."""


@dataclass(frozen=True)
class ImageDataset:
    """The three fixed splits of a dataset, in memory; ``density`` is what they were drawn from, where it is known."""

    info: DatasetInfo
    train: Split
    validation: Split
    test: Split
    density: Density | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 over the shapes and contents of all splits, in order.

        A density takes no part: a model sees the images only, and the first of its draws tell densities apart.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for array in (split.images, split.labels):
                digest.update(repr((array.dtype.str, array.shape)).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def stratified_split(labels: NDArray[np.int64], sizes: Sequence[int], seed: int) -> list[NDArray[np.intp]]:
    """Indices of disjoint parts of the given sizes with the same share of every class.

    Members of a class get evenly spaced quantiles in random order; cutting all quantiles at the
    sizes gives each part its share of each class to within one image per cut.

    Args:
        labels: Class of each image, (N,).
        sizes: Sizes of the parts; they must add up to N.
        seed: Seed of NumPy's PCG64 (uniform floats only, whose stream NumPy keeps stable).

    Returns:
        One sorted array of indices per part.
    """
    if sum(sizes) != len(labels):
        raise ValueError(f"the parts {tuple(sizes)} must add up to the {len(labels)} labels")
    noise = np.random.Generator(np.random.PCG64(seed)).random(2 * len(labels)).reshape(2, -1)
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(noise[0, members])]
        quantile[members] = (np.arange(len(members)) + noise[1, members[0]]) / len(members)
    parts = np.split(np.argsort(quantile, kind="stable"), np.cumsum(sizes)[:-1])
    return [np.sort(part) for part in parts]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of bytes (LeCun's MNIST format), gzipped if its name ends in ``.gz``.

    Raises:
        DataNotFoundError: One sentence if the file cannot be read, is truncated or is something else.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read(MAX_IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataNotFoundError(f"{path} cannot be read ({error}); fetch the file again") from None
    if len(content) > MAX_IDX_BYTES:
        raise DataNotFoundError(f"{path} unpacks to more than {MAX_IDX_BYTES:,} bytes and is not this data")
    dimensions = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or dimensions == 0 or len(content) < 4 + 4 * dimensions:
        raise DataNotFoundError(f"{path} is not an idx file of bytes (magic number 00 00 08)")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    start = 4 + 4 * dimensions
    if len(content) - start != math.prod(shape):
        raise DataNotFoundError(
            f"{path} is damaged: it holds {len(content) - start:,} bytes where its header "
            f"announces {math.prod(shape):,}; fetch the file again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
