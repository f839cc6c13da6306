"""Train a shipped extractor: ``python -m evaluation.features.train digits|fashion_mnist``.

Label smoothing, small geometric augmentation, one-cycle AdamW and an exponential average of
the weights. Only the train split is trained on; validation is what a recipe is chosen by; the
test split is looked at once, for the card.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from datamodules.base import ImageDataset, Split
from evaluation.features.catalog import WEIGHTS
from evaluation.features.classifier import Classifier, to_unit_range
from evaluation.features.extractors import FeatureExtractor


@dataclass(frozen=True)
class Recipe:
    """How one extractor is trained; ``shift`` in whole pixels, ``rotate`` in degrees."""

    widths: tuple[int, int, int]
    patch: int
    epochs: int
    batch_size: int
    lr: float
    shift: int
    rotate: float
    flip: bool
    ema_decay: float
    weight_decay: float = 0.05
    label_smoothing: float = 0.1


RECIPES = {
    "digits": Recipe(
        widths=(32, 64, 64),
        patch=1,
        epochs=60,
        batch_size=32,
        lr=4e-3,
        ema_decay=0.99,
        shift=1,
        rotate=10.0,
        flip=False,
    ),
    "fashion_mnist": Recipe(
        widths=(32, 64, 128),
        patch=2,
        epochs=14,
        batch_size=128,
        lr=6e-3,
        ema_decay=0.998,
        shift=2,
        rotate=0.0,
        flip=True,
    ),
}


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shift, rotate and flip float images (B, C, H, W) in [-1, 1], each in its own way; -1 comes in."""
    batch, size = len(images), images.shape[-1]
    angle = (torch.rand(batch, generator=generator) * 2 - 1) * math.radians(recipe.rotate)
    shift = torch.randint(-recipe.shift, recipe.shift + 1, (batch, 2), generator=generator) * (2 / size)
    mirror = 1 - 2 * torch.randint(0, 2, (batch,), generator=generator) if recipe.flip else torch.ones(batch)
    cos, sin = angle.cos(), angle.sin()
    entries = (cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1])
    grid = F.affine_grid(torch.stack(entries, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def fit(recipe: Recipe, dataset: ImageDataset, seed: int) -> Classifier:
    """Train on the train split and return the averaged network; prints one line per epoch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Classifier(**architecture(recipe, dataset)).to(memory_format=torch.channels_last)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    averaged = cast(Classifier, average.module)
    labels = torch.from_numpy(dataset.train.labels)
    images = to_unit_range(torch.from_numpy(dataset.train.images))
    steps = len(images) // recipe.batch_size
    optimizer = AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    schedule = OneCycleLR(optimizer, recipe.lr, total_steps=recipe.epochs * steps, pct_start=0.2)
    for epoch in range(recipe.epochs):
        start = time.perf_counter()
        network.train()
        order = torch.randperm(len(images), generator=generator)[: steps * recipe.batch_size]
        for batch in order.split(recipe.batch_size):
            pixels = augment(images[batch], recipe, generator).contiguous(memory_format=torch.channels_last)
            logits = network(pixels).logits
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
        share, seconds = accuracy(averaged, dataset.validation), time.perf_counter() - start
        print(f"epoch {epoch + 1}/{recipe.epochs} loss {loss:.3f} validation {share:.4f} {seconds:.1f} s")
    return averaged


def accuracy(network: Classifier, split: Split) -> float:
    """Share of a split that a network classifies rightly."""
    seen = FeatureExtractor("candidate", "", network).extract(split.images)
    return float((seen.predictions == split.labels).mean())


def architecture(recipe: Recipe, dataset: ImageDataset) -> dict[str, Any]:
    """Arguments of ``Classifier``."""
    info = dataset.info
    return {
        "channels": info.channels,
        "image_size": info.image_size,
        "num_classes": info.num_classes,
        "widths": recipe.widths,
        "patch": recipe.patch,
    }


def ship(network: Classifier, recipe: Recipe, dataset: ImageDataset, seed: int, folder: Path) -> None:
    """Write the weights and their card."""
    name = dataset.info.name
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    card = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "accuracy": accuracy(network, dataset.test),
        "n_test": len(dataset.test),
        "validation_accuracy": accuracy(network, dataset.validation),
        "dataset": name,
        "dataset_sha256": dataset.sha256,
        "architecture": architecture(recipe, dataset),
        "num_features": network.num_features,
        "command": f"python -m evaluation.features.train {name} --seed {seed}",
        "seed": seed,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("numpy", "torch")},
    }
    path.chmod(0o644)  # safetensors writes for the owner alone
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(f"{path.name}: {path.stat().st_size:,} bytes, {card['accuracy']:.2%} right on the test split")


def main(arguments: list[str]) -> None:
    """Parse the command line, train, write."""
    parser = argparse.ArgumentParser(description="Train a shipped feature extractor.", allow_abbrev=False)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weights and their card")
    options = parser.parse_args(arguments)
    module = importlib.import_module(f"datamodules.{options.name}")
    dataset = module.load(module.Config())
    recipe = RECIPES[options.name]
    options.out.mkdir(parents=True, exist_ok=True)
    ship(fit(recipe, dataset, options.seed), recipe, dataset, options.seed, options.out)


if __name__ == "__main__":
    main(sys.argv[1:])
