"""Images from a trained model: a grid to look at, arrays to work with, or pictures of how they form."""

from __future__ import annotations

import inspect
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.files import FileError
from evaluation.pictures import animation_bytes, png_bytes, square, trajectory_picture
from evaluation.record import write_atomic
from experiments.cli_options import UsageError
from experiments.given_images import read_given, read_mask
from experiments.sample_request import ARGUMENTS, SampleRequest, option
from models import CheckpointError, load
from models.base import GenerativeModel, image_generators, normal_noise
from models.latents import slerp

BATCH_SIZE = 250
FORMING_BATCH = 16  # images whose every step is kept at once
STRIP_HEIGHT = 900  # pixels, at least


@dataclass(frozen=True)
class Drawn:
    """Images uint8 (n, C, H, W), labels int64 (n,) and, if asked for, trajectory uint8 (steps + 1, n, C, H, W)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    trajectory: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Arguments:
    """What the model's sampler is told: ``shared`` values for all images, ``own`` tensors with a row an image.

    With ``same_noise`` all images meet the noise of the first one on their way.
    """

    shared: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)
    same_noise: bool = False


def draw(
    model: GenerativeModel, labels: Tensor, seed: int, arguments: Arguments | None = None, *,
    batch_size: int = BATCH_SIZE,
) -> Drawn:
    """One image per label (n,); each depends on the seed and its index only.

    Raises:
        ValueError: an argument that the model does not take so.
    """
    arguments = arguments or Arguments()
    generator = torch.Generator().manual_seed(seed)
    found = []
    model.eval()
    with torch.inference_mode():
        for rows in torch.arange(len(labels)).split(1 if arguments.same_noise else batch_size):
            own = {name: values[rows] for name, values in arguments.own.items()}
            if arguments.same_noise:
                generator = torch.Generator().manual_seed(seed)
            found.append(model.sample(
                len(rows), condition=labels[rows], generator=generator, **arguments.shared, **own
            ))
    paths = [samples.trajectory for samples in found if samples.trajectory is not None]
    return Drawn(
        torch.cat([samples.images for samples in found]).cpu().numpy(), labels.numpy(),
        torch.cat(paths, dim=1).cpu().numpy() if paths else None,
    )


def start_noise(model: GenerativeModel, seed: int) -> Tensor:
    """The noise from which the first image of a seed starts, float32 of the shape that the model takes."""
    return normal_noise(model.noise_shape, image_generators(1, torch.Generator().manual_seed(seed)))[0]


def labels_for(model: GenerativeModel, request: SampleRequest) -> Tensor:
    """Labels int64 (n,): the one asked for, 0 for all images on a way between two, else all in turn.

    Raises:
        UsageError: the model has no such class.
    """
    label = 0 if request.label is None and request.interpolate is not None else request.label
    if label is None:
        return torch.arange(request.n) % model.num_classes
    if label >= model.num_classes:
        raise UsageError(f"--label must be from 0 to {model.num_classes - 1}, not {label}")
    return torch.full((request.n,), label)


def check_taken(model: GenerativeModel, request: SampleRequest) -> None:
    """Raise ``UsageError`` for an option that the model does not have, or that its sampler would ignore."""
    parameters = inspect.signature(model.sample).parameters
    refused = [option(name) for name in request.given if ARGUMENTS[name] not in parameters]
    if refused:
        taken = [option(name) for name, argument in ARGUMENTS.items() if argument in parameters]
        takes = ", ".join(["--n", "--label", "--seed", *taken])
        raise UsageError(f"{request.checkpoint} is a {type(model).__name__} and has no {refused[0]}; it takes {takes}")
    sampler = request.sampler or model.hparams.get("sampler")
    if request.eta is not None and sampler != "ddim":
        raise UsageError(f"--eta is for --sampler ddim, not for {sampler!r}")


def arguments_for(model: GenerativeModel, request: SampleRequest) -> Arguments:
    """What the model's sampler is told; pictures are read here.

    Raises:
        UsageError: a picture cannot be used.
    """
    shared, own = dict(request.plain_arguments), {}
    try:
        if request.image is not None:
            given = torch.from_numpy(read_given(request.image, model.image_shape).copy())
            own["image"] = given[torch.arange(request.n) % len(given)]
        if request.mask is not None:
            shared["mask"] = torch.from_numpy(read_mask(request.mask, model.image_shape))
    except FileError as error:
        raise UsageError(str(error)) from None
    if request.interpolate is not None:
        start, end = (start_noise(model, seed) for seed in (request.seed, request.interpolate))
        own["noise"] = slerp(start, end, torch.linspace(0, 1, request.n, dtype=torch.float64))
    return Arguments(shared, own, same_noise=request.interpolate is not None)


def encoded(drawn: Drawn, suffix: str) -> bytes:
    """The bytes of a file: arrays (.npz), a grid or a strip of images forming (.png), an animation (.gif, .webp).

    Without a trajectory an animation shows one image after the other.
    """
    path = drawn.trajectory
    if suffix == ".png":
        return png_bytes(square(drawn.images)) if path is None else png_bytes(trajectory_picture(path), STRIP_HEIGHT)
    if suffix != ".npz":
        return animation_bytes(drawn.images[:, None] if path is None else path, "GIF" if suffix == ".gif" else "WEBP")
    buffer = io.BytesIO()
    steps = {} if path is None else {"trajectory": path}
    np.savez_compressed(buffer, allow_pickle=False, images=drawn.images, labels=drawn.labels, **steps)
    return buffer.getvalue()


def in_options(message: str) -> str:
    """A model's refusal, which begins with the name of an argument, with that of the option in its place."""
    options = {argument: option(name) for name, argument in ARGUMENTS.items()}
    first, space, rest = message.partition(" ")
    return options.get(first, first) + space + rest


def write_samples(request: SampleRequest) -> None:
    """Generate images and write them, all files or none.

    Raises:
        UsageError: The checkpoint or a picture cannot be read, or the model does not take what was asked for.
    """
    try:
        model = load(request.checkpoint)
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    check_taken(model, request)
    labels, arguments = labels_for(model, request), arguments_for(model, request)
    batch_size = FORMING_BATCH if request.trajectory else BATCH_SIZE
    try:
        drawn = draw(model, labels, request.seed, arguments, batch_size=batch_size)
    except ValueError as error:
        raise UsageError(in_options(str(error))) from None
    for path, data in [(path, encoded(drawn, path.suffix)) for path in request.files]:
        write_atomic(path, data)
    print(f"{request.n} images: {', '.join(map(str, request.files))}")
