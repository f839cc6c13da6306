"""Versions, device, data, weights, disk."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.cli_options import Parser
from experiments.commands.base import PROG, add_out

USAGE = "doctor"


def main(argv: Sequence[str]) -> int:
    """What this machine has."""
    parser = Parser(f"{PROG} doctor", "Check versions, threads, device, data, weights and disk.")
    add_out(parser)
    args = parser.parse_strictly(argv)
    from experiments.doctor import examine

    return examine(args.out)
