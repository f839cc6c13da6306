"""What a metric is: a named family of numbers computed from the same pair of feature sets.

A metric is one file beside this one with its pure functions and a constant ``METRIC``.
Nothing here imports torch; arrays are NumPy, or torch tensors on the CPU that
``numpy.asarray`` accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Exam:
    """What a metric may look at.

    ``real`` and ``fake`` are features float32 or float64 (N, D). ``fake_predictions``
    int64 (N,) are the classes that the dataset's classifier sees in the generated images,
    ``fake_labels`` int64 (N,) the classes that were asked for; None if there were none.
    """

    real: NDArray[np.floating]
    fake: NDArray[np.floating]
    fake_predictions: NDArray[np.int64] | None = None
    fake_labels: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Score:
    """One number with a 95 % interval (None where no tested method gives one)."""

    value: float
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True)
class MetricInfo:
    """A family of numbers that one function computes together.

    ``names`` are the record keys; ``{features}`` in one is replaced by the name of the
    feature space. ``compute`` returns one Score per name, or raises ``ValueError`` with
    the reason why the numbers cannot be had.
    """

    names: tuple[str, ...]
    higher_is_better: bool
    min_samples: int
    paper: str
    summary: str
    compute: Callable[[Exam], tuple[Score, ...]]


def feature_pair(real: ArrayLike, fake: ArrayLike, least: int = 2) -> tuple[Matrix, Matrix]:
    """Both feature sets as float64 (N, D).

    Raises:
        ValueError: One sentence if they are no matrices of the same D >= 1, have fewer than ``least``
            rows or hold values that are not finite.
    """
    pair = (np.asarray(real, np.float64), np.asarray(fake, np.float64))
    for side, array in zip(("real", "fake"), pair, strict=True):
        if array.ndim != 2 or array.shape[1] == 0:
            raise ValueError(f"{side} features must be (N, D), not {array.shape}")
        if len(array) < least:
            raise ValueError(f"{len(array)} {side} samples are too few; at least {least} are needed")
        if not np.isfinite(array).all():
            raise ValueError(f"{side} features hold values that are not finite")
    if pair[0].shape[1] != pair[1].shape[1]:
        raise ValueError(f"real features have {pair[0].shape[1]} dimensions, fake ones {pair[1].shape[1]}")
    return pair
