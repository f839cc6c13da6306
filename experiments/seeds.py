"""One seed per axis of randomness, so that changing one leaves the others alone."""

from __future__ import annotations

import hashlib


def axis_seed(seed: int, *axis: str | int) -> int:
    """A 63-bit seed derived from the cell's seed and the name of an axis.

    Axes in use: ``data order``, ``initialisation``, ``training noise`` (stage, step), ``after training``,
    ``samples``, ``likelihood``, ``controls``. All models of one seed see the same data in the same order.
    """
    digest = hashlib.sha256(repr((seed, *axis)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
