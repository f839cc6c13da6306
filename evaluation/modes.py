"""Mode coverage: which components of a known mixture generated images reach, and how often.

Every image counts for its most probable component. Summing posteriors instead would let an image between two
components half reach both; where components hardly overlap the two are the same (``known_density``: 0 of 5,000
draws are assigned to another component than the one they were drawn from), and only counts have a floor that is
exactly that of balls thrown into bins. An image near no component still counts for one: ``off_mode`` tells of those.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.base import Density

FLOOR_DRAWS = 10  # sets of true draws
FLOOR_SEED = 20_240_603
OFF_MODE_SHARE = 0.001  # of true draws
OFF_MODE_DRAWS = 20_000
OFF_MODE_SEED = 20_240_604


class ModeCoverage(NamedTuple):
    """Modes with an image, total variation in [0, 1] and KL in nats of the images' modes from the weights."""

    reached: float
    distance: float
    kl: float


def mode_coverage(density: Density, images: NDArray[np.uint8]) -> ModeCoverage:
    """How the modes of images uint8 (n, C, H, W), n >= 1, are spread, against the weights of the components."""
    counts = np.bincount(density.mode(images), minlength=density.num_modes)
    distance = np.abs(counts / len(images) - density.weights).sum() / 2
    return ModeCoverage(int((counts > 0).sum()), float(distance), mode_kl(counts, density.weights))


def mode_kl(counts: ArrayLike, weights: ArrayLike) -> float:
    """KL(q || w) = sum_k q_k ln(q_k / w_k) >= 0 in nats, q the histogram of images, w the true weights.

    Plug-in and not smoothed: a component without an image adds 0 ln 0 = 0, and none is infinite. At n images of K
    components true draws have about (K - 1) / (2 n) for n >> K, and less for n near K: only the distance from that
    floor says something. n images of one component have -ln w of it.

    Args:
        counts: Images of each component, int (K,), at least one in all.
        weights: Positive, (K,), adding up to 1.
    """
    n, w = np.asarray(counts, np.float64), np.asarray(weights, np.float64)
    if n.shape != w.shape or n.ndim != 1 or n.min() < 0 or n.sum() == 0 or w.min() <= 0:
        raise ValueError(f"counts {n.shape} must be of at least one image, and weights {w.shape} as many and positive")
    hit = n > 0
    q = n[hit] / n.sum()
    return max(float((q * np.log(q / w[hit])).sum()), 0.0)  # rounding must not make it negative


def expected_modes(weights: ArrayLike, n: int) -> float:
    """How many components n >= 0 independent draws of the mixture come from, on average: sum_k 1 - (1 - w_k)^n."""
    w = np.asarray(weights, np.float64)
    return float((1 - (1 - w) ** n).sum())


@lru_cache(maxsize=16)
def coverage_floor(density: Density, n: int) -> ModeCoverage:
    """Means of all numbers of ``mode_coverage`` over sets of n true draws of a fixed seed."""
    sets = [mode_coverage(density, density.sample(n, FLOOR_SEED + i)) for i in range(FLOOR_DRAWS)]
    return ModeCoverage(*np.mean(sets, axis=0).tolist())


@lru_cache(maxsize=4)
def off_mode_threshold(density: Density) -> float:
    """log p(x) in nats below which ``OFF_MODE_SHARE`` of true draws lie, from ``OFF_MODE_DRAWS`` of a fixed seed.

    As few of those lie below it (20), the share of others that do is right to a quarter of itself.
    """
    return float(np.quantile(density.log_prob(density.sample(OFF_MODE_DRAWS, OFF_MODE_SEED)), OFF_MODE_SHARE))


def off_mode(density: Density, log_prob: NDArray[np.float64]) -> float:
    """Share in [0, 1] of images that lie near no component, by their log p(x) in nats (n,): see the threshold."""
    return float((log_prob < off_mode_threshold(density)).mean())
