"""Our diffusion preset beside diffusers with as many parameters: sampling, training, and what Lightning costs.

    python -m tests.benchmarks.bench_diffusion_speed [sampling] [training] [--repeats 5] [--batch 64] [--num-steps 20]

The peer is diffusers' UNet2DModel at 28x28 with its defaults (two blocks a level, labels as classes), driven as its
examples do: EDMDPMSolverMultistepScheduler in a plain loop, and for training noise of DDPMScheduler, AdamW and
EMAModel. Both have the same sampler, steps, batch and threads; training is measured a third time, our own step in a
bare loop. Weights are untrained, which changes no operation. Sides take turns; medians, with the span of the repeats.
The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import models
from datamodules.base import DatasetInfo
from datamodules.module import StepDataModule, stream_indices
from evaluation.speed import timed
from experiments.discovery import preset_module
from experiments.training import StagePlan, plan_stage, quiet_lightning
from models.base import GenerativeModel, Stage, to_float, to_uint8, warmup_cosine
from models.flops import FlopCounter
from tests.benchmarks.bench_training import WARM_UP, Clock, fit, training_data

CHANNELS, GROUPS = (24, 24, 40), 8  # of the peer
TOLERANCE = 0.05  # of the number of parameters
# Least ratio of our rate to the other's, and the largest share of time that Lightning's loop may add.
BARS = {"sampling": 1.5, "training": 1.5}
MOST_OVERHEAD = 0.05
OURS, PEER, BARE = "ours", "diffusers", "ours, bare loop"

Timing = Callable[[], float]
"""Runs a side once and returns its images per second."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: rates of the repeats, FLOPs of an image."""

    task: str
    name: str
    parameters: int
    flops: float
    rates: list[float]

    @property
    def rate(self) -> float:
        """Median of the images per second."""
        return median(self.rates)


def take_turns(sides: dict[str, Timing], repeats: int) -> dict[str, list[float]]:
    """Rates of every side, the order turned round at every repeat; each runs once before anything counts."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for measure in sides.values():
        measure()
    for i in range(repeats):
        for name in list(sides)[:: 1 if i % 2 == 0 else -1]:
            rates[name].append(sides[name]())
    return rates


# The two networks.


def our_model(info: DatasetInfo) -> GenerativeModel:
    """The preset, untrained."""
    shape = (info.channels, info.image_size, info.image_size)
    arguments = asdict(preset_module("diffusion").preset(info))
    return models.model_class("diffusion")(image_shape=shape, num_classes=info.num_classes, **arguments)


def peer_network(info: DatasetInfo, ours: GenerativeModel, channels_last: bool) -> nn.Module:
    """UNet2DModel with self-attention at the lowest of three levels, labels and "no label" as classes."""
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=info.image_size, in_channels=info.channels, out_channels=info.channels,
        block_out_channels=CHANNELS, norm_num_groups=GROUPS,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), num_class_embeds=info.num_classes + 1,
    )
    difference = parameters(network) / parameters(ours) - 1
    if abs(difference) > TOLERANCE:
        raise SystemExit(f"the networks differ by {difference:+.1%} of the parameters; choose CHANNELS anew")
    return network.to(memory_format=torch.channels_last) if channels_last else network


def parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def counted(call: Callable[[], Any]) -> float:
    """FLOPs of a call."""
    with FlopCounter() as counter:
        call()
    return float(counter.get_total_flops())


# Sampling.


def our_sampling(model: GenerativeModel, batch: int, num_steps: int) -> Callable[[], Tensor]:
    """A call that draws a batch."""
    labels, generator = torch.arange(batch) % model.num_classes, torch.Generator().manual_seed(0)
    options = {"sampler": "dpmpp_2m", "num_steps": num_steps, "guidance_scale": 1.0}
    return lambda: model.sample(batch, condition=labels, generator=generator, **options).images


def peer_sampling(network: nn.Module, info: DatasetInfo, batch: int, num_steps: int) -> Callable[[], Tensor]:
    """The same by a scheduler, as diffusers' pipelines do it."""
    from diffusers import EDMDPMSolverMultistepScheduler

    scheduler, labels = EDMDPMSolverMultistepScheduler(), torch.arange(batch) % info.num_classes
    shape, generator = (batch, info.channels, info.image_size, info.image_size), torch.Generator().manual_seed(0)

    @torch.inference_mode()
    def draw() -> Tensor:
        scheduler.set_timesteps(num_steps)
        x = torch.randn(shape, generator=generator) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t), t, class_labels=labels).sample
            x = scheduler.step(output, t, x).prev_sample
        return to_uint8(x)

    return draw


def bench_sampling(info: DatasetInfo, options: argparse.Namespace) -> list[Side]:
    """Both samplers in turns."""
    ours = our_model(info).eval()
    peer = peer_network(info, ours, options.peer_channels_last).eval()
    calls = {
        OURS: our_sampling(ours, options.batch, options.num_steps),
        PEER: peer_sampling(peer, info, options.batch, options.num_steps),
    }
    sizes = {OURS: parameters(ours), PEER: parameters(peer)}
    rates = take_turns({name: lambda c=call: options.batch / timed(c) for name, call in calls.items()}, options.repeats)
    return [Side("sampling", n, sizes[n], counted(calls[n]) / options.batch, rates[n]) for n in calls]


# Training.


def batches(columns: dict[str, Tensor], size: int, steps: int) -> list[dict[str, Tensor]]:
    """The batches of a run, in the runner's order."""
    rows = torch.from_numpy(stream_indices(len(columns["image"]), 0, size * steps, 0)).split(size)
    return [{name: column[part] for name, column in columns.items()} for part in rows]


def under_lightning(stage: Stage, columns: dict[str, Tensor], plan: StagePlan) -> Timing:
    """Images per second of the real loop, after its first steps."""
    def run() -> float:
        clock = Clock()
        data = StepDataModule(columns, batch_size=plan.batch_size, steps=plan.steps, chunk=plan.steps, seed=0)
        fit(stage, data, plan, clock)
        return (plan.steps - WARM_UP) * plan.batch_size / (clock.times[plan.steps] - clock.times[WARM_UP])

    return run


def timed_loop(step: Callable[[int], None], plan: StagePlan) -> Timing:
    """Images per second of a plain loop over steps, after the first of them."""
    def run() -> float:
        for i in range(WARM_UP):
            step(i)
        seconds = timed(lambda: [step(i) for i in range(WARM_UP, plan.steps)])
        return (plan.steps - WARM_UP) * plan.batch_size / seconds

    return run


def bare_step(stage: Stage, columns: dict[str, Tensor], plan: StagePlan) -> Callable[[int], None]:
    """Our step without Lightning: the same loss, gradients, optimiser, moving average and schedule."""
    optimizer, data = stage.configure_optimizers(), batches(columns, plan.batch_size, plan.steps)
    stage.quiet = True

    def step(i: int) -> None:
        stage.progress = (i + 0.5) / plan.steps
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * warmup_cosine(stage.progress)
        optimizer.zero_grad()
        stage.training_step(data[i], i).backward()
        optimizer.step()
        stage.ema.update(stage.network)

    return step


def peer_step(
    network: nn.Module, info: DatasetInfo, columns: dict[str, Tensor], plan: StagePlan
) -> Callable[[int], None]:
    """diffusers' examples/unconditional_image_generation/train_unconditional.py, with labels."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    optimizer, data = torch.optim.AdamW(network.parameters(), lr=1e-4), batches(columns, plan.batch_size, plan.steps)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps)
    noise_scheduler, ema = DDPMScheduler(), EMAModel(network.parameters(), use_ema_warmup=True)

    def step(i: int) -> None:
        x_0, n = to_float(data[i]["image"]), plan.batch_size
        dropped = torch.rand(n) < 0.1
        labels = torch.where(dropped, info.num_classes, data[i]["label"])
        eps, t = torch.randn_like(x_0), torch.randint(noise_scheduler.config.num_train_timesteps, (n,))
        found = network(noise_scheduler.add_noise(x_0, eps, t), t, class_labels=labels).sample
        F.mse_loss(found, eps).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ema.step(network.parameters())

    return step


def bench_training(info: DatasetInfo, columns: dict[str, Tensor], options: argparse.Namespace) -> list[Side]:
    """Our step under Lightning and in a bare loop, and the peer's, in turns."""
    quiet_lightning()
    ours, bare = our_model(info), our_model(info)
    peer = peer_network(info, ours, options.peer_channels_last).train()
    plan = replace(plan_stage(our_model(info).stages()[0], columns, 0.0), steps=WARM_UP + options.train_steps)
    steps = {
        BARE: bare_step(bare.stages()[0], columns, plan),
        PEER: peer_step(peer, info, columns, plan),
    }
    sides = {OURS: under_lightning(ours.stages()[0], columns, plan)}
    rates = take_turns(sides | {name: timed_loop(step, plan) for name, step in steps.items()}, options.repeats)
    flops = {OURS: plan.step_flops} | {name: counted(lambda s=step: s(0)) for name, step in steps.items()}
    sizes = {OURS: parameters(ours), BARE: parameters(bare), PEER: parameters(peer)}
    return [Side("training", n, sizes[n], flops[n] / plan.batch_size, rates[n]) for n in (OURS, BARE, PEER)]


# What is printed.


def table_of(sides: list[Side]) -> Table:
    """One row per side."""
    names = ("task", "side", "parameters", "MFLOP/image", "images/s", "least", "most")
    table = Table(*names, box=SIMPLE_HEAD)
    for side in sides:
        rates = (f"{rate:,.1f}" for rate in (side.rate, min(side.rates), max(side.rates)))
        table.add_row(side.task, side.name, f"{side.parameters:,}", f"{side.flops / 1e6:,.1f}", *rates)
    return table


def verdicts(sides: list[Side]) -> list[str]:
    """A sentence for every ratio, with its bar."""
    rate, said = {(side.task, side.name): side.rate for side in sides}, []
    for task, bar in BARS.items():
        if (task, OURS) in rate:
            ratio = rate[task, OURS] / rate[task, PEER]
            word = "met" if ratio >= bar else "not met"
            said.append(f"{task}: {ratio:.2f} times the images per second of diffusers; bar {bar:g} {word}")
    if ("training", BARE) in rate:
        overhead = rate["training", BARE] / rate["training", OURS] - 1
        word = "met" if overhead <= MOST_OVERHEAD else "not met"
        said.append(f"Lightning's loop adds {overhead:+.1%} to the time of a step; bar {MOST_OVERHEAD:.0%} {word}")
    return said


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["sampling", "training"], help="sampling, training or both")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="images sampled at once")
    parser.add_argument("--num-steps", type=int, default=20, help="of DPM-Solver++(2M)")
    parser.add_argument("--train-steps", type=int, default=50, help="timed steps of a repeat, at most 150")
    parser.add_argument("--peer-channels-last", action="store_true", help="which its examples do not use")
    options = parser.parse_args()
    if set(options.what) - {"sampling", "training"} or options.repeats < 1 or not 1 <= options.train_steps <= 150:
        parser.error("sampling and training can be measured, from 1 repeat on and with 1 to 150 --train-steps")
    info, columns, source = training_data("fashion_mnist")
    sides = bench_sampling(info, options) if "sampling" in options.what else []
    sides += bench_training(info, columns, options) if "training" in options.what else []
    console = Console(width=110)
    console.print(f"{source}, {options.repeats} repeats, {torch.get_num_threads()} threads", highlight=False)
    console.print(table_of(sides))
    for line in verdicts(sides):
        console.print(line, highlight=False)


if __name__ == "__main__":
    main()
