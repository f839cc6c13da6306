"""Quality per FLOP of denoising-diffusion-pytorch (2.3.4), trained within our budget on our training images.

    python -m tests.benchmarks.bench_diffusion_quality FOLDER [--budget 5e13] [--dim 20 --mults 1 2 4] [--conditional]
    python run.py evaluate FOLDER/ddim-50.npz --reference fashion_mnist      the same images at the whole exam

Its U-Net, its GaussianDiffusion and its Trainer's recipe: Adam (0.9, 0.99), gradients clipped at 1, the average of
ema_pytorch; images, their order and the count of FLOPs are ours. What the package leaves to its users are options,
so that its best configuration can be searched for; no picture is mirrored, clothes have a left and a right.
``--conditional`` takes ``classifier_free_guidance.py``. A started folder is gone on with; images that exist are scored.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules import fashion_mnist
from datamodules.module import stream_indices
from evaluation.atomic import write_atomic
from evaluation.features.extractors import load_extractor
from evaluation.metrics import frechet_distance
from experiments.seeds import axis_seed
from experiments.training import seed_libraries
from models.base import to_uint8, warmup_cosine
from models.flops import FlopCounter

IMAGE_SIZE, NUM_CLASSES = 28, 10
OBJECTIVES = {"v": "pred_v", "eps": "pred_noise", "x_0": "pred_x0"}
SAVES = 20  # checkpoints of a run
BATCH = 500  # images sampled at once


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights."""

    budget: float
    conditional: bool
    dim: int
    mults: tuple[int, ...]
    pred: str
    schedule: str
    min_snr: bool
    lr: float
    decay: str
    batch_size: int
    ema_decay: float
    ema_every: int
    label_dropout: float
    seed: int


def say(folder: Path, line: str) -> None:
    """Print a line and keep it."""
    print(line, flush=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%H:%M:%S')} {line}\n")


def keep_recipe(recipe: Any, folder: Path) -> None:
    """Write a recipe, a dataclass, into a folder, which has one only."""
    path, text = folder / "recipe.json", json.dumps(asdict(recipe), indent=1)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{folder} holds a run of another recipe; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.encode())


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, at once."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


# The package.


def diffusion_of(recipe: Recipe, steps: int | None = None, eta: float | None = None) -> nn.Module:
    """Its diffusion, to be sampled in ``steps`` steps with its own eta if none is given."""
    options: dict[str, Any] = {
        "image_size": IMAGE_SIZE, "objective": OBJECTIVES[recipe.pred], "beta_schedule": recipe.schedule,
        "min_snr_loss_weight": recipe.min_snr, "sampling_timesteps": steps,
    } | ({} if eta is None else {"ddim_sampling_eta": eta})
    if recipe.conditional:
        return conditional_diffusion(recipe, options)
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    return GaussianDiffusion(Unet(recipe.dim, dim_mults=recipe.mults, channels=1), **options)


def conditional_diffusion(recipe: Recipe, options: dict[str, Any]) -> nn.Module:
    """The same with labels; at a scale of 1 the package returns one estimate where its caller unpacks two."""
    from denoising_diffusion_pytorch import classifier_free_guidance as guided

    class Unet(guided.Unet):
        def forward_with_cond_scale(self, *args: Any, cond_scale: float = 1.0, **kwargs: Any) -> Any:
            if cond_scale != 1:
                return super().forward_with_cond_scale(*args, cond_scale=cond_scale, **kwargs)
            kwargs.pop("rescaled_phi", None)
            return (estimate := self.forward(*args, cond_drop_prob=0.0, **kwargs)), estimate

    unet = Unet(
        recipe.dim, num_classes=NUM_CLASSES, cond_drop_prob=recipe.label_dropout, dim_mults=recipe.mults, channels=1
    )
    return guided.GaussianDiffusion(unet, **options)


def loss_of(diffusion: nn.Module, recipe: Recipe, images: Tensor, labels: Tensor) -> Tensor:
    """Its loss of uint8 images (B, 1, 28, 28), which it takes in [0, 1]."""
    x = images.float() / 255
    return diffusion(x, classes=labels) if recipe.conditional else diffusion(x)


def step_flops(recipe: Recipe) -> float:
    """Counted FLOPs of one training step."""
    diffusion, n = diffusion_of(recipe), recipe.batch_size
    images = torch.zeros(n, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    with FlopCounter() as counter:
        loss_of(diffusion, recipe, images, torch.arange(n) % NUM_CLASSES).backward()
    return float(counter.get_total_flops())


# Training.


class Run:
    """A recipe in training: weights, average, optimiser and the number of steps that were made."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        from ema_pytorch import EMA

        self.recipe, self.folder, self.step, self.seconds = recipe, folder, 0, 0.0
        seed_libraries(axis_seed(recipe.seed, "initialisation"))
        self.diffusion = diffusion_of(recipe)
        self.ema = EMA(self.diffusion, beta=recipe.ema_decay, update_every=recipe.ema_every)
        self.optimizer = torch.optim.Adam(self.diffusion.parameters(), lr=recipe.lr, betas=(0.9, 0.99))
        self.flops = step_flops(recipe)
        self.total = max(1, int(recipe.budget / self.flops))

    @property
    def path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def load(self) -> None:
        """Go on where a former run stopped."""
        if self.path.is_file():
            state = torch.load(self.path, weights_only=True)
            self.step, self.seconds = state["step"], state["seconds"]
            for name in ("diffusion", "ema", "optimizer"):
                getattr(self, name).load_state_dict(state[name])

    def save(self) -> None:
        """Write all of it, at once."""
        names = ("diffusion", "ema", "optimizer")
        state = {"step": self.step, "seconds": self.seconds} | {n: getattr(self, n).state_dict() for n in names}
        save_state(self.path, state)

    def advance(self, images: Tensor, labels: Tensor) -> float:
        """One step of its Trainer; noise and learning rate are functions of the step."""
        recipe, started = self.recipe, time.perf_counter()
        seed_libraries(axis_seed(recipe.seed, "training noise", self.step))
        factor = warmup_cosine((self.step + 0.5) / self.total) if recipe.decay == "cosine" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        loss = loss_of(self.diffusion, recipe, images, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()
        self.step += 1
        self.seconds += time.perf_counter() - started
        return float(loss.detach())


def train(recipe: Recipe, folder: Path) -> Run:
    """Train within the budget, going on with what the folder holds."""
    data, run = fashion_mnist.load(fashion_mnist.Config()).train, Run(recipe, folder)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    run.load()
    parameters = sum(p.numel() for p in run.diffusion.model.parameters())
    say(folder, f"{parameters:,} parameters, {run.flops / 1e9:.2f} GFLOP a step, {run.total:,} steps of "
                f"{recipe.batch_size} images, {run.step:,} made")
    order, losses, every = axis_seed(recipe.seed, "data order"), [], max(1, run.total // SAVES)
    while run.step < run.total:
        start = run.step * recipe.batch_size
        rows = torch.from_numpy(stream_indices(len(images), start, start + recipe.batch_size, order))
        losses.append(run.advance(images[rows], labels[rows]))
        if run.step % every == 0 or run.step == run.total:
            say(folder, f"step {run.step:,}: loss {np.mean(losses):.4f}, {run.seconds:,.0f} s")
            run.save()
            losses = []
    return run


# Sampling and scoring.


@torch.inference_mode()
def sample(run: Run, n: int, steps: int, eta: float | None, guidance: float) -> tuple[Tensor, Tensor]:
    """n images of its average with its own sampler, uint8, and their labels, every class as often."""
    diffusion = diffusion_of(run.recipe, steps, eta)
    diffusion.load_state_dict(run.ema.ema_model.state_dict())
    diffusion.eval()
    labels, images = torch.arange(n) % NUM_CLASSES, []
    for i, part in enumerate(labels.split(BATCH)):
        seed_libraries(axis_seed(run.recipe.seed, "samples", i))
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar for every batch
            if run.recipe.conditional:
                found = diffusion.sample(part, cond_scale=guidance, rescaled_phi=0.0)
            else:
                found = diffusion.sample(batch_size=len(part))
        images.append(to_uint8(2 * found - 1))
        print(f"{sum(map(len, images)):,} of {n:,} images", flush=True)
    return torch.cat(images), labels


def write_images(path: Path, images: Tensor, labels: Tensor | None) -> None:
    """The file that ``run.py evaluate`` reads."""
    columns = {"images": images.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **columns)
    os.replace(temporary, path)


def exam_features(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of test images and of those given, as many of both as there are."""
    extractor, real = load_extractor("fashion_mnist"), fashion_mnist.load(fashion_mnist.Config()).test.images
    return extractor.extract(real[: len(images)]).features, extractor.extract(images[: len(real)]).features


def score(images: np.ndarray) -> float:
    """fd_fashion_mnist against the test split."""
    return frechet_distance(*exam_features(images))


def images_of(run: Run, options: argparse.Namespace) -> Path:
    """The file of samples, made unless it exists."""
    kind = "ancestral" if options.steps == 1000 else f"ddim-{options.steps}"
    eta = "" if options.eta is None else f"-eta-{options.eta:g}"
    scale = "" if options.guidance == 1 else f"-guidance-{options.guidance:g}"
    count = "" if options.images == 10_000 else f"-n-{options.images}"
    path = options.folder / f"{kind}{eta}{scale}{count}.npz"
    if not path.is_file():
        started = time.perf_counter()
        images, labels = sample(run, options.images, options.steps, options.eta, options.guidance)
        write_images(path, images, labels if run.recipe.conditional else None)
        say(options.folder, f"{path.name}: {len(images) / (time.perf_counter() - started):.1f} images/s")
    return path


def options_of(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget", type=float, default=5e13, help="training FLOPs")
    parser.add_argument("--conditional", action="store_true", help="the U-Net that takes labels")
    parser.add_argument("--dim", type=int, default=20, help="20 with the mults 1 2 4 has about our parameters")
    parser.add_argument("--mults", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pred", choices=OBJECTIVES, default="v")
    parser.add_argument("--schedule", choices=("cosine", "sigmoid", "linear"), default="cosine")
    parser.add_argument("--min-snr", action="store_true", help="its min_snr_loss_weight")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--decay", choices=("cosine", "none"), default="cosine", help="its Trainer has none")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--ema-decay", type=float, default=0.995)
    parser.add_argument("--ema-every", type=int, default=10)
    parser.add_argument("--label-dropout", type=float, default=0.1, help="with --conditional")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=[50], help="of DDIM; 1000 is the whole chain")
    parser.add_argument("--eta", type=float, help="of DDIM (default: the package's, 0, and 1 with labels)")
    parser.add_argument("--guidance", type=float, default=1.0, help="with --conditional")
    parser.add_argument("--images", type=int, default=10_000)
    return parser.parse_args(argv)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """What of the command line decides the weights; a folder has one recipe."""
    if options.conditional and options.schedule == "sigmoid":
        raise SystemExit("its classifier_free_guidance.py has no sigmoid schedule")
    fields = {name: getattr(options, name) for name in Recipe.__dataclass_fields__}
    recipe = Recipe(**fields | {"mults": tuple(options.mults)})
    keep_recipe(recipe, options.folder)
    return recipe


def main(argv: list[str]) -> None:
    """Train, sample and score."""
    options = options_of(argv)
    run = train(recipe_of(options), options.folder)
    for steps in options.steps:
        path = images_of(run, argparse.Namespace(**vars(options) | {"steps": steps}))
        with np.load(path) as file:
            found = score(file["images"])
        say(options.folder, f"{path.name}: fd_fashion_mnist {found:.4f} with n = {options.images:,}")


if __name__ == "__main__":
    main(sys.argv[1:])
