"""Generate images with a trained model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from experiments import cli_options as options
from experiments.cli_options import Parser, UsageError
from experiments.commands.base import PROG, add_seed
from experiments.presets.base import Sampler
from experiments.sample_request import DEFAULT_N, FEW, THRESHOLDS, SampleRequest

USAGE = "sample CHECKPOINT ..."

MAX_SCALE = 1000.0
PSI = "truncation of an adversarial model: below 1 likelier images that differ less"
NOTES = """\
The options from --trajectory on are for models that have them; the others say so.
--trajectory writes FILE as a strip .png (a row an image, a column a step) and, beside it, the animation as
.gif and as .webp; with .npz the states after every step are the array 'trajectory'.
Seed and index decide an image, whatever --n is. Where the sampler draws no noise on its way, the ends of
--interpolate are the first images of both seeds.
"""


def sample_parser() -> Parser:
    """Options of images from a trained model."""
    parser = Parser(f"{PROG} sample", "Generate images with a trained model.", epilog=NOTES)
    many = options.whole_number(1, 1_000_000)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=options.path, help="<cell>/checkpoints/model.ckpt")
    shown = f"default: {DEFAULT_N}; {FEW} with --trajectory or --interpolate"
    parser.add_argument("--n", type=many, metavar="N", help=shown)
    kinds = ".png (a grid), .npz, or .gif, .webp (with --trajectory or --interpolate)"
    parser.add_argument("--out", required=True, type=options.path, metavar="FILE", help=kinds)
    turns = "default: all classes in turn; 0 with --interpolate"
    parser.add_argument("--label", type=options.whole_number(0, 1_000_000), metavar="K", help=turns)
    add_seed(parser)
    _add_sampler(parser)
    _add_codes(parser)
    parser.add_argument("--psi", type=options.number(0, 3), metavar="P", help=PSI)
    _add_given(parser)
    return parser


def _add_sampler(parser: Parser) -> None:
    """How the model walks from noise to picture."""
    number = options.number
    steps = options.whole_number(1, 1000)
    parser.add_argument("--trajectory", action="store_true", help="the images forming: a strip and an animation")
    parser.add_argument("--steps", type=steps, metavar="N", help="steps of the sampler")
    names = list(get_args(Sampler))
    parser.add_argument("--sampler", type=options.one_of("sampler", names), metavar="NAME", help=", ".join(names))
    scale = "uncond + S (cond - uncond); 1 is none"
    parser.add_argument("--guidance-scale", type=number(0, MAX_SCALE), metavar="S", help=scale)
    parser.add_argument(
        "--guidance-interval", type=number(0, math.inf), nargs=2, metavar=("LOW", "HIGH"),
        help="noise levels between which guidance acts",
    )
    clip = f"clipping of every estimate: {', '.join(THRESHOLDS)}"
    parser.add_argument("--threshold", type=options.one_of("threshold", list(THRESHOLDS)), metavar="T", help=clip)
    parser.add_argument("--eta", type=number(0, 1), metavar="E", help="share of fresh noise of the sampler ddim")


def _add_codes(parser: Parser) -> None:
    """How a model of codes draws them."""
    number = options.number
    heat = "of the codes: below 1 the likely ones more often, above 1 less"
    parser.add_argument("--temperature", type=number(0.001, 100), metavar="T", help=heat)
    many = options.whole_number(0, 1_000_000)
    parser.add_argument("--top-k", type=many, metavar="K", help="draw among the K likeliest codes; 0: all")
    share = "draw among the fewest codes whose mass reaches P"
    parser.add_argument("--top-p", type=number(0, 1, above=True), metavar="P", help=share)
    choice = "noise on which codes count as certain, for parallel decoding; 0 is none"
    parser.add_argument("--choice-temperature", type=number(0, 100), metavar="T", help=choice)


def _add_given(parser: Parser) -> None:
    """What the model starts from, or keeps."""
    kinds = "a picture of the model's size, or .npz with uint8 'images', taken in turn"
    parser.add_argument("--image", type=options.path, metavar="FILE", help=kinds)
    strength = "start from --image, with so much of the walk: 0 < S <= 1"
    parser.add_argument("--strength", type=options.number(0, 1, above=True), metavar="S", help=strength)
    mask = "paint --image anew where this picture is white, keep it where black"
    parser.add_argument("--mask", type=options.path, metavar="FILE", help=mask)
    way = "images on the great circle from the noise of --seed to that of SEED2"
    parser.add_argument("--interpolate", type=options.seed, metavar="SEED2", help=way)


def main(argv: Sequence[str]) -> int:
    """Images from a trained model."""
    args = sample_parser().parse_strictly(argv)
    if not args.checkpoint.is_file():
        raise UsageError(f"there is no checkpoint at {args.checkpoint}")
    if args.n is None:
        args.n = FEW if args.trajectory or args.interpolate is not None else DEFAULT_N
    if args.guidance_interval is not None:
        args.guidance_interval = tuple(args.guidance_interval)
    request = SampleRequest(**vars(args))
    options.output_folder(str(args.out.parent))
    from experiments.cli_sample import write_samples

    write_samples(request)
    return 0
