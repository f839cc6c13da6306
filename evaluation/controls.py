"""Rows that were not trained, to hold every model against.

``real_train``: real training images, the floor that no model should beat by much.
``gaussian``: a full-covariance Gaussian fitted to the training pixels, what anyone gets for free.
``copycat``: training images returned as if generated, which a distance alone cannot tell from talent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.base import ImageDataset


@dataclass(frozen=True)
class ControlSamples:
    """What a control puts forward: images uint8 (n, C, H, W) and the labels it was asked for (n,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def real_train(dataset: ImageDataset, n: int, rng: np.random.Generator) -> ControlSamples:
    """n training images without repetition, with their own labels."""
    rows = rng.permutation(len(dataset.train))[:n]
    return ControlSamples(dataset.train.images[rows], dataset.train.labels[rows])


def gaussian(dataset: ImageDataset, n: int, rng: np.random.Generator) -> ControlSamples:
    """Draws from N(mean, covariance) of the training pixels, rounded and clipped to uint8."""
    pixels = dataset.train.images.reshape(len(dataset.train), -1).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(pixels, rowvar=False))
    noise = rng.standard_normal((n, pixels.shape[1])) * np.sqrt(values.clip(min=0))
    draws = (pixels.mean(0) + noise @ vectors.T).round().clip(0, 255).astype(np.uint8)
    return ControlSamples(draws.reshape(n, *dataset.train.images.shape[1:]), asked_labels(dataset, n))


def copycat(dataset: ImageDataset, n: int, rng: np.random.Generator) -> ControlSamples:
    """Training images of the classes asked for, drawn with repetition."""
    labels = asked_labels(dataset, n)
    pools = [np.flatnonzero(dataset.train.labels == k) for k in range(dataset.info.num_classes)]
    rows = np.array([rng.choice(pools[k]) for k in labels])
    return ControlSamples(dataset.train.images[rows], labels)


CONTROLS: dict[str, Callable[[ImageDataset, int, np.random.Generator], ControlSamples]] = {
    "real_train": real_train, "gaussian": gaussian, "copycat": copycat,
}


def asked_labels(dataset: ImageDataset, n: int) -> NDArray[np.int64]:
    """The classes that every model is asked for: those of the test split, in its order."""
    return np.resize(dataset.test.labels, n)
