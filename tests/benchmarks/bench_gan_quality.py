"""Quality per FLOP of the GANs of torchgan and torch-mimicry, trained within our budget on our training images.

    pip install --no-deps torchgan torch-mimicry
    python -m tests.benchmarks.bench_gan_quality FOLDER --implementation torchgan [--model dcgan] [--budget 5e13]
    python -m tests.benchmarks.bench_gan_quality FOLDER --implementation mimicry --model sngan --width 32
    python run.py evaluate FOLDER/samples.npz --reference fashion_mnist      the same images at the whole exam

Networks, losses, steps and recipes are theirs (``gan_peers.py``); images, their order and the count of FLOPs are ours:
all updates of both networks, with the gradients of gradients of a penalty. Options that are not given are those of the
package's own recipe, so that its best configuration can be searched for. It has no average of weights and samples with
the running statistics of its batch norms. A started folder is gone on with; images that exist are scored.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules import fashion_mnist
from datamodules.module import stream_indices
from evaluation.metrics import frechet_distance, precision_recall
from experiments.seeds import axis_seed
from experiments.training import seed_libraries
from models.base import to_float, to_uint8, warmup_cosine
from models.flops import FlopCounter
from tests.benchmarks.bench_diffusion_quality import (
    BATCH,
    IMAGE_SIZE,
    NUM_CLASSES,
    SAVES,
    exam_features,
    keep_recipe,
    save_state,
    say,
    write_images,
)
from tests.benchmarks.gan_peers import MODELS, OWN, Batch, Peer, Recipe, peer_of

# Shares of the learning rate at a share of the budget; "linear" is mimicry's.
DECAYS = {"none": lambda progress: 1.0, "linear": lambda progress: 1.0 - progress, "cosine": warmup_cosine}


def step_flops(recipe: Recipe) -> float:
    """Counted FLOPs of one step: one update of the generator, ``critic_steps`` of the discriminator."""
    peer, n = peer_of(recipe), recipe.batch_size
    batch = torch.zeros(n, 1, IMAGE_SIZE, IMAGE_SIZE), torch.arange(n) % NUM_CLASSES
    with FlopCounter() as counter:
        peer.step([batch] * recipe.critic_steps)
    return float(counter.get_total_flops())


class Run:
    """A recipe in training: networks, optimisers and the number of steps that were made."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder, self.path = recipe, folder, folder / "checkpoint.pt"
        self.step, self.seconds, self.flops = 0, 0.0, step_flops(recipe)
        self.total = int(recipe.budget / self.flops)
        if self.total < 1:
            raise SystemExit(f"one step takes {self.flops:.3g} FLOPs, more than the budget of {recipe.budget:.3g}")
        seed_libraries(axis_seed(recipe.seed, "initialisation"))
        self.peer: Peer = peer_of(recipe)

    def load(self) -> None:
        """Go on where a former run stopped."""
        if self.path.is_file():
            state = torch.load(self.path, weights_only=True)
            self.step, self.seconds = state.pop("step"), state.pop("seconds")
            self.peer.load(state)

    def save(self) -> None:
        """Write all of it, at once."""
        save_state(self.path, self.peer.state() | {"step": self.step, "seconds": self.seconds})

    def advance(self, batches: list[Batch]) -> tuple[float, float]:
        """One step; noise and learning rates are functions of the step."""
        started = time.perf_counter()
        seed_libraries(axis_seed(self.recipe.seed, "training noise", self.step))
        self.peer.set_rates(DECAYS[self.recipe.decay](self.step / self.total))
        losses = self.peer.step(batches)
        self.step += 1
        self.seconds += time.perf_counter() - started
        if not all(map(math.isfinite, losses)):
            raise SystemExit("the losses of generator and discriminator are {:g} and {:g} at step {:,}; lower the rates"
                             .format(*losses, self.step))
        return losses


def train(recipe: Recipe, folder: Path) -> Run:
    """Train within the budget, going on with what the folder holds."""
    data, run = fashion_mnist.load(fashion_mnist.Config()).train, Run(recipe, folder)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    run.load()
    sizes = [sum(p.numel() for p in network.parameters()) for network in (run.peer.generator, run.peer.discriminator)]
    say(folder, f"{sizes[0]:,} + {sizes[1]:,} parameters, {run.flops / 1e9:.2f} GFLOP a step, {run.total:,} steps of "
                f"{recipe.critic_steps} x {recipe.batch_size} images, {run.step:,} made")
    order, losses, every = axis_seed(recipe.seed, "data order"), [], max(1, run.total // SAVES)
    taken = recipe.critic_steps * recipe.batch_size
    while run.step < run.total:
        rows = torch.from_numpy(stream_indices(len(images), run.step * taken, (run.step + 1) * taken, order))
        losses.append(run.advance([(to_float(images[part]), labels[part]) for part in rows.split(recipe.batch_size)]))
        if run.step % every == 0 or run.step == run.total:
            means = " and ".join(f"{loss:.4f}" for loss in np.mean(losses, axis=0))
            say(folder, f"step {run.step:,}: losses {means}, {run.seconds:,.0f} s")
            run.save()
            losses = []
    return run


@torch.inference_mode()
def sample(run: Run, n: int) -> tuple[Tensor, Tensor | None]:
    """n images, uint8, and their labels, every class as often, where the model knows classes."""
    run.peer.generator.eval()
    labels, images = torch.arange(n) % NUM_CLASSES, []
    for i, part in enumerate(labels.split(BATCH)):
        seed_libraries(axis_seed(run.recipe.seed, "samples", i))
        images.append(to_uint8(run.peer.draw(part)))
    return torch.cat(images), labels if run.peer.conditional else None


def images_of(run: Run, n: int) -> Path:
    """The file of samples, made unless it exists."""
    path = run.folder / f"samples{'' if n == 10_000 else f'-n-{n}'}.npz"
    if not path.is_file():
        started = time.perf_counter()
        write_images(path, *sample(run, n))
        say(run.folder, f"{path.name}: {n / (time.perf_counter() - started):.1f} images/s")
    return path


def options_of(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path)
    add("--implementation", choices=tuple(OWN), required=True)
    add("--model", help="; ".join(f"{name}: {', '.join(models)}" for name, models in MODELS.items()))
    add("--budget", type=float, default=5e13, help="training FLOPs of both networks")
    add("--width", type=int, help="of the generator: its step_channels (32) or ngf (256)")
    add("--width-ratio", type=float, help="the discriminator's width over that of the generator (1 or 0.5)")
    add("--latent-dim", type=int, help="100 or 128")
    add("--lr", type=float, help="of the generator (1e-4 or 2e-4)")
    add("--lr-ratio", type=float, help="the discriminator's rate over that of the generator (3 or 1)")
    add("--beta-1", type=float, help="of Adam (0.5 or 0)")
    add("--beta-2", type=float, help="of Adam (0.999 or 0.9)")
    add("--decay", choices=tuple(DECAYS), help="of the rates (none or linear)")
    add("--critic-steps", type=int, help="updates of the discriminator for one of the generator (1 or 5)")
    add("--batch-size", type=int, help="of an update (64)")
    add("--seed", type=int, default=0)
    add("--images", type=int, default=10_000)
    return parser.parse_args(argv)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """What of the command line decides the weights; a folder has one recipe."""
    given = {name: getattr(options, name) for name in Recipe.__dataclass_fields__}
    recipe = Recipe(**OWN[options.implementation] | {name: value for name, value in given.items() if value is not None})
    if recipe.model not in MODELS[recipe.implementation]:
        allowed = ", ".join(MODELS[recipe.implementation])
        raise SystemExit(f"--model {recipe.model} is none of {recipe.implementation}; allowed: {allowed}")
    for name in ("width", "latent_dim", "critic_steps", "batch_size"):
        if getattr(recipe, name) < 1:
            raise SystemExit(f"--{name.replace('_', '-')} must be at least 1, not {getattr(recipe, name)}")
    keep_recipe(recipe, options.folder)
    return recipe


def main(argv: list[str]) -> None:
    """Train, sample and score."""
    options = options_of(argv)
    path = images_of(train(recipe_of(options), options.folder), options.images)
    with np.load(path) as file:
        features = exam_features(file["images"])
    precision, recall = precision_recall(*features)
    say(options.folder, f"{path.name}: fd_fashion_mnist {frechet_distance(*features):.4f}, precision {precision:.4f}, "
                        f"recall {recall:.4f} with n = {len(features[1]):,}")


if __name__ == "__main__":
    main(sys.argv[1:])
