"""What a metric is: a named family of numbers computed from the same pair of feature sets.

A metric is one file beside this one with its pure functions and a constant ``METRIC``.
Nothing here imports torch; arrays are NumPy, or torch tensors on the CPU that
``numpy.asarray`` accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]
Features = NDArray[np.floating]  # float32 or float64; the metrics convert block by block

BLOCK = 2048  # rows
PIXELS = "pixels"  # the space of the flattened images themselves, where only memorisation is asked about


def of_features(space: str) -> bool:
    """Whether a space is one of features, which distances between distributions need, and not of pixels."""
    return space != PIXELS


@dataclass(frozen=True)
class Exam:
    """What a metric may look at.

    ``features`` names the feature space; ``real`` and ``fake`` are features float32 or float64
    (N, D). ``train`` are those of the training images (T, D), ``held_out`` (H, D) of real images that
    were not trained on (the exam takes the test split, as for ``real``), for what asks about memorisation.
    ``fake_logits`` float32 (M, classes) is what the extractor sees in the generated images,
    ``fake_labels`` int64 (M,) the classes that were asked for, ``real_labels`` int64 (N,) those of
    the real images. Each is None if it is not there.
    """

    features: str
    real: NDArray[np.floating]
    fake: NDArray[np.floating]
    real_labels: NDArray[np.int64] | None = None
    fake_labels: NDArray[np.int64] | None = None
    fake_logits: NDArray[np.floating] | None = None
    train: NDArray[np.floating] | None = None
    held_out: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Score:
    """One number with a 95 % interval and its method (None where no tested method gives one)."""

    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    ci_method: str | None = None


@dataclass(frozen=True)
class MetricInfo:
    """A family of numbers that one function computes together.

    ``names`` are the record keys; ``{features}`` in one is replaced by the name of the
    feature space. ``higher_is_better`` is None for a test, by which nothing is ranked. ``compute``
    returns one Score per name, or raises ``ValueError`` with the reason why the numbers cannot be
    had. ``applies`` tells in which feature spaces (by name) the metric is defined at all. ``seed`` is
    that of its own randomness, None if it has none; ``reference`` names the real images it looks at:
    "test" or "train and test".
    """

    names: tuple[str, ...]
    higher_is_better: bool | None
    min_samples: int
    paper: str
    summary: str
    compute: Callable[[Exam], tuple[Score, ...]]
    applies: Callable[[str], bool] = of_features
    seed: int | None = None
    reference: str = "test"


def feature_pair(real: ArrayLike, fake: ArrayLike, least: int = 2) -> tuple[Features, Features]:
    """Both feature sets as (N, D) in float32 or float64, without a copy where they are that already.

    Raises:
        ValueError: One sentence if they are no matrices of the same D >= 1, have fewer than ``least``
            rows or hold values that are not finite.
    """
    pair = (feature_set(real, "real", least), feature_set(fake, "fake", least))
    if pair[0].shape[1] != pair[1].shape[1]:
        raise ValueError(f"real features have {pair[0].shape[1]} dimensions, fake ones {pair[1].shape[1]}")
    return pair


def feature_set(features: ArrayLike, side: str, least: int = 1) -> Features:
    """One feature set as (N, D) in float32 or float64; ``ValueError`` names the ``side`` if it is none."""
    array = np.asarray(features)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{side} features must be (N, D), not {array.shape}")
    if len(array) < least:
        raise ValueError(f"{len(array)} {side} samples are too few; at least {least} are needed")
    if not all(np.isfinite(array[rows]).all() for rows in row_blocks(len(array))):
        raise ValueError(f"{side} features hold values that are not finite")
    return array


def row_blocks(n: int, block: int = BLOCK) -> Iterator[slice]:
    """Slices that cut ``range(n)`` into blocks: what is converted to float64 at one time."""
    return (slice(start, min(start + block, n)) for start in range(0, n, block))


def mean_of(features: Features) -> Matrix:
    """Mean (D,) of features (N, D), in float64 whatever their type."""
    return features.mean(0, dtype=np.float64)
