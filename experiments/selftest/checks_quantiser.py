"""Pixels and units: the 256 levels survive, and nats become bits per dimension."""

from __future__ import annotations

import numpy as np

from experiments.selftest.base import Check, Finding, all_of, close, largest_deviation, same

GROUP = "quantiser"


def round_trip() -> Finding:
    """uint8 -> [-1, 1] -> uint8 changes none of the 256 levels."""
    import torch

    from models.base import to_float, to_uint8

    levels = torch.arange(256, dtype=torch.uint8)
    x = to_float(levels)
    return all_of(
        largest_deviation([-1.0, 1.0], [float(x[0]), float(x[-1])], absolute=0),
        largest_deviation(levels.numpy(), to_uint8(x).numpy(), absolute=0),
    )


def rounding() -> Finding:
    """A value between two levels goes to the nearer one; beyond the ends to the end."""
    import torch

    from models.base import to_uint8

    steps = torch.tensor([-3.0, 0.0, 0.4, 0.6, 100.4, 100.6, 254.6, 300.0], dtype=torch.float64)
    return largest_deviation([0, 0, 0, 1, 100, 101, 255, 255], to_uint8(steps / 127.5 - 1).numpy(), absolute=0)


def bits() -> Finding:
    """A uniform pixel costs 8 bits: 64 pixels with log p = -64 ln 256 nats."""
    import torch

    from evaluation.likelihood.bits import bits_per_dim

    return close(8, bits_per_dim(torch.tensor([-64 * np.log(256)], dtype=torch.float64), 64)[0], relative=1e-12)


def summary() -> Finding:
    """Mean, standard error and Student's interval over images of two batches, and parts that add up to the mean."""
    import torch
    from scipy.stats import ttest_1samp

    from evaluation.likelihood.bits import summarise
    from models.base import LikelihoodBound

    nats = torch.tensor([-100.0, -130.0, -90.0, -110.0], dtype=torch.float64)
    parts = {"a": nats * 0.25, "b": nats * 0.75}
    nfe = torch.tensor([1.0, 5.0, 2.0, 4.0])
    halves = [
        LikelihoodBound(nats[rows], "elbo", {name: part[rows] for name, part in parts.items()}, nfe=nfe[rows])
        for rows in (slice(1), slice(1, 4))
    ]
    found = summarise(halves, dimensions=16)
    unit = 16 * np.log(2)
    student = ttest_1samp(-nats.numpy() / unit, 0).confidence_interval(0.95)
    endless = summarise([LikelihoodBound(torch.tensor([-1.0, -np.inf]), "elbo")] * 2, dimensions=16)
    return all_of(
        same("no value", "no value" if endless.bits_per_dim is None else "a value", "a bound that is not finite"),
        close(3, found.nfe or 0, absolute=0),
        largest_deviation([student.low, student.high], [found.ci_low or 0, found.ci_high or 0], relative=1e-9),
        close(nats.std() / 2 / unit, found.standard_error, relative=1e-9),
        close(-nats.mean() / unit, sum(found.parts.values()), relative=1e-9),
        close(-nats.mean() / unit, found.bits_per_dim, relative=1e-9),
    )


CHECKS = (
    Check("levels survive the round trip", GROUP, round_trip),
    Check("rounding to the nearest level", GROUP, rounding),
    Check("8 bits for a uniform pixel", GROUP, bits),
    Check("mean, error and parts of bits/dim", GROUP, summary),
)
