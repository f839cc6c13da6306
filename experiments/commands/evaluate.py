"""Put images made elsewhere through the exam."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments import cli_options as options
from experiments import cli_text as text
from experiments.cli_options import Override, Parser
from experiments.commands.base import PROG, add_out, dotted, dotted_names, peek, refuse_model_options
from experiments.discovery import dataset_module

USAGE = "evaluate IMAGES ..."


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
    add_out(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Images made elsewhere."""
    plain, overrides = options.split_overrides(argv)
    known = peek(plain, "--reference", "digits")
    names = dotted_names(str(known), training=False) if known in options.dataset_names() else []
    if {"-h", "--help"} & set(plain):
        evaluate_parser().print_help()
        print()
        text.print_dotted_options(f"{PROG} evaluate", **dotted(str(known) if names else "digits", training=False))
        return 0
    args = evaluate_parser().parse_strictly(plain, dotted=names)
    refuse_model_options(overrides, "evaluate")
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
