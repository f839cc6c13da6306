"""One evaluation beside nineteen: the speed of ``gan`` and of ``diffusion`` with as many parameters.

    python -m tests.benchmarks.bench_gan_speed [--rounds 3] [--repeats 5] [--data fashion_mnist]

Both are presets with random weights, which changes no operation; ``diffusion`` samples as its preset says. Parameters
are those that sampling needs; the width of ``gan`` is the one whose number comes closest. The clock is that of the
exam (``evaluation.speed.measure_speed``): latency of one image, and throughput at the best batch size. Sides take
turns; medians over the rounds, with their span. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import models
from datamodules.base import DatasetInfo
from evaluation.record import Speed
from evaluation.speed import measure_speed
from experiments.artifacts import count_parameters
from experiments.discovery import dataset_module, dataset_names, preset_module
from models.base import GenerativeModel

BAR = 10.0  # least ratio of gan to diffusion, of latencies and of throughputs
TOLERANCE = 0.10  # of the number of parameters
WIDTHS = range(8, 257, 8)


def model_of(name: str, info: DatasetInfo, **changed: Any) -> GenerativeModel:
    """A preset, untrained, with other values for some of its fields."""
    shape = (info.channels, info.image_size, info.image_size)
    arguments = asdict(replace(preset_module(name).preset(info), **changed))
    return models.model_class(name)(image_shape=shape, num_classes=info.num_classes, **arguments).eval()


def sampling_parameters(model: GenerativeModel) -> int:
    """Number of parameters that sampling needs."""
    return count_parameters(model).sampling


def pair_of(info: DatasetInfo) -> dict[str, GenerativeModel]:
    """The diffusion preset and the gan whose width gives it about as many parameters."""
    diffusion = model_of("diffusion", info)
    aim, found = sampling_parameters(diffusion), []
    for width in WIDTHS:
        gan = model_of("gan", info, width=width)
        found.append((abs(sampling_parameters(gan) / aim - 1), width))
        if sampling_parameters(gan) > aim:
            break
    difference, width = min(found)
    if difference > TOLERANCE:
        raise SystemExit(f"no width of gan comes within {TOLERANCE:.0%} of {aim:,} parameters; {width} is the closest")
    return {"gan": model_of("gan", info, width=width), "diffusion": diffusion}


def measure(sides: dict[str, GenerativeModel], rounds: int, repeats: int) -> dict[str, list[Speed]]:
    """Speeds of both sides, the order turned round at every round."""
    speeds: dict[str, list[Speed]] = {name: [] for name in sides}
    for i in range(rounds):
        for name in list(sides)[:: 1 if i % 2 == 0 else -1]:
            speeds[name].append(measure_speed(sides[name], seed=i, repeats=repeats))
    return speeds


def spanned(values: list[float]) -> str:
    """Median and span."""
    return f"{median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"


def table_of(sides: dict[str, GenerativeModel], speeds: dict[str, list[Speed]]) -> Table:
    """One row a side."""
    names = ("side", "width", "parameters", "trained", "nfe", "MFLOP/image", "latency ms", "images/s", "batch")
    table = Table(*names, box=SIMPLE_HEAD)
    for name, model in sides.items():
        counts, found = count_parameters(model), speeds[name]
        table.add_row(
            name, str(model.hparams.width), f"{counts.sampling:,}", f"{counts.total:,}", f"{found[0].nfe:g}",
            f"{found[0].flops_per_image / 1e6:,.1f}", spanned([s.latency_ms_p50 for s in found]),
            spanned([s.images_per_second for s in found]), ", ".join(str(s.batch_size) for s in found),
        )
    return table


def verdicts(speeds: dict[str, list[Speed]]) -> list[str]:
    """A sentence for both ratios, with their bar."""
    latency, rate = (
        {name: median(getattr(s, field) for s in found) for name, found in speeds.items()}
        for field in ("latency_ms_p50", "images_per_second")
    )
    ratios = {"latency": latency["diffusion"] / latency["gan"], "throughput": rate["gan"] / rate["diffusion"]}
    return [
        f"{what}: gan is {ratio:.1f} times as fast as diffusion; bar {BAR:g} {'met' if ratio >= BAR else 'not met'}"
        for what, ratio in ratios.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions of a measurement per batch size")
    parser.add_argument("--data", choices=dataset_names(), default="fashion_mnist", help="whose shape images have")
    options = parser.parse_args()
    if min(options.rounds, options.repeats) < 1:
        parser.error("rounds and repeats are counted from 1 on")
    sides = pair_of(dataset_module(options.data).INFO)
    speeds, console = measure(sides, options.rounds, options.repeats), Console(width=130)
    console.print(f"{options.data}, {options.rounds} rounds, {torch.get_num_threads()} threads", highlight=False)
    console.print(table_of(sides, speeds))
    for line in verdicts(speeds):
        console.print(line, highlight=False)


if __name__ == "__main__":
    main()
