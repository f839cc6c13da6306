"""What the commands share: their common options, and the dotted ones behind them.

A command is one file beside this one: a docstring, whose first line is its line in the help, and
``main(argv) -> int``, which returns the exit code. Parsing and refusing import no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from experiments import cli_options as options
from experiments.cli_options import Override, Parser, UsageError
from experiments.config import EvaluationConfig, TrainerConfig
from experiments.discovery import dataset_module

PROG = "python run.py"
BUDGET_HELP = "training budget by name or in FLOPs, e.g. 5e13 (default: small below 16 pixels, else medium)"


def add_out(parser: Parser) -> None:
    """--out."""
    folder = options.output_folder
    parser.add_argument("--out", default="runs", type=folder, metavar="DIR", help="default: runs")


def add_seed(parser: Parser) -> None:
    """--seed."""
    parser.add_argument("--seed", default=0, type=options.seed, metavar="N", help="default: 0")


def add_common(parser: Parser) -> None:
    """What one cell and a grid have in common."""
    parser.add_argument("--data", default="digits", type=options.dataset, metavar="D", help="default: digits")
    parser.add_argument("--budget", type=options.flops, metavar="B", help=BUDGET_HELP)
    add_out(parser)
    parser.add_argument("--dry-run", action="store_true", help="print cells, FLOPs, time and disk; do nothing")


def dotted(dataset: str, model: str | None = None, *, training: bool = True) -> dict[str, Any]:
    """The configurations behind the dotted options, with their defaults."""
    data = dataset_module(dataset)
    configs: dict[str, Any] = {"data": data.Config(), "evaluation": EvaluationConfig()}
    if training:
        configs["trainer"] = TrainerConfig()
    return {"model": options.model_preset(model, data.INFO), **configs} if model else configs


def dotted_names(dataset: str, model: str | None = None, *, training: bool = True) -> list[str]:
    """The dotted options by name, for suggestions."""
    configs = dotted(dataset, model, training=training).items()
    return [name for prefix, config in configs for name in options.option_names(config, f"--{prefix}.")]


def peek(args: Sequence[str], option: str, default: str | None) -> str | None:
    """The value of an option before parsing, for suggestions only."""
    values = [value for word, value in pairwise(args) if word == option]
    return values[-1] if values else default


def refuse_model_options(overrides: Sequence[Override], command: str) -> None:
    """Raise ``UsageError`` for an option of one model, or of training, in a command that takes none."""
    override = next((o for o in overrides if o.option.startswith("--trainer.")), None)
    if override and command != "compare":
        raise UsageError(f"{override.option} belongs to training; {command} takes --data.* and --evaluation.*")
    override = next((o for o in overrides if o.option.startswith("--model.")), None)
    if override:
        raise UsageError(f"{override.option} belongs to one model; {command} takes --data.* and --evaluation.*")
