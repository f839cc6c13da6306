"""Distances to nearest neighbours in a feature space, block by block.

Squared distances come from a float64 matrix product of centred features and are then rounded to
float32: what is equal in exact arithmetic (a copy, a tie) stays equal whatever the block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import Matrix

BLOCK_ELEMENTS = 1 << 21  # of one block of distances: 16 MB in float64


def squared_distances(
    x: Matrix, y: Matrix, block: int | None = None
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Squared Euclidean distances of rows of x (N, D) to all of y (M, D), in blocks of rows.

    Distances below the float32 resolution of the features count as zero.

    Args:
        x: Features (N, D); one side should be centred for precision.
        y: Features (M, D).
        block: Rows of x per block; None bounds a block's memory.

    Yields:
        The rows and their distances, float32 (rows, M).
    """
    block = block or max(1, BLOCK_ELEMENTS // len(y))
    x_norms, y_norms = np.einsum("nd,nd->n", x, x), np.einsum("md,md->m", y, y)
    # |x|² + |y|² - 2 x·y as one matrix product: everything else here is bound by memory.
    left = np.column_stack((x, x_norms, np.ones(len(x))))
    right = np.column_stack((-2 * y, np.ones(len(y)), y_norms)).T
    resolution = (1e-13 * (x_norms + y_norms.max())).astype(np.float32)
    for start in range(0, len(x), block):
        rows = slice(start, min(start + block, len(x)))
        distances = (left[rows] @ right).astype(np.float32)
        distances *= distances >= resolution[rows, None]
        yield rows, distances


def centred(real: Matrix, fake: Matrix) -> tuple[Matrix, Matrix]:
    """Both sets moved by the mean of the real one: distances stay, cancellation shrinks."""
    mean = real.mean(0)
    return real - mean, fake - mean


def neighbour_radii(x: Matrix, k: int, block: int | None = None) -> NDArray[np.float32]:
    """Squared distance of each row of x (N, D) to its k-th nearest other row, (N,)."""
    if not 1 <= k < len(x):
        raise ValueError(f"k must be from 1 to {len(x) - 1} for {len(x)} samples, not {k}")
    radii = np.empty(len(x), np.float32)
    for rows, distances in squared_distances(x, x, block):
        radii[rows] = np.partition(distances, k, axis=1)[:, k]  # index 0 is the point itself
    return radii
