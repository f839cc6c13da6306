"""Models, datasets, metrics, feature extractors and budgets."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import cli_text as text
from experiments.cli_options import Parser
from experiments.commands.base import PROG

USAGE = "list"


def main(argv: Sequence[str]) -> int:
    """Models, datasets, metrics, feature extractors and budgets with one line each."""
    Parser(f"{PROG} list", "List models, datasets, metrics, feature extractors and budgets.").parse_strictly(argv)
    print(text.catalogue(metrics=True))
    return 0
