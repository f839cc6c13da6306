"""Intervals hold the true value as often as they say, in simulated cases.

The true value is the expectation at the n of the case, the bias of the Fréchet distance included; the
mean over all cases, whose own error is a seventeenth of an interval's, stands for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.selftest.base import Check, Finding, within

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


CHECKS = (
    Check("coverage of the FD interval", GROUP, frechet_interval),
    Check("coverage of the FD interval, equal laws", GROUP, frechet_null),
    Check("coverage of the KD interval", GROUP, kernel_interval),
    Check("coverage of the KD interval, equal laws", GROUP, kernel_null),
    Check("coverage of the bits/dim interval", GROUP, bits_interval),
)
