"""What a metric of a first stage is: a named family of numbers of images, their reconstructions and the codes between.

A metric is one file beside this one with its pure functions and a constant ``METRIC`` (several: ``METRICS``), as
in ``evaluation.metrics``; those compare two independent sets, these look at pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import Score

Images = NDArray[np.uint8]

OVER_IMAGES = "Student's t over images"
DATA_RANGE = 255.0  # of uint8 images: the largest difference there can be


@dataclass(frozen=True)
class Pairs:
    """Images ``real`` and what came back of them, ``fake``, both uint8 (N, C, H, W), row by row.

    ``indices`` int64 (N, T) are the codes on the way, from 0 to ``codebook_size`` - 1; None where they are continuous.
    """

    real: Images
    fake: Images
    indices: NDArray[np.int64] | None = None
    codebook_size: int = 0


@dataclass(frozen=True)
class PairMetric:
    """A family of numbers that one function computes together.

    As ``evaluation.metrics.MetricInfo``, of ``Pairs``. ``conditions`` tells in words what else the numbers depend
    on, which becomes part of their fingerprint.
    """

    names: tuple[str, ...]
    higher_is_better: bool | None
    min_samples: int
    paper: str
    summary: str
    compute: Callable[[Pairs], tuple[Score, ...]]
    conditions: Callable[[Pairs], str]


def checked(real: Images, fake: Images) -> tuple[Images, Images]:
    """Both sides; ``ValueError`` unless they are uint8 (N, C, H, W), N >= 1, of one shape."""
    if real.dtype != np.uint8 or fake.dtype != np.uint8 or real.ndim != 4 or real.shape != fake.shape or not len(real):
        found = f"{real.dtype} {real.shape} and {fake.dtype} {fake.shape}"
        raise ValueError(f"images and reconstructions must be uint8 (N, C, H, W) of one shape, not {found}")
    return real, fake


def squared_errors(real: Images, fake: Images) -> NDArray[np.float64]:
    """Mean squared difference of every pair, in squared grey levels, float64 (N,)."""
    one, other = checked(real, fake)
    return np.array([np.mean((a.astype(np.float64) - b) ** 2) for a, b in zip(one, other, strict=True)])


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of Student's 95 % interval for the mean that independent values (N,), N >= 2, are drawn from."""
    from scipy.special import stdtrit  # here: listing metrics needs no scipy, which takes most of a second to import

    n = len(values)
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / n**0.5)
    return float(values.mean()) - half, float(values.mean()) + half
