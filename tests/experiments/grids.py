"""Grids of tiny cells, in this process or, as ``python -m tests.experiments.grids``, in one of their own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamodules import digits
from evaluation.config import EvaluationConfig
from experiments.config import Cell
from experiments.discovery import preset_module
from experiments.grid import run_grid
from experiments.jobs import GridOptions

ROOT = Path(__file__).resolve().parents[2]
EXAM = EvaluationConfig(
    num_samples=60, num_likelihood_images=8, num_slow_likelihood_images=0, batch_size=50, speed_repeats=1
)
SMALL: dict[str, Any] = {"width": 8, "prior_dim": 32, "prior_depth": 1, "batch_size": 8, "num_steps": 3}

# What differs between two runs of the same cell: when, where and how fast.
OWN = ("provenance", "speed")


def tiny_cell(model: str, seed: int = 0, *, budget: float = 2e8, **changes: Any) -> Cell:
    """A cell of a shrunk model on digits, with a short exam."""
    config = preset_module(model).preset(digits.INFO)
    config = replace(config, **{name: value for name, value in SMALL.items() if hasattr(config, name)} | changes)
    return Cell(model, "digits", budget, seed, config, digits.Config(), EXAM)


def folder_of(cell: Cell, out: Path) -> Path:
    """Where a cell lives."""
    return cell.folder(out, digits.load(digits.Config()).sha256)


def result(folder: Path) -> dict[str, Any]:
    """A cell's record without what differs between two runs of it."""
    content = json.loads((folder / "record.json").read_text())
    for stage in content["budget"]["stages"]:
        del stage["seconds"]
    return {key: value for key, value in content.items() if key not in OWN}


def start(out: Path, *args: str) -> subprocess.Popen[str]:
    """A grid in a process of its own: ``--models``, ``--seeds`` and the options of ``compare``."""
    command = [sys.executable, "-m", "tests.experiments.grids", str(out), *args]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(out: Path, *args: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a grid in a process of its own."""
    process = start(out, *args)
    shown, errors = process.communicate(timeout=280)
    return process.returncode, shown, errors


def main(argv: Sequence[str]) -> int:
    """Run a grid; 1 if a cell failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=["gan"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--budget", type=float, default=2e8)
    parser.add_argument("--broken", type=int, nargs="*", default=[], help="seeds whose batch size is too large")
    parser.add_argument("--large", type=int, nargs="*", default=[], help="seeds whose network fits into no memory")
    parser.add_argument("--retries", type=int, default=2)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--address")
    args = parser.parse_args(argv)
    changes = {seed: {"batch_size": 5000} for seed in args.broken} | {seed: {"width": 65536} for seed in args.large}
    cells = [
        tiny_cell(model, seed, budget=args.budget, **changes.get(seed, {}))
        for seed in args.seeds
        for model in args.models
    ]
    options = GridOptions(args.engine, num_cpus=1, retries=args.retries, address=args.address)
    return 0 if run_grid(cells, args.out, options) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
