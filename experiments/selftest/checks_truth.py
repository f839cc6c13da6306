"""A bound that beats the truth is caught, an honest one is not; what is measured of samples is right."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.selftest.base import Check, Finding, all_of, close, largest_deviation, same, within

if TYPE_CHECKING:
    from datamodules.base import ImageDataset
    from datamodules.known_density import TemplateMixture
    from evaluation.likelihood.bits import ScoredBound
    from evaluation.record import BoundGap

GROUP = "truth"
N = 500


@lru_cache(maxsize=1)
def source() -> tuple[ImageDataset, TemplateMixture]:
    """The dataset and the mixture it was drawn from."""
    from datamodules import known_density

    data = known_density.load(known_density.Config())
    if not isinstance(data.density, known_density.TemplateMixture):
        raise ValueError("known_density is no mixture")
    return data, data.density


def scored(log_likelihood: NDArray[np.float64]) -> ScoredBound:
    """A bound in nats (N,) on the first test images."""
    import torch

    from evaluation.likelihood.bits import ScoredBound, summarise
    from models.base import LikelihoodBound

    images = source()[0].test.images[:N]
    bound = LikelihoodBound(torch.from_numpy(log_likelihood), "elbo")
    return ScoredBound(summarise([bound], images[0].size), images, log_likelihood)


def gap_of(log_likelihood: NDArray[np.float64]) -> tuple[BoundGap, str]:
    """Bound minus truth, and "caught" or "not caught"."""
    from evaluation.truth import bound_gap, caught

    gap = bound_gap(source()[1], scored(log_likelihood))
    return gap, "caught" if caught(gap) else "not caught"


def factorised() -> NDArray[np.float64]:
    """Log-likelihood of the first test images under independent pixels, fitted to the training images."""
    data, _ = source()
    train = data.train.images.reshape(len(data.train), -1)
    counts = np.stack([np.bincount(pixel, minlength=256) for pixel in train.T]) + 0.5
    log_pmf = np.log(counts / counts.sum(1, keepdims=True))
    test = data.test.images[:N].reshape(N, -1)
    return log_pmf[np.arange(log_pmf.shape[0]), test].sum(1)


def nearest_template() -> NDArray[np.float64]:
    """log p(x | k) of the first test images at their most probable component k, (N,)."""
    data, density = source()
    images = data.test.images[:N]
    rows = density.templates[density.mode(images)]
    return density.log_pmf[rows, images.reshape(N, -1)].sum(1)


def exact_is_honest() -> Finding:
    """The density itself has a gap of 0."""
    data, density = source()
    gap, verdict = gap_of(density.log_prob(data.test.images[:N]))
    return all_of(close(0, gap.gap, absolute=1e-12), same("not caught", verdict))


def factorised_is_honest() -> Finding:
    """A normalised model that knows the pixels only one by one costs more bits."""
    gap, verdict = gap_of(factorised())
    note = f"gap {gap.gap:.3f} ± {gap.standard_error:.3f} bits/dim"
    return all_of(within(0.1, gap.gap, 3, note), same("not caught", verdict, note))


def gap_by_hand() -> Finding:
    """The mean of log p - bound in bits per dimension, with its paired standard error."""
    data, density = source()
    bound = factorised()
    bits = (density.log_prob(data.test.images[:N]) - bound) / (64 * np.log(2))
    gap, _ = gap_of(bound)
    return all_of(
        close(bits.std(ddof=1) / np.sqrt(N), gap.standard_error, relative=1e-9),
        close(bits.mean(), gap.gap, relative=1e-9),
    )


def unnormalised_is_caught() -> Finding:
    """A decoder whose levels add up to 1.02: the true density times 1.02 for every pixel."""
    data, density = source()
    gap, verdict = gap_of(density.log_prob(data.test.images[:N]) + 64 * np.log(1.02))
    return all_of(close(-np.log2(1.02), gap.gap, relative=1e-6), same("caught", verdict))


def forgotten_code_is_caught() -> Finding:
    """A two-part code that does not pay for its code: log p(x | k) at the best k, without log p(k)."""
    gap, verdict = gap_of(nearest_template())
    return same("caught", verdict, f"gap {gap.gap:.4f} ± {gap.standard_error:.4f} bits/dim")


def paid_code_is_honest() -> Finding:
    """The same code with its price: a bound, log p(k) + log p(x | k) <= log p(x)."""
    density = source()[1]
    gap, verdict = gap_of(nearest_template() - np.log(density.num_modes))
    return all_of(within(-1e-9, gap.gap, 0.05), same("not caught", verdict))


def truth_of_draws() -> Finding:
    """True draws as samples: the cross-entropy is the entropy, the modes are reached as by true draws."""
    from evaluation.truth import measure_truth

    density = source()[1]
    truth = measure_truth(density, density.sample(1000, seed=3), [])
    allowed = 4 * float(np.hypot(truth.entropy_error, truth.cross_entropy_error))
    return all_of(
        close(truth.modes_reached_floor, truth.modes_reached, absolute=45),
        close(truth.mode_distance_floor, truth.mode_distance, absolute=0.03),
        close(truth.entropy, truth.cross_entropy, absolute=allowed),
    )


def units_of_truth() -> Finding:
    """Entropy, cross-entropy and their errors are in bits per dimension."""
    from evaluation.truth import measure_truth

    density = source()[1]
    samples = density.sample(400, seed=4)
    truth, unit = measure_truth(density, samples, []), 64 * np.log(2)
    bits = density.log_prob(samples) / unit
    expected = [*(value / unit for value in density.entropy()), -bits.mean(), bits.std(ddof=1) / np.sqrt(400)]
    found = [truth.entropy, truth.entropy_error, truth.cross_entropy, truth.cross_entropy_error]
    return largest_deviation(expected, found, relative=1e-9)


def evidence_needs_a_thousand() -> Finding:
    """Likelihood ratios that do not scatter are caught once all of them together favour the bound 1,000 times."""
    data, density = source()
    log_p = density.log_prob(data.test.images[:N])
    verdicts = [gap_of(log_p + np.log(ratio) / N)[1] for ratio in (990.0, 1010.0)]
    return same("not caught, caught", ", ".join(verdicts))


def truth_of_collapse() -> Finding:
    """One template a thousand times: one mode, at total variation 1 - 1 / K; what K draws reach is K (1 - 1/e)."""
    from datamodules import known_density
    from evaluation.truth import measure_truth

    density = source()[1]
    k = density.num_modes
    clean = known_density.LEVELS[density.templates[:1]].astype(np.uint8).reshape(-1, *density.image_shape)
    truth = measure_truth(density, np.repeat(clean, k, axis=0), [])
    return all_of(
        close(k * (1 - (1 - 1 / k) ** k), truth.modes_reached_floor, absolute=20),
        largest_deviation(
            [1, 1 - 1 / k, 1 / k, np.log(k)],
            [truth.modes_reached, truth.mode_distance, truth.modes_hit or 0, truth.mode_kl or 0], absolute=1e-9,
        ),
    )


def mode_kl_by_hand() -> Finding:
    """Unequal weights, from the histogram to the weights: 1/4 ln(1/2) + 3/4 ln 3; no image is no term."""
    from evaluation.modes import mode_kl

    found = [mode_kl([2, 6, 0], [0.5, 0.25, 0.25]), mode_kl([2, 1, 1], [0.5, 0.25, 0.25]), mode_kl([0, 9], [0.9, 0.1])]
    expected = [0.25 * np.log(0.5) + 0.75 * np.log(3), 0.0, np.log(10)]
    return largest_deviation(expected, found, absolute=1e-12)


def expected_modes_by_enumeration() -> Finding:
    """Distinct components of four draws from weights 1/2, 3/10 and 1/5, over all 81 ways to draw them."""
    from itertools import product

    from evaluation.modes import expected_modes

    weights = [0.5, 0.3, 0.2]
    ways = [(len(set(draws)), float(np.prod([weights[k] for k in draws]))) for draws in product(range(3), repeat=4)]
    return close(sum(number * chance for number, chance in ways), expected_modes(weights, 4), relative=1e-12)


def coverage_of_draws() -> Finding:
    """KL and modes of 2,000 true draws within 4 errors of what binomial counts have; a thousandth is off mode."""
    from scipy.stats import binom

    from evaluation.truth import measure_truth

    density, n, x = source()[1], 2_000, np.arange(1, 2_001)
    k = density.num_modes
    chances, terms = binom.pmf(x, n, 1 / k), x / n * np.log(x * k / n)
    truth = measure_truth(density, density.sample(n, seed=6), [])
    kl, kl_error = k * (chances @ terms), np.sqrt(k * (chances @ terms**2 - (chances @ terms) ** 2))
    hit = 1 - (1 - 1 / k) ** n
    return all_of(
        close(kl, float(truth.mode_kl or 0), absolute=4 * kl_error),
        close(kl, float(truth.mode_kl_floor or 0), absolute=4 * kl_error / np.sqrt(10)),
        close(hit, float(truth.modes_hit_expected or 0), relative=1e-12),
        close(hit, float(truth.modes_hit or 0), absolute=4 * np.sqrt(hit * (1 - hit) / k)),
        within(0, float(truth.off_mode or 0), 0.005),
    )


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("exact density is not caught", exact_is_honest),
        ("independent pixels are not caught", factorised_is_honest),
        ("paid code is not caught", paid_code_is_honest),
        ("unnormalised decoder is caught", unnormalised_is_caught),
        ("unpaid code is caught", forgotten_code_is_caught),
        ("gap and its paired error", gap_by_hand),
        ("truth about true draws", truth_of_draws),
        ("truth is in bits per dimension", units_of_truth),
        ("a ratio of 1,000 is evidence", evidence_needs_a_thousand),
        ("truth about a collapsed model", truth_of_collapse),
        ("mode KL by hand", mode_kl_by_hand),
        ("modes to expect by enumeration", expected_modes_by_enumeration),
        ("coverage of true draws vs binomial", coverage_of_draws),
    )
)
