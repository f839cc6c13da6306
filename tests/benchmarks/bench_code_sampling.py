"""Drawing codes: the key-value cache beside none, and parallel decoding beside the cache.

    python -m tests.benchmarks.bench_code_sampling [--batch 1 16 64 250] [--repeats 5] [--codes 49]

The priors are those of the presets vqvae and maskgit, with random weights, which changes no operation; the decoder, the
same for all, is left out. Sides take turns; medians, with the span of the repeats. Cached and uncached must draw the
same codes. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from math import isqrt, prod
from statistics import median

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from datamodules.fashion_mnist import INFO
from evaluation.speed import timed
from experiments.presets import maskgit, vqvae
from models.vqvae.masked_prior import MaskedPrior
from models.vqvae.prior import AutoregressivePrior
from tests.models.tiny import randomised

CACHED, UNCACHED, PARALLEL = "cached", "uncached", "parallel"
# Least ratio of the first side's rate to the second's.
BARS = {(CACHED, UNCACHED): 5.0, (PARALLEL, CACHED): 3.0}
CODEBOOK_SIZE = prod(vqvae.preset(INFO).levels)

Draw = Callable[[], Tensor]


def sides(batch: int, num_codes: int) -> dict[str, Draw]:
    """Calls that draw a batch of codes, int64 (batch, num_codes)."""
    one, other = vqvae.preset(INFO), maskgit.preset(INFO)
    shape = {
        "codebook_size": CODEBOOK_SIZE, "num_codes": num_codes, "num_classes": INFO.num_classes, "levels": one.levels,
    }
    grid = (isqrt(num_codes),) * 2
    torch.manual_seed(0)
    serial = randomised(AutoregressivePrior(**shape, dim=one.prior_dim, depth=one.prior_depth), 0.05)
    masked = randomised(MaskedPrior(**shape, dim=other.prior_dim, depth=other.prior_depth, grid=grid), 0.05)
    labels = torch.arange(batch) % INFO.num_classes
    steps, generator = other.num_steps, torch.Generator().manual_seed(1)
    noise = torch.rand(batch, num_codes, dtype=torch.float64, generator=generator)
    more = torch.rand(batch, steps, 2, num_codes, dtype=torch.float64, generator=generator)
    return {
        CACHED: lambda: serial.sample(labels, noise),
        UNCACHED: lambda: serial.sample(labels, noise, cached=False),
        PARALLEL: lambda: masked.sample(labels, more, num_steps=steps, choice_temperature=other.choice_temperature),
    }


@torch.inference_mode()
def rates_of(calls: dict[str, Draw], batch: int, repeats: int) -> dict[str, list[float]]:
    """Images per second of every side, in turns; each runs once before anything counts."""
    if not torch.equal(calls[CACHED](), calls[UNCACHED]()):
        raise SystemExit("the cache changes what is drawn")
    calls[PARALLEL]()
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats):
        for name in list(calls)[:: 1 if i % 2 == 0 else -1]:
            rates[name].append(batch / timed(calls[name]))
    return rates


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64, 250], help="images drawn at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--codes", type=int, default=49, help="per image")
    options = parser.parse_args()
    if min(options.batch) < 1 or options.repeats < 1 or options.codes < 1:
        parser.error("batches, repeats and codes are counted from 1 on")
    table = Table("batch", "side", "images/s", "least", "most", box=SIMPLE_HEAD)
    said = []
    for batch in options.batch:
        rates = rates_of(sides(batch, options.codes), batch, options.repeats)
        for name, values in rates.items():
            table.add_row(str(batch), name, *(f"{v:,.1f}" for v in (median(values), min(values), max(values))))
        for (first, second), bar in BARS.items():
            ratio = median(rates[first]) / median(rates[second])
            word = "met" if ratio >= bar else "not met"
            said.append(f"batch {batch}: {first} draws {ratio:.2f} times as fast as {second}; bar {bar:g} {word}")
    console = Console(width=110)
    steps = maskgit.preset(INFO).num_steps
    console.print(f"{options.codes} codes of {CODEBOOK_SIZE}, parallel decoding in {steps} steps, "
                  f"{options.repeats} repeats, {torch.get_num_threads()} threads", highlight=False)  # fmt: skip
    console.print(table)
    for line in said:
        console.print(line, highlight=False)


if __name__ == "__main__":
    main()
