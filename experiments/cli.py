"""The command line: one cell, a grid of cells, images from elsewhere, the report, and small tools around them.

``main`` parses and validates without torch, so that help, plans and refusals answer in a
fraction of a second; whatever needs torch is imported by the function that needs it.
Exit codes: 0 done, 1 a cell or a check failed, 2 refused, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments import cli_options as options
from experiments import cli_text as text
from experiments.cli_options import Override, Parser, UsageError
from experiments.config import EvaluationConfig
from experiments.discovery import dataset_module, unknown

PROG = "python run.py"
BUDGET_HELP = "training budget by name or in FLOPs, e.g. 5e13 (default: small below 16 pixels, else medium)"
COMMANDS_HELP = f"""commands:
  {PROG} --model M [...]         train, sample, evaluate, report: one cell
  {PROG} compare --models M ...  the same for several models and seeds
  {PROG} evaluate IMAGES ...     put images made elsewhere through the exam
  {PROG} report [DIR]            write the report again from the records found
  {PROG} sample CHECKPOINT ...   generate images with a trained model
  {PROG} selftest                hold metrics and bounds against known answers
  {PROG} list                    models, datasets, metrics, feature extractors and budgets
  {PROG} doctor                  versions, device, data, weights, disk
"""


def _add_out(parser: Parser) -> None:
    folder = options.output_folder
    parser.add_argument("--out", default="runs", type=folder, metavar="DIR", help="default: runs")


def _add_seed(parser: Parser) -> None:
    parser.add_argument("--seed", default=0, type=options.seed, metavar="N", help="default: 0")


def _add_common(parser: Parser) -> None:
    parser.add_argument("--data", default="digits", type=options.dataset, metavar="D", help="default: digits")
    parser.add_argument("--budget", type=options.flops, metavar="B", help=BUDGET_HELP)
    _add_out(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration, do nothing")


def run_parser() -> Parser:
    """Options of a single cell."""
    description = "Train one image generator, put it through the exam and write the comparison report."
    epilog = f"{COMMANDS_HELP}\n{text.catalogue(metrics=False)}"
    parser = Parser(PROG, description, add_help=False, epilog=epilog)
    parser.add_argument("-h", "--help", action="store_true", help="this text; with --model also its options")
    parser.add_argument("--model", type=options.model, metavar="M", help="what to train (required)")
    _add_seed(parser)
    _add_common(parser)
    return parser


def compare_parser() -> Parser:
    """Options of a grid of cells."""
    description = "Run several models and seeds on one dataset; a cell that fails does not stop the others."
    parser = Parser(f"{PROG} compare", description, add_help=False, epilog=text.catalogue(metrics=False))
    parser.add_argument("-h", "--help", action="store_true", help="this text")
    parser.add_argument("--models", nargs="+", type=options.model, metavar="M", help="required")
    parser.add_argument("--seeds", nargs="+", default=[0], type=options.seed, metavar="N", help="default: 0")
    _add_common(parser)
    return parser


def _execute(cells: list[Any], args: argparse.Namespace) -> int:
    if args.dry_run:
        print(text.plan(cells, args.out))
        return 0
    from experiments.cli_run import run_cells

    return run_cells(cells, args.out)


def _dotted(dataset: str, model: str | None = None) -> dict[str, Any]:
    """The configurations behind the dotted options, with their defaults."""
    data = dataset_module(dataset)
    configs = {"data": data.Config(), "evaluation": EvaluationConfig()}
    return {"model": options.model_preset(model, data.INFO), **configs} if model else configs


def _dotted_names(dataset: str, model: str | None = None) -> list[str]:
    configs = _dotted(dataset, model).items()
    return [name for prefix, config in configs for name in options.option_names(config, f"--{prefix}.")]


def _peek(args: Sequence[str], option: str, default: str | None) -> str | None:
    """The value of an option before parsing, for suggestions only."""
    values = [value for word, value in pairwise(args) if word == option]
    return values[-1] if values else default


def run(argv: Sequence[str]) -> int:
    """One cell."""
    plain, overrides = options.split_overrides(argv)
    args = run_parser().parse_strictly(plain, dotted=_suggestions(plain))
    if args.help:
        run_parser().print_help()
        if args.model:
            print()
            text.print_dotted_options(f"{PROG} --model {args.model}", **_dotted(args.data, args.model))
        return 0
    if args.model is None:
        raise UsageError(f"--model is required; allowed: {', '.join(options.model_names())}")
    return _execute([options.resolve_cell(args.model, args.data, args.budget, args.seed, overrides)], args)


def _suggestions(plain: Sequence[str]) -> list[str]:
    dataset, model = _peek(plain, "--data", "digits"), _peek(plain, "--model", None)
    known = dataset in options.dataset_names() and model in options.model_names()
    return _dotted_names(str(dataset), model) if known else []


def _refuse_repeats(option: str, values: Sequence[Any]) -> None:
    repeated = next((value for value in values if values.count(value) > 1), None)
    if repeated is not None:
        raise UsageError(f"{option} names {repeated} twice")


def _refuse_model_options(overrides: Sequence[Override], command: str) -> None:
    override = next((o for o in overrides if o.option.startswith("--model.")), None)
    if override:
        raise UsageError(f"{override.option} belongs to one model; {command} takes --data.* and --evaluation.*")


def compare(argv: Sequence[str]) -> int:
    """A grid of cells: every model with every seed, seed by seed."""
    plain, overrides = options.split_overrides(argv)
    args = compare_parser().parse_strictly(plain, dotted=_dotted_names("digits"))
    if args.help:
        compare_parser().print_help()
        print()
        text.print_dotted_options(f"{PROG} compare", **_dotted(args.data))
        return 0
    if args.models is None:
        raise UsageError(f"--models is required; allowed: {', '.join(options.model_names())}")
    _refuse_repeats("--models", args.models)
    _refuse_repeats("--seeds", args.seeds)
    _refuse_model_options(overrides, "compare")
    cells = [
        options.resolve_cell(model, args.data, args.budget, seed, overrides)
        for seed in args.seeds
        for model in args.models
    ]
    return _execute(cells, args)


def evaluate_parser() -> Parser:
    """Options of an exam of images made elsewhere."""
    description = "Put images made elsewhere through the exam; they enter the report as a row of their own."
    parser = Parser(f"{PROG} evaluate", description, add_help=False, epilog=text.EVALUATE_NOTES)
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder, .npz or .npy of uint8 images")
    parser.add_argument("-h", "--help", action="store_true", help="this text")
    parser.add_argument("--reference", required=True, type=options.dataset, metavar="D", help="the real images")
    parser.add_argument("--name", metavar="NAME", help="name of the row (default: that of the file or folder)")
    parser.add_argument("--features", nargs="+", metavar="F", help="feature extractors, the main one first")
    parser.add_argument("--resize", action="store_true", help="convert images of another size or colour")
    _add_out(parser)
    return parser


def evaluate(argv: Sequence[str]) -> int:
    """Images made elsewhere."""
    plain, overrides = options.split_overrides(argv)
    known = _peek(plain, "--reference", "digits")
    dotted = _dotted_names(str(known)) if known in options.dataset_names() else []
    if {"-h", "--help"} & set(plain):
        evaluate_parser().print_help()
        print()
        text.print_dotted_options(f"{PROG} evaluate", **_dotted(str(known) if dotted else "digits"))
        return 0
    args = evaluate_parser().parse_strictly(plain, dotted=dotted)
    _refuse_model_options(overrides, "evaluate")
    if args.features:
        overrides.append(Override("--evaluation.features", tuple(args.features)))
    from experiments.cli_evaluate import Entry, entry_name, evaluate_entry

    data = dataset_module(args.reference)
    entry = Entry(
        name=entry_name(args.name, args.images),
        images=args.images,
        dataset=args.reference,
        data_config=options.apply_overrides(data.Config(), "--data.", overrides),
        evaluation=options.evaluation_config(overrides),
        resize=args.resize,
    )
    return evaluate_entry(entry, args.out)


def report(argv: Sequence[str]) -> int:
    """The report over all records found in a folder."""
    parser = Parser(f"{PROG} report", "Write the report over all records found in a folder of runs.")
    parser.add_argument("dir", nargs="?", default="runs", metavar="DIR", help="default: runs")
    folder = Path(parser.parse_strictly(argv).dir).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of runs")
    from experiments.cli_run import write_page

    return 0 if write_page(folder) else 1


def list_everything(argv: Sequence[str]) -> int:
    """Models, datasets, metrics, feature extractors and budgets with one line each."""
    Parser(f"{PROG} list", "List models, datasets, metrics, feature extractors and budgets.").parse_strictly(argv)
    print(text.catalogue(metrics=True))
    return 0


def sample(argv: Sequence[str]) -> int:
    """Images from a trained model."""
    parser = Parser(f"{PROG} sample", "Generate images with a trained model.")
    count = options.whole_number(1, 1_000_000)
    label = options.whole_number(0, 1_000_000)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="<cell>/checkpoints/model.ckpt")
    parser.add_argument("--n", default=64, type=count, metavar="N", help="default: 64")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help=".png (a grid) or .npz")
    parser.add_argument("--label", type=label, metavar="K", help="default: all classes in turn")
    _add_seed(parser)
    args = parser.parse_strictly(argv)
    if not args.checkpoint.is_file():
        raise UsageError(f"there is no checkpoint at {args.checkpoint}")
    if args.out.suffix not in (".png", ".npz"):
        raise UsageError(f"--out {str(args.out)!r} must end in .png or .npz")
    options.output_folder(str(args.out.parent))
    from experiments.cli_sample import write_samples

    write_samples(args.checkpoint, args.n, args.out, seed=args.seed, label=args.label)
    return 0


def doctor(argv: Sequence[str]) -> int:
    """What this machine has."""
    parser = Parser(f"{PROG} doctor", "Check versions, threads, device, data, weights and disk.")
    _add_out(parser)
    args = parser.parse_strictly(argv)
    from experiments.doctor import examine

    return examine(args.out)


def selftest(argv: Sequence[str]) -> int:
    """Metrics and bounds against known answers."""
    from experiments.selftest.command import main as check

    return check(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "compare": compare, "evaluate": evaluate, "report": report, "sample": sample, "selftest": selftest,
    "list": list_everything, "doctor": doctor,
}


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0].startswith("-"):
        return run(argv)
    if argv[0] not in COMMANDS:
        raise UsageError(unknown("command", argv[0], list(COMMANDS)))
    return COMMANDS[argv[0]](argv[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments ask and return the exit code."""
    try:
        return _dispatch(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, say head, has enough; nothing more can be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130
