"""The smallest real version of every model: its preset shrunk, on 8 x 8 images of three classes."""

from __future__ import annotations

import io
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

import models
from datamodules.base import DatasetInfo
from experiments.discovery import preset_module
from experiments.progress import Progress
from experiments.stage_log import LOG_FILE, write_log
from experiments.training import plan_stage, quiet_lightning, train
from models.base import GenerativeModel

INFO = DatasetInfo("tiny", channels=1, image_size=8, num_classes=3, class_names=("dark", "grey", "bright"))
SHAPE = (INFO.channels, INFO.image_size, INFO.image_size)

# Fields of presets that make a model large; a new model is shrunk where it uses the same names.
SMALL: dict[str, Any] = {
    "width": 8, "blocks": 1, "latent_dim": 8, "prior_dim": 32, "prior_depth": 1, "levels": (3, 2), "batch_size": 8,
    "num_steps": 3, "codebook_size": 6, "codebook_dim": 4, "n_critic": 2,
}


def tiny_config(name: str, info: DatasetInfo = INFO) -> Any:
    """The preset of a model with every field named in ``SMALL`` shrunk."""
    config = preset_module(name).preset(info)
    return replace(config, **{f.name: SMALL[f.name] for f in fields(config) if f.name in SMALL})


def tiny_model(name: str, seed: int = 0, **changes: Any) -> GenerativeModel:
    """An untrained tiny model; the same seed gives the same weights."""
    torch.manual_seed(seed)
    arguments = asdict(tiny_config(name)) | changes
    return models.model_class(name)(image_shape=SHAPE, num_classes=INFO.num_classes, **arguments)


def randomised(module: nn.Module, scale: float = 0.1, seed: int = 1) -> Any:
    """Add noise to all parameters, so that layers that start at zero take part; returns the module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def random_model(name: str) -> GenerativeModel:
    """A tiny model with noise on all weights, whose samples differ from each other."""
    return randomised(tiny_model(name))


def tiny_data(n: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images uint8 (n, 1, 8, 8), brighter from class to class, and their labels int64 (n,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(INFO.num_classes, (n,), generator=generator)
    noise = torch.randint(0, 60, (n, *SHAPE), generator=generator)
    return (noise + 90 * labels[:, None, None, None]).to(torch.uint8), labels


def silent() -> Progress:
    """Progress that is written to memory: ``progress.console.file.getvalue()``."""
    return Progress(Console(file=io.StringIO(), width=500))


@lru_cache
def budget_for(name: str, steps: int) -> float:
    """FLOPs that are enough for about ``steps`` steps of a tiny model's every stage."""
    quiet_lightning()
    images, labels = tiny_data()
    columns = {"image": images, "label": labels}
    stages = tiny_model(name).stages()
    plans = [(stage.share, plan_stage(stage, columns, 0.0)) for stage in stages]
    need = (steps * p.step_flops + len(images) * p.precompute_flops for _, p in plans)
    return 1.01 * max(n / share for n, (share, _) in zip(need, plans, strict=True))


def train_tiny(
    name: str, folder: Path, *, steps: int = 24, seed: int = 3, progress: Progress | None = None
) -> dict[str, Tensor]:
    """Train a tiny model through the real runner, write ``metrics.csv`` and return its weights."""
    images, labels = tiny_data()
    model, results = train(
        lambda: tiny_model(name, int(torch.initial_seed() % 2**32)), images, labels, folder,
        budget=budget_for(name, steps), seed=seed, progress=progress or silent(),
    )
    write_log(folder / LOG_FILE, [(result.plan.name, result.rows) for result in results])
    return model.state_dict()


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Every tensor is equal bit by bit."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
