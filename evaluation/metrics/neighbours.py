"""Distances to nearest neighbours in a feature space, block by block.

Squared distances come from a float64 matrix product of centred features and are then rounded to
float32: what is equal in exact arithmetic (a copy, a tie) stays equal whatever the block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import BLOCK, Features, Matrix, mean_of, row_blocks

BLOCK_ELEMENTS = 1 << 25  # of one block of distances: 128 MB in float32


def squared_distances(
    x: Features, y: Features, block: int | None = None, centre: Matrix | None = None
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Squared Euclidean distances of rows of x (N, D) to all of y (M, D), in blocks of rows.

    Distances below the float32 resolution of the features count as zero.

    Args:
        x: Features (N, D).
        y: Features (M, D).
        block: Rows of x per block; None bounds a block's memory.
        centre: Taken off both sides (D,), for less cancellation; the mean of x by default.

    Yields:
        The rows and their distances, float32 (rows, M).
    """
    block = block or max(1, min(BLOCK, BLOCK_ELEMENTS // len(y)))
    centre = mean_of(x) if centre is None else centre
    y_norms = squared_norms(y, centre)
    largest = y_norms.max()
    for rows in row_blocks(len(x), block):
        left = x[rows] - centre  # float64, as the centre is
        norms = np.einsum("nd,nd->n", left, left)
        resolution = (1e-13 * (norms + largest)).astype(np.float32)[:, None]
        # |x|² + |y|² - 2 x·y as one matrix product: everything else here is bound by memory.
        left = np.column_stack((left, norms, np.ones(len(left))))
        distances = np.empty((len(left), len(y)), np.float32)
        for columns in row_blocks(len(y)):
            right = np.column_stack((-2 * (y[columns] - centre), np.ones(len(y_norms[columns])), y_norms[columns]))
            tile = distances[:, columns]
            tile[:] = left @ right.T
            tile *= tile >= resolution
        yield rows, distances


def squared_norms(x: Features, centre: Matrix) -> Matrix:
    """|x - centre|² of each row of x (N, D), (N,)."""
    norms = np.empty(len(x))
    for rows in row_blocks(len(x)):
        moved = x[rows] - centre
        norms[rows] = np.einsum("nd,nd->n", moved, moved)
    return norms


def neighbour_radii(
    x: Features, k: int, block: int | None = None, centre: Matrix | None = None
) -> NDArray[np.float32]:
    """Squared distance of each row of x (N, D) to its k-th nearest other row, (N,)."""
    if not 1 <= k < len(x):
        raise ValueError(f"k must be from 1 to {len(x) - 1} for {len(x)} samples, not {k}")
    radii = np.empty(len(x), np.float32)
    for rows, distances in squared_distances(x, x, block, centre):
        distances.partition(k, axis=1)
        radii[rows] = distances[:, k]  # index 0 is the point itself
    return radii
