"""The files of a cell besides its record: generator, samples, pictures, training log."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

import models
from datamodules.base import ImageDataset, Split
from evaluation import pictures
from evaluation.code_pictures import code_pictures
from evaluation.latent_pictures import latent_pictures
from evaluation.record import Budget, Parameters, StageBudget, write_atomic, write_json
from evaluation.runner import Generated
from evaluation.seal import file_digest
from experiments.checkpoints import is_intact, save_checked
from experiments.config import Cell, TrainerConfig
from experiments.distributed import on_main
from experiments.progress import Progress
from experiments.seeds import axis_seed
from experiments.stage_log import LOG_FILE, write_log
from experiments.training import StageResult, seed_libraries, train
from models.base import GenerativeModel

SHOWN = 16  # images in the picture of samples coming out of static
MODEL_FILE = "model.ckpt"
TRAINING_FILE = "training.json"


class Damaged(ValueError):
    """What training left is not whole; the message is one sentence."""


@dataclass(frozen=True)
class Training:
    """What training cost, and the SHA-256 of the files that came out of it, by their names in the cell's folder."""

    stages: tuple[StageBudget, ...]
    steps: int
    files: dict[str, str]

    @property
    def budget(self) -> Budget:
        """The cost over all stages."""
        return Budget(
            train_flops=sum(s.flops for s in self.stages),
            images_seen=sum(s.images_seen for s in self.stages),
            steps=self.steps,
            stages=self.stages,
        )

    @property
    def checkpoint_sha256(self) -> str:
        """The hash of the generator."""
        return self.files[f"checkpoints/{MODEL_FILE}"]


def builder(cell: Cell, dataset: ImageDataset) -> Callable[[], GenerativeModel]:
    """A function that makes the cell's untrained model."""
    info = dataset.info
    shape = (info.channels, info.image_size, info.image_size)
    arguments = {"image_shape": shape, "num_classes": info.num_classes, **asdict(cell.model_config)}
    return lambda: models.model_class(cell.model)(**arguments)


def trained_model(
    cell: Cell, dataset: ImageDataset, folder: Path, progress: Progress, trainer: TrainerConfig
) -> tuple[GenerativeModel, Training]:
    """The cell's trained generator: read if it is there and whole, otherwise trained, saved and read."""
    if not on_main(lambda: read_training(folder, progress.warn) is not None):
        model, results = train(
            builder(cell, dataset), torch.from_numpy(dataset.train.images), torch.from_numpy(dataset.train.labels),
            folder, budget=cell.budget, seed=cell.seed, progress=progress, trainer=trainer,
        )
        on_main(lambda: bool(save_training(cell, model, results, folder)))
    training = read_training(folder, progress.warn)
    if training is None:
        raise Damaged(f"{folder / TRAINING_FILE} was damaged while it was written")
    seed_libraries(axis_seed(cell.seed, "after training"))  # however the generator came about
    return models.load(folder / "checkpoints" / MODEL_FILE, device=_device()), training


def save_training(cell: Cell, model: GenerativeModel, results: list[StageResult], folder: Path) -> Training:
    """Write the training log, the generator and, last, the file that says what belongs together."""
    path = folder / "checkpoints" / MODEL_FILE
    write_log(folder / LOG_FILE, [(result.plan.name, result.rows) for result in results])
    save_checked(
        {"format": models.FORMAT, "model": cell.model, "hyper_parameters": dict(model.hparams),
         "state_dict": model.state_dict()},
        path,
    )
    files = {name: file_digest(folder / name) for name in (f"checkpoints/{MODEL_FILE}", LOG_FILE)}
    training = Training(tuple(_stage_budgets(results)), sum(r.plan.steps for r in results), files)
    content = asdict(training)
    write_json(folder / TRAINING_FILE, content | {"checksum": _digest(content)})
    return training


def read_training(folder: Path, warn: Callable[[str], None]) -> Training | None:
    """What training left, if it is all there and whole; ``warn`` is told of what is damaged."""
    if not (folder / TRAINING_FILE).exists():  # it is written last
        return None
    try:
        training = _read(folder / TRAINING_FILE)
        for name, digest in training.files.items():
            if not _is_whole(folder / name, digest):
                raise Damaged(f"{folder / name} is damaged (its checksum does not match)")
    except Damaged as damaged:
        warn(f"{damaged}; it is made again")
        return None
    return training


def _read(path: Path) -> Training:
    try:
        content = json.loads(path.read_bytes())
        if content.pop("checksum") != _digest(content):
            raise ValueError
        return _ADAPTER.validate_python(content)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise Damaged(f"{path} is damaged (its checksum does not match)") from None


_ADAPTER = TypeAdapter(Training)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_whole(path: Path, digest: str) -> bool:
    try:
        return file_digest(path) == digest and (path.suffix != ".ckpt" or is_intact(path))
    except OSError:
        return False


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _stage_budgets(results: list[StageResult]) -> list[StageBudget]:
    return [
        StageBudget(r.plan.name, r.plan.flops, r.plan.steps * r.plan.batch_size, r.seconds) for r in results
    ]


def count_parameters(model: GenerativeModel) -> Parameters:
    """All parameters, and those of the networks that sampling runs."""
    sampling = {p for module in model.sampling_modules() for p in module.parameters()}
    return Parameters(sum(p.numel() for p in model.parameters()), sum(p.numel() for p in sampling))


def save_samples(path: Path, generated: Generated) -> None:
    """Write ``images`` uint8 (n, C, H, W) and, if there are any, ``labels`` int64 (n,) as a compressed npz."""
    buffer = io.BytesIO()
    labels = {} if generated.labels is None else {"labels": generated.labels}
    np.savez_compressed(buffer, allow_pickle=False, images=generated.images, **labels)
    write_atomic(path, buffer.getvalue())


def save_inner_pictures(folder: Path, model: GenerativeModel, test: Split, seed: int) -> None:
    """What a first stage makes of the first test images, and a tour of the latent space, where there is one."""
    for draw in (code_pictures, latent_pictures):
        for name, picture in draw(model, test.images, test.labels, seed=seed).items():
            write_atomic(folder / name, pictures.png_bytes(picture))


def save_pictures(folder: Path, model: GenerativeModel, generated: Generated, seed: int) -> None:
    """A grid of samples by class; where the sampler has a path, sixteen samples coming out of static.

    The animation is to look at only: it is neither sealed nor part of an archive.
    """
    assert generated.labels is not None, "a model is asked for classes"
    grid = pictures.by_class(generated.images, generated.labels, classes=model.num_classes)
    write_atomic(folder / "samples.png", pictures.png_bytes(grid))
    if not model.has_trajectory:
        return
    found = model.sample(
        SHOWN, condition=torch.arange(SHOWN) % model.num_classes,
        generator=torch.Generator().manual_seed(seed), trajectory=True,
    )
    if found.trajectory is not None:
        path = found.trajectory.cpu().numpy()
        strip = pictures.trajectory_picture(path)
        write_atomic(folder / "trajectory.png", pictures.png_bytes(strip, least_height=900))
        write_atomic(folder / "trajectory.gif", pictures.animation_bytes(path, "GIF"))
