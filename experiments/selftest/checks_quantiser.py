"""Pixels and units: the 256 levels survive, and nats become bits per dimension."""

from __future__ import annotations

import numpy as np

from experiments.selftest.base import Check, Finding, all_of, close, largest_deviation

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
    """Mean and standard error over images, and parts that add up to the mean."""
    import torch

    from evaluation.likelihood.bits import summarise
    from models.base import LikelihoodBound

    nats = torch.tensor([-100.0, -130.0, -90.0, -110.0], dtype=torch.float64)
    parts = {"a": nats * 0.25, "b": nats * 0.75}
    found = summarise([LikelihoodBound(nats, "elbo", parts)], dimensions=16)
    unit = 16 * np.log(2)
    return all_of(
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
