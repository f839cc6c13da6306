"""Quality per FLOP of the VQ-VAE of pythae (0.1.2), trained within our budget on our training images.

    pip install --no-deps pythae imageio     it also asks for ``dataclasses``, a backport that nothing needs
    python -m tests.benchmarks.bench_vqvae_quality FOLDER [--budget 5e13] [--network resnet] [--sampler pixelcnn]
    python run.py evaluate FOLDER/pixelcnn.npz --reference fashion_mnist     the same images at the whole exam

Its VQVAE, its networks for MNIST (28 x 28, no padding), its samplers and its trainer's recipe (Adam, batches of 64);
images, order, loop and count of FLOPs are ours. It has no labels. ``conv`` gives an image one code, ``resnet`` 4 x 4,
flattened for GMM, MAF and IAF (``pythae_vqvae.py``). Encoding counts as its samplers do it, with the decoder; the fit
of the mixture, scikit-learn's, does not. Its PixelCNN samples with batch norms in training mode, which is kept unless
``--eval-norms``. A started folder is gone on with; two that differ in the sampler alone can share ``vqvae.pt``.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules import fashion_mnist
from datamodules.module import stream_indices
from experiments.seeds import axis_seed
from experiments.training import seed_libraries
from models.base import to_uint8, warmup_cosine
from models.flops import FlopCounter
from tests.benchmarks.bench_diffusion_quality import (
    BATCH,
    IMAGE_SIZE,
    SAVES,
    keep_recipe,
    save_state,
    say,
    score,
    write_images,
)
from tests.benchmarks.pythae_vqvae import FIRST, Recipe, as_data, encode, network_of, sampler_of, vqvae_of

SAMPLERS = ("pixelcnn", "gmm", "maf", "iaf")


# The budget.


@dataclass(frozen=True)
class Job:
    """A network to be trained with its ``loss`` of a batch of rows."""

    name: str
    network: nn.Module
    loss: Callable[[Tensor], Tensor]
    lr: float
    batch_size: int
    identity: dict[str, Any]


def vqvae_job(recipe: Recipe, vqvae: Any) -> Job:
    """The first stage, of uint8 images."""
    identity = {name: getattr(recipe, name) for name in (*FIRST, "seed")}
    return Job("vqvae", vqvae, lambda x: vqvae(as_data(x)).loss, recipe.lr, recipe.batch_size, identity)


def sampler_job(recipe: Recipe, sampler: Any) -> Job:
    """The second, of what ``encode`` gives."""
    network, lr, batch_size = network_of(sampler), recipe.sampler_lr, recipe.sampler_batch_size
    return Job(recipe.sampler, network, lambda x: network({"data": x}).loss, lr, batch_size, asdict(recipe))


@dataclass(frozen=True)
class Plan:
    """Steps of both stages, images encoded for the second, and what a step or an image costs in counted FLOPs."""

    steps: int
    encoded: int
    sampler_steps: int
    step_flops: float
    image_flops: float
    sampler_step_flops: float

    @property
    def flops(self) -> tuple[float, float, float]:
        """Of the first stage, of encoding and of the second stage."""
        second = self.sampler_steps * self.sampler_step_flops
        return self.steps * self.step_flops, self.encoded * self.image_flops, second


def step_flops(job: Job, rows: Tensor) -> float:
    """Counted FLOPs of one training step on these rows."""
    job.network.train()
    with FlopCounter() as counter:
        job.loss(rows).backward()
    return float(counter.get_total_flops())


def plan_of(recipe: Recipe, n: int) -> Plan:
    """The budget of ``recipe`` in steps; every one of n images is encoded once at most."""
    vqvae = vqvae_of(recipe)
    images = torch.zeros(max(recipe.batch_size, recipe.sampler_batch_size), 1, IMAGE_SIZE, IMAGE_SIZE).byte()
    step = step_flops(vqvae_job(recipe, vqvae), images[: recipe.batch_size])
    sampler = sampler_of(recipe, vqvae)
    with FlopCounter() as counter:
        rows = encode(recipe, sampler, images)
    image, share = counter.get_total_flops() / len(images), recipe.budget * recipe.sampler_share
    if recipe.sampler == "gmm":
        encoded = min(n, int(share / image))
        return Plan(max(1, int((recipe.budget - encoded * image) / step)), encoded, 0, step, image, 0.0)
    size = recipe.sampler_batch_size
    cost = step_flops(sampler_job(recipe, sampler), rows[:size])
    seen = share / (cost / size + image)
    steps = max(1, int((seen if seen <= n else (share - n * image) / (cost / size)) / size))
    return Plan(max(1, int((recipe.budget - share) / step)), min(n, steps * size), steps, step, image, cost)


# Training.


class Run:
    """A job in training: weights, optimiser and the number of steps that were made."""

    def __init__(self, job: Job, recipe: Recipe, folder: Path, total: int) -> None:
        self.job, self.recipe, self.total, self.step, self.seconds = job, recipe, total, 0, 0.0
        self.path, self.identity = folder / f"{job.name}.pt", job.identity | {"steps": total}
        self.optimizer = torch.optim.Adam(job.network.parameters(), lr=job.lr)

    def load(self) -> None:
        """Go on where a former run stopped."""
        if self.path.is_file():
            state = torch.load(self.path, weights_only=True)
            if state["identity"] != self.identity:
                raise SystemExit(f"{self.path} was trained with other options; remove it or name another folder")
            self.step, self.seconds = state["step"], state["seconds"]
            self.job.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])

    def save(self) -> None:
        """Write all of it, at once."""
        state = {"identity": self.identity, "step": self.step, "seconds": self.seconds}
        state |= {"network": self.job.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_state(self.path, state)

    def advance(self, rows: Tensor) -> float:
        """One step of its BaseTrainer, which stops at a loss that is no number; the rate is a function of the step."""
        started = time.perf_counter()
        factor = warmup_cosine((self.step + 0.5) / self.total) if self.recipe.decay == "cosine" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.job.lr * factor
        loss = self.job.loss(rows)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        self.seconds += time.perf_counter() - started
        if not math.isfinite(float(loss.detach())):
            raise SystemExit(f"the loss of {self.job.name} is {float(loss):g} at step {self.step:,}; lower its rate")
        return float(loss.detach())


def train(run: Run, data: Tensor) -> Run:
    """All steps of a job on rows of ``data``, going on with what the folder holds."""
    job, folder = run.job, run.path.parent
    run.load()
    job.network.train()
    say(folder, f"{job.name}: {run.total:,} steps of {job.batch_size}, {run.step:,} made")
    order, losses, every = axis_seed(run.recipe.seed, "data order"), [], max(1, run.total // SAVES)
    while run.step < run.total:
        start = run.step * job.batch_size
        losses.append(run.advance(data[stream_indices(len(data), start, start + job.batch_size, order)]))
        if run.step % every == 0 or run.step == run.total:
            say(folder, f"{job.name}, step {run.step:,}: loss {np.mean(losses):.4f}, {run.seconds:,.0f} s")
            run.save()
            losses = []
    job.network.eval()
    return run


def fit(recipe: Recipe, plan: Plan, sampler: Any, images: Tensor, folder: Path) -> float:
    """Fit a sampler to uint8 images, the first of the stream; seconds."""
    started = time.perf_counter()
    if recipe.sampler == "gmm":
        seed_libraries(axis_seed(recipe.seed, "initialisation", "gmm"))
        sampler.fit(images.float() / 255)
        say(folder, f"gmm: {sampler.gmm.means_.shape} means, {sampler.gmm.n_iter_} rounds, FLOPs not counted")
        return time.perf_counter() - started
    rows = encode(recipe, sampler, images)
    if recipe.sampler == "pixelcnn":
        say(folder, f"{len(rows.unique())} of {recipe.num_embeddings} codes are in use")
    seconds = time.perf_counter() - started
    seconds += train(Run(sampler_job(recipe, sampler), recipe, folder, plan.sampler_steps), rows).seconds
    if recipe.sampler != "pixelcnn":
        setattr(sampler, f"{recipe.sampler}_model", sampler.flow_contained_model.flow)
    sampler.is_fitted = True
    return seconds


# Sampling and scoring.


@torch.no_grad()
def sample(recipe: Recipe, sampler: Any, n: int) -> Tensor:
    """n images of its own sampler, uint8."""
    images: list[Tensor] = []
    for i, size in enumerate(len(part) for part in torch.arange(n).split(BATCH)):
        seed_libraries(axis_seed(recipe.seed, "samples", i))
        images.append(to_uint8(2 * sampler.sample(num_samples=size, batch_size=size) - 1))
    return torch.cat(images)


def say_costs(folder: Path, plan: Plan, networks: tuple[nn.Module, nn.Module], seconds: tuple[float, float]) -> None:
    """Parameters, FLOPs and time of both stages."""
    sizes, flops = [sum(p.numel() for p in network.parameters()) for network in networks], plan.flops
    say(folder, f"parameters: {sum(sizes):,} = {sizes[0]:,} + {sizes[1]:,} of the sampler")
    say(folder, f"FLOPs: {sum(flops):.4g} = {flops[0]:.3g} + {flops[1]:.3g} to encode {plan.encoded:,} images "
                f"+ {flops[2]:.3g}")
    say(folder, f"wall seconds: {sum(seconds):,.0f} = {seconds[0]:,.0f} + {seconds[1]:,.0f}")


def run_all(recipe: Recipe, folder: Path, n: int, eval_norms: bool) -> Path:
    """Train both stages, draw n images unless their file exists, and give its path."""
    training_mode = recipe.sampler == "pixelcnn" and not eval_norms
    kind = "-eval-norms" if recipe.sampler == "pixelcnn" and eval_norms else ""
    path = folder / f"{recipe.sampler}{kind}{'' if n == 10_000 else f'-n-{n}'}.npz"
    if path.is_file():
        return path
    data = torch.from_numpy(fashion_mnist.load(fashion_mnist.Config()).train.images)
    plan, order = plan_of(recipe, len(data)), axis_seed(recipe.seed, "data order")
    seed_libraries(axis_seed(recipe.seed, "initialisation"))
    vqvae = vqvae_of(recipe)
    first = train(Run(vqvae_job(recipe, vqvae), recipe, folder, plan.steps), data)
    seed_libraries(axis_seed(recipe.seed, "initialisation", recipe.sampler))
    sampler = sampler_of(recipe, vqvae)
    seconds = fit(recipe, plan, sampler, data[stream_indices(len(data), 0, plan.encoded, order)], folder)
    say_costs(folder, plan, (vqvae, network_of(sampler)), (first.seconds, seconds))
    network_of(sampler).train(training_mode)
    started = time.perf_counter()
    write_images(path, sample(recipe, sampler, n), None)
    say(folder, f"{path.name}: {n / (time.perf_counter() - started):.1f} images/s")
    return path


def options_of(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path)
    add("--budget", type=float, default=5e13, help="training FLOPs of both stages")
    add("--network", choices=("resnet", "conv"), default="resnet")
    add("--num-embeddings", type=int, default=512)
    add("--latent-dim", type=int, default=16)
    add("--commitment", type=float, default=0.25, help="its commitment_loss_factor")
    add("--quantization", type=float, default=1.0, help="its quantization_loss_factor, without --ema")
    add("--ema", action="store_true", help="its use_ema")
    add("--ema-decay", type=float, default=0.99)
    add("--lr", type=float, default=1e-3, help="its trainer's default is 1e-4")
    add("--decay", choices=("cosine", "none"), default="cosine", help="its trainer's default is none")
    add("--batch-size", type=int, default=64)
    add("--sampler", choices=SAMPLERS, default="pixelcnn")
    add("--sampler-share", type=float, default=0.3, help="of the budget; gmm gives back what encoding does not take")
    add("--sampler-lr", type=float, default=1e-3)
    add("--sampler-batch-size", type=int, default=64)
    add("--layers", type=int, default=10, help="of pixelcnn")
    add("--kernel", type=int, default=5, help="of pixelcnn")
    add("--eval-norms", action="store_true", help="pixelcnn samples with the running statistics of its batch norms")
    add("--components", type=int, default=10, help="of gmm")
    add("--blocks", type=int, default=2, help="of maf and iaf")
    add("--hidden-layers", type=int, default=3, help="of a block of maf and iaf")
    add("--hidden", type=int, default=128, help="of maf and iaf")
    add("--flow-norm", action="store_true", help="include_batch_norm of maf and iaf")
    add("--seed", type=int, default=0)
    add("--images", type=int, default=10_000)
    return parser.parse_args(argv)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """What of the command line decides the weights; a folder has one recipe."""
    if not 0 < options.sampler_share < 1:
        raise SystemExit(f"--sampler-share {options.sampler_share:g}: a fraction between 0 and 1")
    recipe = Recipe(**{name: getattr(options, name) for name in Recipe.__dataclass_fields__})
    keep_recipe(recipe, options.folder)
    return recipe


def main(argv: list[str]) -> None:
    """Train, sample and score."""
    options = options_of(argv)
    path = run_all(recipe_of(options), options.folder, options.images, options.eval_norms)
    with np.load(path) as file:
        found = score(file["images"])
    say(options.folder, f"{path.name}: fd_fashion_mnist {found:.4f} with n = {options.images:,}")


if __name__ == "__main__":
    main(sys.argv[1:])
