"""Measure how long cells take on this machine, for plans."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments import cli_options as options
from experiments.cli_options import Parser
from experiments.commands.base import PROG, dotted_names, refuse_model_options
from experiments.discovery import model_names
from experiments.jobs import GridOptions, default_threads

USAGE = "calibrate [...]"
BUDGET = 1e12  # FLOPs: some ten seconds of training on two CPU cores, after which the rate is steady


def main(argv: Sequence[str]) -> int:
    """Short real cells with the whole exam, in a folder that is thrown away; what they took is kept."""
    description = "Run a short cell of each model with the whole exam and keep what it took, for --dry-run."
    parser = Parser(f"{PROG} calibrate", description)
    parser.add_argument("--models", nargs="+", default=model_names(), type=options.model, metavar="M",
                        help="default: all")
    parser.add_argument("--data", default="digits", type=options.dataset, metavar="D", help="default: digits")
    parser.add_argument("--budget", default=BUDGET, type=options.flops, metavar="B", help="default: 1e12 FLOPs")
    parser.add_argument("--num-cpus", type=options.whole_number(1, 4096), metavar="N", help="CPU threads per cell")
    plain, overrides = options.split_overrides(argv)
    args = parser.parse_strictly(plain, dotted=dotted_names("digits"))
    refuse_model_options(overrides, "calibrate")
    cells = [options.resolve_cell(model, args.data, args.budget, 0, overrides) for model in args.models]
    threads = args.num_cpus or default_threads()
    from experiments.calibration import calibration_file
    from experiments.grid import run_grid
    from experiments.plan import print_estimates

    with tempfile.TemporaryDirectory(prefix="paragon-calibration-") as folder:
        finished = run_grid(cells, Path(folder), GridOptions(num_cpus=threads))
    print_estimates(cells, threads)
    print(f"kept in {calibration_file()}")
    return 0 if finished else 1
