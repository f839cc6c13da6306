"""Do the adversarial models train whatever the seed, and how much does the weight of their penalty matter?

    python -m tests.benchmarks.bench_gan_stability [--models gan] [--seeds 10] [--budget smoke] [--data digits]
    python -m tests.benchmarks.bench_gan_stability --gammas 0.25 0.5 1 2 4 --budget 1e13 --data fashion_mnist

One line a cell: Frechet distance and recall of the exam, diversity at the last logged steps, and whether all that was
logged is finite or why training stopped. A gamma is a factor of the preset's weight (``r1_gamma`` of gan,
``penalty_weight`` of wgan_gp). Cells run as ``run.py`` runs them, without likelihood; those that are finished in
``--out`` are not run again. The exit code is 1 if any stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from evaluation.config import EvaluationConfig
from evaluation.metrics.driver import metric_key
from evaluation.record import Record
from experiments.budgets import budget_flops
from experiments.cli_options import resolve_cell
from experiments.config import Cell
from experiments.discovery import dataset_module, dataset_names
from experiments.engine import CellError, run_cell
from experiments.stage_log import LOG_FILE

PENALTIES = {"gan": "r1_gamma", "wgan_gp": "penalty_weight", "dcgan": None}
LAST = 0.1  # of the logged steps, over which the diversity is averaged
EXAM = EvaluationConfig(num_likelihood_images=2, num_slow_likelihood_images=0, speed_repeats=1)


@dataclass(frozen=True)
class Line:
    """What became of a cell; ``stopped`` is why it did not end, else empty."""

    model: str
    weight: float | None
    seed: int
    fd: float = float("nan")
    recall: float = float("nan")
    diversity: float = float("nan")
    steps: int | None = None
    stopped: str = ""

    def columns(self) -> tuple[str, ...]:
        """As the table shows it."""
        weight, steps = ("-" if value is None else f"{value:,g}" for value in (self.weight, self.steps))
        numbers = (f"{value:.4g}" for value in (self.fd, self.recall, self.diversity))
        return self.model, weight, str(self.seed), steps, *numbers, self.stopped or "finite"


def cell_of(model: str, factor: float, seed: int, options: argparse.Namespace) -> Cell:
    """The cell of a model whose penalty weighs ``factor`` times what its preset says."""
    cell = replace(resolve_cell(model, options.data, budget_flops(options.budget), seed, []), evaluation=EXAM)
    if factor == 1:
        return cell
    changed: dict[str, Any] = {PENALTIES[model]: factor * getattr(cell.model_config, PENALTIES[model])}
    return replace(cell, model_config=replace(cell.model_config, **changed))


def line_of(cell: Cell, out: Path) -> Line:
    """Run a cell, unless it is finished, and say what became of it."""
    name = PENALTIES[cell.model]
    weight = None if name is None else getattr(cell.model_config, name)
    try:
        record = run_cell(cell, out, console=Console(quiet=True))
    except CellError as error:
        return Line(cell.model, weight, cell.seed, stopped=str(error))
    log = pd.read_csv(cell.folder(out, record.provenance.dataset_sha256) / LOG_FILE)
    odd = "" if all_finite(log) else "the log has values that are not finite"
    diversity = log["diversity"].dropna().tail(max(1, int(LAST * len(log)))).mean()
    return Line(cell.model, weight, cell.seed, *scores(record), float(diversity), record.budget.steps, odd)


def all_finite(log: pd.DataFrame) -> bool:
    """Whether what was logged is finite, of steps and of looks at recall, which have rows of their own.

    Diversity may be missing: not every batch has two images of a class.
    """
    numbers = log.drop(columns=["diversity", "flops", "images_seen"]).select_dtypes("number")
    looks = numbers.columns.str.startswith("recall_")
    rows = [numbers.loc[:, kind].dropna(how="all") for kind in (looks, ~looks)]
    return all(bool(np.isfinite(of_kind).to_numpy().all()) for of_kind in rows)


def scores(record: Record) -> tuple[float, float]:
    """Frechet distance on the dataset's own features and recall."""
    features = dataset_module(record.dataset).INFO.default_features
    keys = (metric_key("fd_{features}", features, main=True), "recall")
    return tuple(float("nan") if (value := record.metrics[key].value) is None else value for key in keys)


def lines(options: argparse.Namespace) -> Iterator[Line]:
    """All cells, one after the other."""
    for model in options.models:
        for factor in options.gammas:
            for seed in range(options.seeds):
                yield line_of(cell_of(model, factor, seed, options), options.out)


def options_of(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(PENALTIES), default=["gan"])
    parser.add_argument("--seeds", type=int, help="0 to N - 1 (default: 10, with --gammas 1)")
    parser.add_argument("--gammas", type=float, nargs="+", help="factors of the preset's weight (default: 1)")
    parser.add_argument("--budget", default="smoke", help="by name or in FLOPs")
    parser.add_argument("--data", choices=dataset_names(), default="digits")
    parser.add_argument("--out", type=Path, default=Path("runs/gan-stability"))
    options = parser.parse_args(argv)
    options.seeds = options.seeds or (1 if options.gammas else 10)
    options.gammas = options.gammas or [1.0]
    if options.seeds < 1 or min(options.gammas) < 0:
        parser.error("seeds are counted from 1 on and a factor is not negative")
    for model in options.models:
        if PENALTIES[model] is None and options.gammas != [1.0]:
            parser.error(f"{model} has no penalty whose weight --gammas could change")
    return options


def main(argv: list[str]) -> int:
    """Run, print every line as it comes and the table at the end."""
    options, found = options_of(argv), []
    table = Table("model", "weight", "seed", "steps", "fd", "recall", "diversity", "training", box=SIMPLE_HEAD)
    for line in lines(options):
        print("  ".join(line.columns()), flush=True)
        table.add_row(*line.columns())
        found.append(line)
    console, stopped = Console(width=110), sum(bool(line.stopped) for line in found)
    console.print(f"{options.data}, budget {budget_flops(options.budget):.3g} FLOPs", highlight=False)
    console.print(table)
    console.print(f"{stopped} of {len(found)} stopped; none may", highlight=False)
    return int(stopped > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
