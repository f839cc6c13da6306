"""Measure quality against sampler settings for finished cells."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import cli_options as options
from experiments.cli_options import Parser
from experiments.commands.base import PROG

USAGE = "curves CELL ..."
NUM_SAMPLES = 2000
VARIED = ("samplers", "nfe", "guidance", "temperature", "steps", "choice_temperature", "psi")
NOTES = """Measured with the cell's own data, feature extractor and classes and kept in its folder as curves.json, point
by point: what is there is not measured again. n is at most the size of the test split. The report shows them."""


def main(argv: Sequence[str]) -> int:
    """Distances at other settings of the sampler, and where the bits are."""
    about = "Measure how the quality of finished cells depends on the settings of their sampler."
    parser = Parser(f"{PROG} curves", about, epilog=NOTES)
    parser.add_argument("cells", nargs="+", type=options.path, metavar="CELL",
                        help="its folder, <DIR>/<model>/<data>/<hash>/seed=<n>")
    parser.add_argument("--samplers", nargs="+", metavar="S", help="default: all that suit the model")
    parser.add_argument("--nfe", nargs="+", type=options.whole_number(1, 1000), metavar="N",
                        help="network evaluations per image (default: 1 2 3 5 10 19 35 50 100 250)")
    parser.add_argument("--guidance", nargs="+", type=options.number(0, 100), metavar="G",
                        help="guidance scales (default: 0 0.5 1 1.5 2 3 4)")
    parser.add_argument("--temperature", nargs="+", type=options.number(0.001, 100), metavar="T",
                        help="of a model of codes (default: 0.5 0.6 0.7 0.8 0.9 1 1.1 1.2 1.3)")
    parser.add_argument("--steps", nargs="+", type=options.whole_number(1, 1000), metavar="N",
                        help="of parallel decoding (default: 1 2 4 8 16 32)")
    parser.add_argument("--choice-temperature", nargs="+", type=options.number(0, 100), metavar="T",
                        help="of the noise on what is certain in it (default: 0 1 2 4.5 9 18)")
    parser.add_argument("--psi", nargs="+", type=options.number(0, 3), metavar="P",
                        help="truncation of an adversarial model (default: 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1 1.1 1.2)")
    parser.add_argument("--num-samples", default=NUM_SAMPLES, type=options.whole_number(2, 1_000_000), metavar="N",
                        help=f"images per point (default: {NUM_SAMPLES})")
    parser.add_argument("--seed", type=options.seed, metavar="N", help="of sampling (default: the cell's)")
    args = parser.parse_strictly(argv)
    asked = {name: getattr(args, name) for name in VARIED}
    from experiments.curves import measure_cells

    given = {name: tuple(values) for name, values in asked.items() if values is not None}
    return measure_cells(args.cells, given, num_samples=args.num_samples, seed=args.seed)
