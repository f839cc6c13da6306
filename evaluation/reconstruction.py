"""The exam of first stages: test images through a model's autoencoder and back, before any prior plays a part.

Every model is asked; those whose ``reconstruct`` gives nothing have no first stage. The same n test images are
looked at as for the distances of samples, in the same feature spaces: ``rfd_<features>`` beside ``fd_<features>``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.fingerprint import stamped
from evaluation.machine import versions
from evaluation.metrics import Exam, MetricInfo, score_one
from evaluation.pairs import Pairs, score_pairs
from evaluation.pairs.codebook import code_counts, perplexity
from evaluation.pairs.frechet import AGAINST_TRAIN, METRIC
from evaluation.record import CodeGrid, FirstStage, MetricValue
from evaluation.reference import PIXELS, Generated, Reference, Space
from evaluation.sharing import in_turns
from models.base import GenerativeModel


@dataclass(frozen=True)
class Reconstructed:
    """What came back of images: uint8 (N, C, H, W), and codes as in ``models.base.Reconstruction``."""

    images: NDArray[np.uint8]
    indices: NDArray[np.int64] | None
    grids: tuple[tuple[int, int], ...]
    codebook_size: int


def reconstructed(
    model: GenerativeModel, images: NDArray[np.uint8], *, batch_size: int,
    on_images: Callable[[int], None] = lambda done: None,
) -> Reconstructed | None:
    """uint8 images (N, C, H, W) through the first stage and back, in batches; None if the model has none.

    Of several processes the first gets all images, the others those they made. ``on_images`` is told after every
    batch how many images there are.
    """
    if type(model).reconstruct is GenerativeModel.reconstruct:
        return None
    found = in_turns(
        torch.from_numpy(images).split(batch_size), lambda batch: _ask(model, batch),
        on_item=lambda done: on_images(min(done * batch_size, len(images))),
    )
    parts = [part for part in found if part is not None]
    if not parts:
        return None
    indices = None if parts[0]["indices"] is None else torch.cat([part["indices"] for part in parts]).numpy()
    grids = tuple((int(rows), int(columns)) for rows, columns in parts[0]["grids"])
    return Reconstructed(torch.cat([p["images"] for p in parts]).numpy(), indices, grids, parts[0]["codebook_size"])


def _ask(model: GenerativeModel, batch: Tensor) -> dict[str, Any] | None:
    """One batch as plain values in memory, which processes can tell each other."""
    found = model.reconstruct(batch)
    if found is None:
        return None
    indices = None if found.indices is None else found.indices.cpu()
    grids = [list(grid) for grid in found.grids]
    return {
        "images": found.images.cpu(), "indices": indices, "grids": grids, "codebook_size": int(found.codebook_size),
    }  # fmt: skip


def judge_first_stage(reference: Reference, found: Reconstructed) -> FirstStage:
    """Distances in every feature space, likeness pair by pair, and use of the codebook.

    Args:
        reference: The real side; what was reconstructed are its test images.
        found: As many reconstructions.
    """
    generated = Generated(found.images, None)
    metrics: dict[str, MetricValue] = {}
    for space in reference.spaces:
        if space.name != PIXELS:
            metrics |= _distances(reference, space, generated)
    pixels = next(space for space in reference.spaces if space.name == PIXELS)
    made = reference.fingerprint(pixels, generated, "test")
    installed = versions()
    known = {name: installed[name] for name in ("torchmetrics",) if name in installed}
    made = replace(made, dtype="float64", versions=reference.versions | known)
    metrics |= score_pairs(Pairs(reference.images, found.images, found.indices, found.codebook_size), made)
    if found.indices is None:
        return FirstStage(metrics, len(found.images))
    counts = np.sort(code_counts(found.indices, found.codebook_size))[::-1]
    used = tuple(int(count) for count in counts if count)
    grids = tuple(code_grids(found.indices, found.grids, found.codebook_size))
    return FirstStage(metrics, len(found.images), found.codebook_size, grids, used)


def _distances(reference: Reference, space: Space, generated: Generated) -> dict[str, MetricValue]:
    """The distance to the images that went in, and that to training images; or why there are none."""
    if space.test is None:
        return reference.missing(space, [METRIC, AGAINST_TRAIN], len(generated.images), True)
    exam = Exam(space.name, space.test.features, space.look(generated.images).features)
    sides: list[tuple[MetricInfo, Exam]] = [(METRIC, exam)]
    if space.train_part is not None:
        sides.append((AGAINST_TRAIN, replace(exam, real=space.train_part.features)))
    values: dict[str, MetricValue] = {}
    for metric, pair in sides:
        print_ = reference.fingerprint(space, generated, metric.reference)
        values |= {name: stamped(value, print_) for name, value in score_one(metric, pair).items()}
    return values


def code_grids(
    indices: NDArray[np.int64], grids: tuple[tuple[int, int], ...], codebook_size: int
) -> list[CodeGrid]:
    """How many codes each grid uses; indices int64 (N, T) hold the grids one after the other, each in raster order."""
    ends = np.cumsum([rows * columns for rows, columns in grids])
    if not len(ends) or ends[-1] != indices.shape[1]:
        raise ValueError(f"grids {grids} do not make up {indices.shape[1]} codes an image")
    found = []
    for (rows, columns), part in zip(grids, np.split(indices, ends[:-1], axis=1), strict=True):
        counts = code_counts(part, codebook_size)
        found.append(CodeGrid(rows, columns, int((counts > 0).sum()), perplexity(counts)))
    return found
