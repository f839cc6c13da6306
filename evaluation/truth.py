"""What a known density says of a model: how likely its samples are, how many modes they reach, its bounds' gaps.

The mean of log p(x) - log q(x) over x ~ p estimates KL(p || q) >= 0, and a lower bound of log q adds its own
looseness. A bound on test images can therefore lie above the true log-likelihood by chance only, and one
that does so beyond its error belongs to no normalised q. The converse does not hold: a bound that passes may
still claim more than its model's log q, by less than that model's distance from the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from datamodules.base import Density
from evaluation.likelihood.bits import ScoredBound
from evaluation.record import BoundGap, Truth

CAUGHT_AT = 3.0  # standard errors
# P(prod q(x)/p(x) >= 1000) <= 1/1000 for x ~ p and any normalised q (Markov), however skewed its log-ratios are:
# that many nats in favour of q over all the images together are no evidence.
CHANCE_NATS = math.log(1_000)
FLOOR_DRAWS = 10  # sets of true draws
FLOOR_SEED = 20_240_603


def measure_truth(density: Density, samples: NDArray[np.uint8], bounds: Sequence[ScoredBound]) -> Truth:
    """Compare samples and likelihoods with the density that the data was drawn from.

    Args:
        density: The source.
        samples: Generated images, uint8 (n, C, H, W), n >= 2. Each counts for its most probable mode, however
            improbable it is: ``modes_reached`` is to be read beside ``cross_entropy``.
        bounds: Likelihoods of images drawn from ``density``, in nats; one that could not be computed has no gap.

    Returns:
        Fidelity (``cross_entropy`` above ``entropy``; below it the samples keep to the densest places), diversity
        (``modes_reached``, ``mode_distance``) and a gap per bound, in bits per dimension.
    """
    if len(samples) < 2:
        raise ValueError(f"the truth about samples needs at least 2 of them, not {len(samples)}")
    nats_per_bit = samples[0].size * math.log(2)
    entropy, entropy_error = density.entropy()
    bits = -density.log_prob(samples) / nats_per_bit
    reached, distance = mode_coverage(density, samples)
    reached_floor, distance_floor = coverage_floor(density, len(samples))
    return Truth(
        entropy=entropy / nats_per_bit,
        entropy_error=entropy_error / nats_per_bit,
        cross_entropy=float(bits.mean()),
        cross_entropy_error=_standard_error(bits),
        modes=density.num_modes,
        modes_reached=reached,
        modes_reached_floor=reached_floor,
        mode_distance=distance,
        mode_distance_floor=distance_floor,
        gaps=tuple(bound_gap(density, bound) for bound in bounds if bound.likelihood.bits_per_dim is not None),
    )


def bound_gap(density: Density, bound: ScoredBound) -> BoundGap:
    """Bound minus truth on the bound's own images, bits per dimension, with the paired standard error.

    The error is never taken below a third of ``CHANCE_NATS`` over all images: log-ratios that hardly scatter on n
    images may hide an event of probability 1/n that balances them.
    """
    n, nats_per_bit = len(bound.images), bound.images[0].size * math.log(2)
    gaps = (density.log_prob(bound.images) - bound.log_likelihood) / nats_per_bit
    least = CHANCE_NATS / (CAUGHT_AT * n * nats_per_bit)
    return BoundGap(str(bound.likelihood.kind), float(gaps.mean()), max(_standard_error(gaps), least), n)


def caught(gap: BoundGap) -> str | None:
    """One sentence if a bound beats the truth by more than three standard errors, else None.

    A deterministic bound of a normalised model is caught less than once in a thousand times, by Markov's inequality
    (see ``CHANCE_NATS``), whatever the distribution; the noise of an estimated one counts through the error.
    """
    if gap.gap >= -CAUGHT_AT * gap.standard_error:
        return None
    return (
        f"the bound {gap.kind!r} claims {-gap.gap:.4f} ± {gap.standard_error:.4f} bits/dim less than the true density "
        f"needs for the same {gap.n_images:,} images: it is no valid bound"
    )


def mode_coverage(density: Density, images: NDArray[np.uint8]) -> tuple[int, float]:
    """Number of modes with an image, and the total variation in [0, 1] of the images' modes from the weights."""
    counts = np.bincount(density.mode(images), minlength=density.num_modes)
    distance = np.abs(counts / len(images) - density.weights).sum() / 2
    return int((counts > 0).sum()), float(distance)


@lru_cache(maxsize=16)
def coverage_floor(density: Density, n: int) -> tuple[float, float]:
    """Means of both numbers of ``mode_coverage`` over sets of n true draws of a fixed seed."""
    sets = [mode_coverage(density, density.sample(n, FLOOR_SEED + i)) for i in range(FLOOR_DRAWS)]
    reached, distance = np.mean(sets, axis=0)
    return float(reached), float(distance)


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))
