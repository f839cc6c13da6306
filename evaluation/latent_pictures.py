"""Pictures of a latent space: ways through it, one latent as every class, and test images sought in it.

Where a model has no latent space to seek in (``GenerativeModel.project``) there are none. Nothing is picked: latents
are the first that a seed draws, images the first of the test split.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.code_pictures import enlarged, reconstruction_picture
from evaluation.pictures import tile
from models.base import GenerativeModel, image_generators, normal_noise
from models.latents import Projection, slerp

Array = NDArray[np.uint8]

SOUGHT = 8  # test images: one block of the search
CLASSES = 10  # at most, rows of ways and columns of mixtures
STOPS = 10  # images on a way, both ends included
MIXED = 6  # latents that are shown as every class
GAP = 3  # pixels between two images


def drawn(model: GenerativeModel, noise: Tensor, labels: Tensor) -> Array:
    """Latents (N, ...) and labels int64 (N,) as images, uint8 (N, C, H, W)."""
    generator = torch.Generator().manual_seed(0)  # of nothing that is seen: all noise is given
    return model.sample(len(labels), condition=labels, generator=generator, noise=noise).images.cpu().numpy()


def latents(model: GenerativeModel, n: int, seed: int) -> Tensor:
    """The first n latents of a seed, float32 (n, ...): those of the first samples of the same seed."""
    return normal_noise(model.noise_shape, image_generators(n, torch.Generator().manual_seed(seed)))


def interpolation_picture(model: GenerativeModel, *, seed: int) -> Array:
    """A row a class: the great circle from one latent to another, each class between two of its own."""
    rows = min(model.num_classes, CLASSES)
    share = torch.linspace(0, 1, STOPS, dtype=torch.float64)
    ends = latents(model, 2 * rows, seed).unflatten(0, (rows, 2))
    noise = torch.cat([slerp(start, end, share) for start, end in ends])
    return tile(enlarged(drawn(model, noise, torch.arange(rows).repeat_interleave(STOPS))), STOPS, GAP)


def mixing_picture(model: GenerativeModel, *, seed: int) -> Array:
    """A row a latent: the same one decoded as every class."""
    columns = min(model.num_classes, CLASSES)
    noise = latents(model, MIXED, seed).repeat_interleave(columns, 0)
    return tile(enlarged(drawn(model, noise, torch.arange(columns).repeat(MIXED))), columns, GAP)


def sought(model: GenerativeModel, images: Array, labels: NDArray[np.int64], *, seed: int) -> Projection | None:
    """The first test images, sought as the classes that they are; None without a latent space to seek in."""
    return model.project(
        torch.from_numpy(images[:SOUGHT]), condition=torch.from_numpy(labels[:SOUGHT]),
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def latent_pictures(
    model: GenerativeModel, images: Array, labels: NDArray[np.int64], *, seed: int
) -> dict[str, Array]:
    """Pictures by the names of their files, of a model that has a latent space; none of one that has none.

    Args:
        model: In evaluation mode.
        images: The test images, uint8 (N, C, H, W); the first of them are sought.
        labels: Their classes, int64 (N,).
        seed: Of latents and starts.
    """
    found = sought(model, images, labels, seed=seed)
    if found is None:
        return {}
    return {
        "interpolation.png": interpolation_picture(model, seed=seed),
        "mixing.png": mixing_picture(model, seed=seed),
        "inversion.png": reconstruction_picture(images[:SOUGHT], found.images.cpu().numpy()),
    }
