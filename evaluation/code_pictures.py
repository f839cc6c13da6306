"""Pictures of a first stage: what it gives back, which codes it writes, and what its prior puts in place of a half.

The images are the first of the test split. A code has one colour wherever it stands: hues go round by the golden
ratio (neighbouring codes differ), in three lightnesses. Large codebooks have colours that look alike.
"""

from __future__ import annotations

import colorsys
import inspect
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.pictures import tile
from models.base import GenerativeModel

Array = NDArray[np.uint8]

COLUMNS = 12  # images side by side
BLOCKS = 3  # of originals above reconstructions
REDRAWN = 3  # drawings of the half that was taken away
LEAST_SIDE = 48  # pixels that an image is enlarged to, without smoothing
BETWEEN = 14  # pixels between two blocks
GREY = 128  # what was taken away
GOLDEN = (5**0.5 - 1) / 2
LIGHTNESS = (0.5, 0.68, 0.34)


def code_colours(codebook_size: int) -> Array:
    """A colour for every code, uint8 (K, 3)."""
    hues = (np.arange(codebook_size) * GOLDEN) % 1
    lights = [LIGHTNESS[i % len(LIGHTNESS)] for i in range(codebook_size)]
    colours = [colorsys.hls_to_rgb(hue, light, 0.75) for hue, light in zip(hues, lights, strict=True)]
    return (np.array(colours) * 255).round().astype(np.uint8)


def enlarged(images: Array) -> Array:
    """uint8 (N, C, H, W) -> RGB (N, 3, f H, f W) with the whole factor f that makes the shorter side large enough."""
    factor = max(1, -(-LEAST_SIDE // min(images.shape[2:])))
    return np.repeat(images, 3 // images.shape[1], axis=1).repeat(factor, axis=2).repeat(factor, axis=3)


def code_maps(
    indices: NDArray[np.int64], grids: Sequence[tuple[int, int]], codebook_size: int, size: tuple[int, int]
) -> list[Array]:
    """Each grid of indices int64 (N, T) in the colours of its codes, uint8 (N, 3, H, W) of that ``size``."""
    colours, maps, start = code_colours(codebook_size), [], 0
    for rows, columns in grids:
        grid = indices[:, start : start + rows * columns].reshape(-1, rows, columns)
        y, x = (np.arange(side) * n // side for side, n in zip(size, (rows, columns), strict=True))
        maps.append(colours[grid[:, y][:, :, x]].transpose(0, 3, 1, 2))
        start += rows * columns
    return maps


def rows_picture(rows: Sequence[Array], gap: int = 3) -> Array:
    """Rows of as many RGB images each, (N, 3, H, W), below each other, as a picture (H', W', 3)."""
    return tile(np.concatenate(list(rows)), len(rows[0]), gap)


def reconstruction_picture(originals: Array, back: Array) -> Array:
    """Originals above and what came back below, in blocks of ``COLUMNS``; both uint8 (N, C, H, W)."""
    sides = enlarged(originals), enlarged(back)
    columns = min(COLUMNS, len(originals))
    starts = range(0, len(originals) - columns + 1, columns)
    blocks = [rows_picture([side[start : start + columns] for side in sides]) for start in starts]
    between = np.full((BETWEEN, *blocks[0].shape[1:]), 255, np.uint8)
    return np.concatenate([part for block in blocks for part in (between, block)][1:])


def code_picture(
    originals: Array, indices: NDArray[np.int64], grids: Sequence[tuple[int, int]], codebook_size: int
) -> Array:
    """Originals in the first row, every grid of their codes in a row of its own."""
    shown = enlarged(originals)
    return rows_picture([shown, *code_maps(indices, grids, codebook_size, shown.shape[2:])])


def takes_a_mask(model: GenerativeModel) -> bool:
    """Whether ``sample`` takes ``image`` and ``mask``."""
    return {"image", "mask"} <= set(inspect.signature(model.sample).parameters)


def inpainting_picture(model: GenerativeModel, images: Array, labels: NDArray[np.int64], *, seed: int) -> Array:
    """Images, the same without their lower half, and ``REDRAWN`` drawings of that half, a row each.

    Args:
        model: Its ``sample`` takes ``image`` and ``mask``.
        images: uint8 (N, C, H, W).
        labels: Their classes, int64 (N,), which the model is told.
        seed: Of the drawings.
    """
    height, width = images.shape[2:]
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[: height // 2] = True  # kept: a prior in raster order reads it first
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        model.sample(
            len(images), condition=torch.from_numpy(labels), generator=generator, image=torch.from_numpy(images),
            mask=mask,
        ).images.cpu().numpy()
        for _ in range(REDRAWN)
    ]  # fmt: skip
    given = np.where(mask.numpy(), images, np.uint8(GREY))
    return rows_picture([enlarged(row) for row in (images, given, *drawn)])


def code_pictures(
    model: GenerativeModel, images: Array, labels: NDArray[np.int64], *, seed: int
) -> dict[str, Array]:
    """Pictures by the names of their files, of a model that has a first stage; none of one that has none.

    Args:
        model: In evaluation mode.
        images: The test images, uint8 (N, C, H, W); the first of them are shown.
        labels: Their classes, int64 (N,).
        seed: Of what is drawn.
    """
    shown = images[: COLUMNS * BLOCKS]
    found = model.reconstruct(torch.from_numpy(shown))
    if found is None:
        return {}
    drawn = {"reconstructions.png": reconstruction_picture(shown, found.images.cpu().numpy())}
    if found.indices is None:
        return drawn
    indices = found.indices[:COLUMNS].cpu().numpy()
    drawn["codes.png"] = code_picture(shown[:COLUMNS], indices, found.grids, found.codebook_size)
    if takes_a_mask(model):
        drawn["inpainting.png"] = inpainting_picture(model, shown[:COLUMNS], labels[:COLUMNS], seed=seed)
    return drawn
