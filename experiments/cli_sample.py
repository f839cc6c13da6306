"""Images from a trained model, as a grid to look at or as an array to work with."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.pictures import png_bytes, tile
from evaluation.record import write_atomic
from experiments.cli_options import UsageError
from models import CheckpointError, load
from models.base import GenerativeModel

BATCH_SIZE = 250


def draw(
    model: GenerativeModel, labels: torch.Tensor, seed: int, batch_size: int = BATCH_SIZE
) -> NDArray[np.uint8]:
    """One image per label (n,), uint8 (n, C, H, W); each depends on the seed and its index only."""
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    with torch.inference_mode():
        parts = labels.split(batch_size)
        images = [model.sample(len(part), condition=part, generator=generator).images for part in parts]
    return torch.cat(images).cpu().numpy()


def encode(images: NDArray[np.uint8], labels: NDArray[np.int64], suffix: str) -> bytes:
    """The bytes of a .png (a square grid) or .npz (images uint8 (n, C, H, W), labels int64 (n,)) file."""
    if suffix == ".png":
        return png_bytes(tile(images, columns=math.ceil(math.sqrt(len(images)))))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images, labels=labels)
    return buffer.getvalue()


def write_samples(checkpoint: Path, n: int, out: Path, *, seed: int, label: int | None) -> None:
    """Generate ``n`` images of one class, or of all classes in turn, and write them.

    Raises:
        UsageError: The checkpoint cannot be read, or the model has no such class.
    """
    try:
        model = load(checkpoint)
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    if label is not None and label >= model.num_classes:
        raise UsageError(f"--label must be from 0 to {model.num_classes - 1}, not {label}")
    labels = torch.full((n,), label) if label is not None else torch.arange(n) % model.num_classes
    write_atomic(out, encode(draw(model, labels, seed), labels.numpy(), out.suffix))
    print(f"{n} images: {out}")
