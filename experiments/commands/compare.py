"""Several models and seeds on one dataset: a grid of cells."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from experiments import cli_options as options
from experiments import cli_text as text
from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG, add_common, dotted, dotted_names, refuse_model_options
from experiments.discovery import engine_names
from experiments.jobs import GridOptions, default_threads
from experiments.launch import shared

USAGE = "compare --models M ..."


def compare_parser() -> Parser:
    """Options of a grid of cells."""
    description = "Run several models and seeds on one dataset; a cell that fails does not stop the others."
    parser = Parser(f"{PROG} compare", description, add_help=False, epilog=text.catalogue(metrics=False))
    parser.add_argument("-h", "--help", action="store_true", help="this text")
    parser.add_argument("--models", nargs="+", type=options.model, metavar="M", help="required")
    parser.add_argument("--seeds", nargs="+", default=[0], type=options.seed, metavar="N", help="default: 0")
    add_common(parser)
    _add_engine(parser)
    return parser


def _add_engine(parser: Parser) -> None:
    """Where and how the cells run."""
    group = parser.add_argument_group("engine")
    names = engine_names()
    whole = options.whole_number
    group.add_argument("--engine", default="local", type=options.one_of("engine", names), metavar="E",
                       help=f"{', '.join(names)} (default: local)")
    group.add_argument("--num-cpus", type=whole(1, 4096), metavar="N",
                       help="CPU threads per cell (default: what torch takes, the cores of this machine)")
    group.add_argument("--num-gpus", default=0, type=whole(0, 64), metavar="N", help="GPUs per cell (default: 0)")
    group.add_argument("--retries", default=2, type=whole(0, 100), metavar="N",
                       help="new attempts at a cell whose process or machine died (default: 2)")
    group.add_argument("--address", metavar="A", help="of a Ray cluster, or auto (default: Ray starts its own)")
    group.add_argument("--max-time", type=options.seconds, metavar="T",
                       help="begin no cell after this time, e.g. 90s, 30m or 2h")


def _grid_options(args: argparse.Namespace) -> GridOptions:
    if args.address is not None and args.engine != "ray":
        raise UsageError(f"--address belongs to --engine ray, not to {args.engine}")
    return GridOptions(args.engine, args.num_cpus or default_threads(), args.num_gpus, args.retries, args.address,
                       args.max_time)


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
    first = [options.resolve_cell(model, args.data, args.budget, args.seeds[0], overrides) for model in args.models]
    cells = [replace(cell, seed=seed) for seed in args.seeds for cell in first]
    grid = replace(_grid_options(args), trainer=shared(options.trainer_config(overrides), first))
    if args.dry_run:
        from experiments.plan import print_plan

        print_plan(cells, args.out, grid.num_cpus)
        return 0
    from experiments.cli_run import run_all

    return run_all(cells, args.out, grid)
