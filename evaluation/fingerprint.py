"""Fingerprints: the conditions a number was computed under, attached to every metric."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evaluation.machine import versions
from evaluation.record import Fingerprint, MetricValue

# Packages whose version may change a number: the arithmetic, and what ships the pretrained networks.
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "torchvision", "torch-fidelity")
AS_GIVEN = "uint8 as given"


def image_hash(images: NDArray[np.uint8]) -> str:
    """SHA-256 over shape and bytes of images (N, C, H, W)."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def relevant_versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    return {name: version for name, version in versions().items() if name in PACKAGES}


def stamped(value: MetricValue, fingerprint: Fingerprint, seed: int | None = None) -> MetricValue:
    """The value with the conditions it was computed under; a missing number has none."""
    if value.value is None:
        return value
    own = replace(fingerprint, n_real=value.n_real, n_fake=value.n_fake, seed=seed)
    return replace(value, fingerprint=own)
