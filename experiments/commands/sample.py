"""Generate images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import cli_options as options
from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG, add_seed

USAGE = "sample CHECKPOINT ..."


def main(argv: Sequence[str]) -> int:
    """Images from a trained model."""
    parser = Parser(f"{PROG} sample", "Generate images with a trained model.")
    count = options.whole_number(1, 1_000_000)
    label = options.whole_number(0, 1_000_000)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=options.path, help="<cell>/checkpoints/model.ckpt")
    parser.add_argument("--n", default=64, type=count, metavar="N", help="default: 64")
    parser.add_argument("--out", required=True, type=options.path, metavar="FILE", help=".png (a grid) or .npz")
    parser.add_argument("--label", type=label, metavar="K", help="default: all classes in turn")
    add_seed(parser)
    args = parser.parse_strictly(argv)
    if not args.checkpoint.is_file():
        raise UsageError(f"there is no checkpoint at {args.checkpoint}")
    if args.out.suffix not in (".png", ".npz"):
        raise UsageError(f"--out {str(args.out)!r} must end in .png or .npz")
    options.output_folder(str(args.out.parent))
    from experiments.cli_sample import write_samples

    write_samples(args.checkpoint, args.n, args.out, seed=args.seed, label=args.label)
    return 0
