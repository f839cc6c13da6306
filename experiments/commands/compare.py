"""Several models and seeds on one dataset: a grid of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments import cli_options as options
from experiments import cli_text as text
from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG, add_common, dotted, dotted_names, execute, refuse_model_options

USAGE = "compare --models M ..."


def compare_parser() -> Parser:
    """Options of a grid of cells."""
    description = "Run several models and seeds on one dataset; a cell that fails does not stop the others."
    parser = Parser(f"{PROG} compare", description, add_help=False, epilog=text.catalogue(metrics=False))
    parser.add_argument("-h", "--help", action="store_true", help="this text")
    parser.add_argument("--models", nargs="+", type=options.model, metavar="M", help="required")
    parser.add_argument("--seeds", nargs="+", default=[0], type=options.seed, metavar="N", help="default: 0")
    add_common(parser)
    return parser


def _refuse_repeats(option: str, values: Sequence[Any]) -> None:
    repeated = next((value for value in values if values.count(value) > 1), None)
    if repeated is not None:
        raise UsageError(f"{option} names {repeated} twice")


def main(argv: Sequence[str]) -> int:
    """A grid of cells: every model with every seed, seed by seed."""
    plain, overrides = options.split_overrides(argv)
    args = compare_parser().parse_strictly(plain, dotted=dotted_names("digits"))
    if args.help:
        compare_parser().print_help()
        print()
        text.print_dotted_options(f"{PROG} compare", **dotted(args.data))
        return 0
    if args.models is None:
        raise UsageError(f"--models is required; allowed: {', '.join(options.model_names())}")
    _refuse_repeats("--models", args.models)
    _refuse_repeats("--seeds", args.seeds)
    refuse_model_options(overrides, "compare")
    cells = [
        options.resolve_cell(model, args.data, args.budget, seed, overrides)
        for seed in args.seeds
        for model in args.models
    ]
    return execute(cells, args)
