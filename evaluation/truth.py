"""What a known density says of a model: how likely its samples are, how many modes they reach, its bounds' gaps.

The mean of log p(x) - log q(x) over x ~ p estimates KL(p || q) >= 0, and a lower bound of log q adds its own
looseness. A bound on test images can therefore lie above the true log-likelihood by chance only, and one
that does so beyond its error belongs to no normalised q. The converse does not hold: a bound that passes may
still claim more than its model's log q, by less than that model's distance from the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.base import Density
from evaluation.likelihood.bits import ScoredBound
from evaluation.modes import OFF_MODE_SHARE, coverage_floor, expected_modes, mode_coverage, off_mode
from evaluation.record import BoundGap, Truth

CAUGHT_AT = 3.0  # standard errors
# P(prod q(x)/p(x) >= 1000) <= 1/1000 for x ~ p and any normalised q (Markov), however skewed its log-ratios are:
# that many nats in favour of q over all the images together are no evidence.
CHANCE_NATS = math.log(1_000)


def measure_truth(density: Density, samples: NDArray[np.uint8], bounds: Sequence[ScoredBound]) -> Truth:
    """Compare samples and likelihoods with the density that the data was drawn from.

    Args:
        density: The source.
        samples: Generated images, uint8 (n, C, H, W), n >= 2. Each counts for its most probable mode, however
            improbable it is: ``modes_reached`` is to be read beside ``off_mode`` and ``cross_entropy``.
        bounds: Likelihoods of images drawn from ``density``, in nats; one that could not be computed has no gap.

    Returns:
        Fidelity (``cross_entropy`` above ``entropy``; below it the samples keep to the densest places), diversity
        (``modes_reached``, ``mode_distance``, ``mode_kl``) and a gap per bound, in bits per dimension.
    """
    if len(samples) < 2:
        raise ValueError(f"the truth about samples needs at least 2 of them, not {len(samples)}")
    nats_per_bit = samples[0].size * math.log(2)
    entropy, entropy_error = density.entropy()
    log_prob = density.log_prob(samples)
    bits = -log_prob / nats_per_bit
    found, floor = mode_coverage(density, samples), coverage_floor(density, len(samples))
    return Truth(
        entropy=entropy / nats_per_bit,
        entropy_error=entropy_error / nats_per_bit,
        cross_entropy=float(bits.mean()),
        cross_entropy_error=_standard_error(bits),
        modes=density.num_modes,
        modes_reached=int(found.reached),
        modes_reached_floor=floor.reached,
        mode_distance=found.distance,
        mode_distance_floor=floor.distance,
        gaps=tuple(bound_gap(density, bound) for bound in bounds if bound.likelihood.bits_per_dim is not None),
        n_samples=len(samples),
        modes_hit=found.reached / density.num_modes,
        modes_hit_expected=expected_modes(density.weights, len(samples)) / density.num_modes,
        mode_kl=found.kl,
        mode_kl_floor=floor.kl,
        off_mode=off_mode(density, log_prob),
        off_mode_floor=OFF_MODE_SHARE,
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


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))
