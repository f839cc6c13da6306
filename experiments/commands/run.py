"""Train, sample, evaluate, report: one cell."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import cli_options as options
from experiments import cli_text as text
from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG, add_common, add_seed, dotted, dotted_names, peek
from experiments.jobs import default_threads
from experiments.launch import settled

USAGE = "--model M [...]"


def run_parser() -> Parser:
    """Options of a single cell."""
    description = "Train one image generator, put it through the exam and write the comparison report."
    epilog = f"{text.commands(PROG)}\n\n{text.catalogue(metrics=False)}"
    parser = Parser(PROG, description, add_help=False, epilog=epilog)
    parser.add_argument("-h", "--help", action="store_true", help="this text; with --model also its options")
    parser.add_argument("--model", type=options.model, metavar="M", help="what to train (required)")
    add_seed(parser)
    add_common(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """One cell."""
    plain, overrides = options.split_overrides(argv)
    args = run_parser().parse_strictly(plain, dotted=_suggestions(plain))
    if args.help:
        run_parser().print_help()
        if args.model:
            print()
            text.print_dotted_options(f"{PROG} --model {args.model}", **dotted(args.data, args.model))
        return 0
    if args.model is None:
        raise UsageError(f"--model is required; allowed: {', '.join(options.model_names())}")
    cell = options.resolve_cell(args.model, args.data, args.budget, args.seed, overrides)
    trainer = settled(options.trainer_config(overrides), cell)
    if args.dry_run:
        from experiments.plan import print_plan

        print_plan([cell], args.out, default_threads())
        return 0
    from experiments.cli_run import run_one

    return run_one(cell, args.out, trainer)


def _suggestions(plain: Sequence[str]) -> list[str]:
    dataset, model = peek(plain, "--data", "digits"), peek(plain, "--model", None)
    known = dataset in options.dataset_names() and model in options.model_names()
    return dotted_names(str(dataset), model) if known else []
