"""Intervals hold the true value as often as they say, in simulated cases.

The true value is the expectation at the n of the case, the bias of the Fréchet distance included; the
mean over all cases, whose own error is a seventeenth of an interval's, stands for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.selftest.base import Check, Finding, all_of, close, largest_deviation, within
from experiments.selftest.checks_distances import Array, features

GROUP = "intervals"
CASES = 300
LOW, HIGH = 0.90, 0.99


def coverage(intervals: Sequence[tuple[float, float]], truth: float) -> Finding:
    """Share of intervals that hold the truth."""
    hits = np.mean([low <= truth <= high for low, high in intervals])
    return within(LOW, hits, HIGH, note=f"of {len(intervals)} cases")


def simulate(name: str, distance: float) -> Finding:
    """Coverage for two laws that differ more or less; 0 makes them equal."""
    from evaluation.metrics import Exam
    from evaluation.metrics.driver import all_metrics

    metric = next(m for m in all_metrics() if name in m.names)
    rng = np.random.default_rng(0)
    intervals, values = [], []
    for _ in range(CASES):
        real, fake = rng.normal(size=(120, 3)), rng.normal(size=(120, 3))
        fake = fake * (1 + distance * np.array([0, 0.6, -0.4])) + distance * np.array([1, 0, 0])
        score = metric.compute(Exam("normal", real, fake))[0]
        if score.ci_low is None or score.ci_high is None:
            raise ValueError(f"{name} has no interval")
        intervals.append((score.ci_low, score.ci_high))
        values.append(score.value)
    return coverage(intervals, float(np.mean(values)))


def frechet_interval() -> Finding:
    """The interval of the Fréchet distance between two different laws."""
    return simulate("fd_{features}", 0.5)


def frechet_null() -> Finding:
    """The interval of the Fréchet distance between two sets of one law."""
    return simulate("fd_{features}", 0.0)


def kernel_interval() -> Finding:
    """The interval of the kernel distance between two different laws."""
    return simulate("kd_{features}", 0.5)


def kernel_null() -> Finding:
    """The interval of the kernel distance between two sets of one law."""
    return simulate("kd_{features}", 0.0)


def bits_interval() -> Finding:
    """The interval of the mean of bits per dimension over 32 images of skewed likelihoods."""
    import torch

    from evaluation.likelihood.bits import summarise
    from models.base import LikelihoodBound

    rng = np.random.default_rng(1)
    dimensions, nats = 64, rng.gamma(20.0, 5.0, size=(1000, 32))
    intervals = []
    for case in nats:
        found = summarise([LikelihoodBound(torch.from_numpy(-case), "elbo")], dimensions)
        intervals.append((float(found.ci_low or 0), float(found.ci_high or 0)))
    return coverage(intervals, 100.0 / (dimensions * np.log(2)))


def first_order() -> Finding:
    """Replicates of two sides by Welch's interval for a difference of means, times g - 1."""
    from scipy.stats import ttest_ind

    from evaluation.metrics.intervals import Replicates, interval_score

    rng = np.random.default_rng(2)
    real, fake = rng.normal(size=20) + 1, 0.4 * rng.normal(size=20) + 1
    welch = ttest_ind(real, fake, equal_var=False).confidence_interval(0.95)
    half = 19 * (welch.high - welch.low) / 2
    free, cut = (interval_score(3.0, Replicates(real, fake, None), least=least) for least in (-np.inf, 2.9))
    return all_of(
        largest_deviation([3 - half, 3 + half], [free.ci_low or 0, free.ci_high or 0], relative=1e-9),
        largest_deviation([2.9, 3 + half], [cut.ci_low or 0, cut.ci_high or 0], relative=1e-9),
    )


def second_order() -> Finding:
    """Ends u of the score interval fulfil (T - u)² = t² max(J (u + b) / (T + b) - Q, Q)."""
    from scipy.stats import t as student

    from evaluation.metrics.intervals import Replicates, score_interval

    side = np.random.default_rng(3).normal(size=20)
    side /= side.std(ddof=1) * 19 / np.sqrt(20)  # so that each side's variance is 1, and J = 2
    quantile = student.ppf(0.975, 38)
    gaps = []
    cases = ((4.0, 0.0, 0.1), (4.0, 1.5, 0.3), (9.0, 0.5, 1.3), (0.2, 0.1, 0.5), (30.0, 2.0, 0.0))
    for estimate, offset, pairs in cases:
        ends = score_interval(estimate, offset, Replicates(side, side, pairs))
        for u in ends:
            variance = max(2 * (u + offset) / (estimate + offset) - pairs, pairs)
            gaps.append((estimate - u) ** 2 / (quantile**2 * variance))
        gaps.append(1.0 if ends[0] < estimate < ends[1] else 0.0)
    low, high = score_interval(-1.0, 0.4, Replicates(side, side, 0.25))  # no square: the second order alone
    return all_of(
        largest_deviation(np.ones(len(gaps)), gaps, relative=1e-8),
        largest_deviation([-1 - quantile / 2, -1 + quantile / 2], [low, high], relative=1e-9),
    )


def quadratic_form() -> Finding:
    """T = |z|², z ~ N(0, s² I_k): the second order is 2 k s⁴ in the mean, from one side, the other and both."""
    from evaluation.metrics.intervals import Masks, replicate

    rng, k = np.random.default_rng(4), 5
    found = []
    for scales in ((1.0, 0.0), (0.0, 2.0), (1.0, 1.0)):
        spread = 2 * k * (sum(scale**2 for scale in scales) / 20) ** 2
        draws = []
        for _ in range(300):
            groups = [scale * rng.normal(size=(20, k)) for scale in scales]

            def statistic(kept: Masks, kept_fake: Masks, groups: list[Array] = groups) -> Array:
                one, other = (m @ g / m.sum(1, keepdims=True) for m, g in zip((kept, kept_fake), groups, strict=True))
                return ((one - other) ** 2).sum(1)

            draws.append(replicate(statistic).second_order or 0.0)
        found.append(float(np.mean(draws)) / spread)
    # groups are few: exact to the relative order 2 / 20
    return largest_deviation(np.ones(3), found, absolute=0.1, note=", ".join(f"{share:.3f}" for share in found))


def frechet_replicates() -> Finding:
    """Distances without a group, from statistics of groups, against those of the rows that are left."""
    from evaluation.metrics.frechet import _replicates, frechet_distance
    from evaluation.metrics.intervals import random_groups

    found = []
    for n, m, d in ((300, 240, 6), (60, 50, 70)):  # more samples than dimensions and fewer
        x, y = features(n, d, 20) + 3, features(m, d, 21) - 1
        parts = _replicates(x, y)
        real = [frechet_distance(np.delete(x, rows, 0), y) for rows in random_groups(n)]
        fake = [frechet_distance(x, np.delete(y, rows, 0)) for rows in random_groups(m)]
        found += [largest_deviation(real, parts.real, relative=1e-6)]
        found += [largest_deviation(fake, parts.fake, relative=1e-6)]
    return all_of(*found)


def kernel_replicates() -> Finding:
    """Distances without groups against those of the rows that are left; with the bias, the sum over all pairs."""
    from evaluation.metrics import kernel_distance
    from evaluation.metrics.intervals import random_groups, without_one
    from evaluation.metrics.kernel import bias_taken_off, kernel_sums, unbiased_mmd

    x, y = features(85, 4, 22), features(64, 4, 23) + 0.3
    groups = [random_groups(len(z)) for z in (x, y)]
    sums = kernel_sums([x[rows] for rows in groups[0]], [y[rows] for rows in groups[1]])
    one = without_one()
    together = kernel_distance(np.delete(x, groups[0][3], 0), np.delete(y, groups[1][3], 0))
    k = [(a @ b.T / 4 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    square = k[0].mean() + k[1].mean() - 2 * k[2].mean()
    left = [kernel_distance(np.delete(x, rows, 0), y) for rows in groups[0]]
    return all_of(
        largest_deviation(left, unbiased_mmd(sums, one, np.ones((1, 20), bool)), relative=1e-8),
        close(together, unbiased_mmd(sums, one[3:4], one[3:4])[0], relative=1e-8),
        close(square - kernel_distance(x, y), bias_taken_off(sums), relative=1e-8),
    )


def infinity_error() -> Finding:
    """At n = N / r a distance varies by r (J - 2 Q) + r² Q: J by hand from the rows that are left, Q from pairs."""
    from evaluation.metrics.frechet import frechet_distance, group_distances
    from evaluation.metrics.frechet_infinity import _error
    from evaluation.metrics.intervals import random_groups, replicate
    from evaluation.metrics.statistics import GroupStatistics

    x, y = features(200, 4, 24), features(240, 4, 25)
    groups = [random_groups(len(z)) for z in (x, y)]
    sides = GroupStatistics(x, groups[0]), GroupStatistics(y, groups[1])
    pairs = replicate(lambda one, other: group_distances(*sides, one, other)).second_order or 0.0
    real = [frechet_distance(np.delete(x, rows, 0), y) for rows in groups[0]]
    fake = [frechet_distance(x, np.delete(y, rows, 0)) for rows in groups[1]]
    whole = 19 * float(np.var(real) + np.var(fake))
    cases = [([1.0], [1.0], whole - pairs), ([1.0], [2.0], 2 * whole), ([0.5, 0.5], [1.0, 1.0], whole - pairs)]
    found = [_error(*sides, np.array(weights), np.array(ratios)) ** 2 for weights, ratios, _ in cases]
    return largest_deviation([case[2] for case in cases], found, relative=1e-6)


def infinity_interval() -> Finding:
    """The interval of the extrapolated distance, which is for the distance between the laws."""
    from evaluation.metrics.base import Exam
    from evaluation.metrics.frechet_infinity import frechet_infinity_score

    rng, intervals = np.random.default_rng(5), []
    scale, shift = np.array([1.0, 1.3, 0.8]), np.array([0.5, 0, 0])
    for _ in range(CASES // 2):
        real, fake = rng.normal(size=(2, 200, 3))
        score = frechet_infinity_score(Exam("normal", real, fake * scale + shift))[0]
        intervals.append((score.ci_low or 0.0, score.ci_high or 0.0))
    return coverage(intervals, float(((scale - 1) ** 2).sum() + (shift**2).sum()))


def shares() -> Finding:
    """Wilson's interval of a share by SciPy: of classes that agree and of authentic samples."""
    from scipy.stats import binomtest

    from evaluation.memorization import authpct_score
    from evaluation.metrics.base import Exam
    from evaluation.metrics.class_agreement import class_agreement_score, wilson_interval

    cases = [(0, 12), (5, 12), (12, 12), (371, 1000)]
    exact = [tuple(binomtest(k, n).proportion_ci(0.95, method="wilson")) for k, n in cases]
    rng = np.random.default_rng(6)
    logits, labels = rng.normal(size=(40, 5)), rng.integers(0, 5, 40)
    classes = class_agreement_score(Exam("digits", logits, logits, fake_labels=labels, fake_logits=logits))[0]
    hits = int((np.argsort(logits)[:, -1] == labels).sum())
    copies = rng.normal(size=(100, 2))
    fake = np.concatenate([copies[:30], copies[:10] + 50])
    authentic = authpct_score(Exam("digits", copies, fake, train=copies, held_out=copies))[0]
    ends = [classes.ci_low or 0, classes.ci_high or 0, (authentic.ci_low or 0) / 100, (authentic.ci_high or 0) / 100]
    expected = [tuple(binomtest(k, 40).proportion_ci(0.95, method="wilson")) for k in (hits, 10)]
    return all_of(
        largest_deviation(exact, [wilson_interval(k / n, n) for k, n in cases], absolute=1e-9),
        close(hits / 40, classes.value, absolute=0),
        largest_deviation(np.ravel(expected), ends, absolute=1e-9),
    )


def memorization_interval() -> Finding:
    """The interval of the memorisation gap holds 0 where nothing was copied."""
    from evaluation.memorization import memorization_score
    from evaluation.metrics.base import Exam

    rng, intervals = np.random.default_rng(7), []
    for _ in range(CASES):
        train, held_out, fake = (rng.normal(size=(n, 2)) for n in (600, 100, 100))
        score = memorization_score(Exam("normal", held_out, fake, train=train, held_out=held_out))[0]
        intervals.append((score.ci_low or 0.0, score.ci_high or 0.0))
    return coverage(intervals, 0.0)


CHECKS = (
    Check("jackknife interval by Welch", GROUP, first_order),
    Check("score interval solves its equation", GROUP, second_order),
    Check("second order of a quadratic form", GROUP, quadratic_form),
    Check("FD replicates of the rows left", GROUP, frechet_replicates),
    Check("KD replicates of the rows left", GROUP, kernel_replicates),
    Check("FD infinity: its error", GROUP, infinity_error),
    Check("coverage of the FD infinity interval", GROUP, infinity_interval),
    Check("Wilson intervals vs SciPy", GROUP, shares),
    Check("coverage of the memorisation interval", GROUP, memorization_interval),
    Check("coverage of the FD interval", GROUP, frechet_interval),
    Check("coverage of the FD interval, equal laws", GROUP, frechet_null),
    Check("coverage of the KD interval", GROUP, kernel_interval),
    Check("coverage of the KD interval, equal laws", GROUP, kernel_null),
    Check("coverage of the bits/dim interval", GROUP, bits_interval),
)
