"""The files of a cell besides its record: generator, samples, pictures, training log."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import models
from datamodules.base import ImageDataset
from evaluation import pictures
from evaluation.record import Budget, Parameters, StageBudget, write_atomic, write_json
from evaluation.runner import Generated
from experiments.checkpoints import checksum_path, is_intact, save_checked
from experiments.config import Cell, TrainerConfig
from experiments.distributed import on_main
from experiments.progress import Progress
from experiments.training import StageResult, train
from models.base import GenerativeModel

SHOWN = 16  # images in the picture of samples coming out of static
MODEL_FILE = "model.ckpt"
TRAINING_FILE = "training.json"


@dataclass(frozen=True)
class Training:
    """What training cost, and the hash of what came out of it."""

    budget: Budget
    checkpoint_sha256: str


def builder(cell: Cell, dataset: ImageDataset) -> Callable[[], GenerativeModel]:
    """A function that makes the cell's untrained model."""
    info = dataset.info
    shape = (info.channels, info.image_size, info.image_size)
    arguments = {"image_shape": shape, "num_classes": info.num_classes, **asdict(cell.model_config)}
    return lambda: models.model_class(cell.model)(**arguments)


def trained_model(
    cell: Cell, dataset: ImageDataset, folder: Path, progress: Progress, trainer: TrainerConfig
) -> tuple[GenerativeModel, Training]:
    """The cell's trained generator: read if it is there and whole, otherwise trained and saved."""
    path = folder / "checkpoints" / MODEL_FILE
    if on_main(lambda: _is_trained(path, folder, progress)):
        return models.load(path, device=_device()), _read_training(folder)
    model, results = train(
        builder(cell, dataset), torch.from_numpy(dataset.train.images), torch.from_numpy(dataset.train.labels),
        folder, budget=cell.budget, seed=cell.seed, progress=progress, trainer=trainer,
    )
    on_main(lambda: _save_training(cell, model, results, folder, path))
    return model.to(_device()).eval(), _read_training(folder)


def _is_trained(path: Path, folder: Path, progress: Progress) -> bool:
    if not (path.exists() and (folder / TRAINING_FILE).exists()):
        return False
    if not is_intact(path):
        progress.warn(f"checkpoint {path} is damaged (its checksum does not match); it is made again")
        return False
    return True


def _save_training(
    cell: Cell, model: GenerativeModel, results: list[StageResult], folder: Path, path: Path
) -> None:
    write_json(folder / TRAINING_FILE, [asdict(stage) for stage in _stage_budgets(results)]
               + [{"steps": sum(r.plan.steps for r in results)}])
    save_checked(
        {"format": models.FORMAT, "model": cell.model, "hyper_parameters": dict(model.hparams),
         "state_dict": model.state_dict()},
        path,
    )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _stage_budgets(results: list[StageResult]) -> list[StageBudget]:
    return [
        StageBudget(r.plan.name, r.plan.flops, r.plan.steps * r.plan.batch_size, r.seconds) for r in results
    ]


def _read_training(folder: Path) -> Training:
    *stages, totals = json.loads((folder / TRAINING_FILE).read_text())
    budgets = tuple(StageBudget(**stage) for stage in stages)
    budget = Budget(
        train_flops=sum(s.flops for s in budgets),
        images_seen=sum(s.images_seen for s in budgets),
        steps=totals["steps"],
        stages=budgets,
    )
    sha256 = checksum_path(folder / "checkpoints" / MODEL_FILE).read_text().strip()
    return Training(budget, sha256)


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


def save_pictures(folder: Path, model: GenerativeModel, generated: Generated, seed: int) -> None:
    """A grid of samples by class; where the sampler has a path, sixteen samples coming out of static."""
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
        strip = pictures.trajectory_picture(found.trajectory.cpu().numpy())
        write_atomic(folder / "trajectory.png", pictures.png_bytes(strip, least_height=900))


def merge_logs(folder: Path) -> None:
    """Join the training logs of all stages and attempts into ``metrics.csv``, one row per logged step."""
    tables = []
    for stage in sorted((folder / "logs").glob("*-*")):
        attempts = sorted(stage.glob("csv/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
        rows = [pd.read_csv(path) for path in attempts if path.stat().st_size > 1]
        if rows:
            table = pd.concat(rows).drop_duplicates("images_seen", keep="last").sort_values("images_seen")
            table.insert(0, "stage", stage.name.split("-", 1)[1])
            tables.append(table.drop(columns=["epoch", "step"], errors="ignore"))
    if tables:
        write_atomic(folder / "metrics.csv", pd.concat(tables).to_csv(index=False).encode())
