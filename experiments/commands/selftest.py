"""Hold metrics and bounds against known answers."""

from __future__ import annotations

from collections.abc import Sequence

USAGE = "selftest"


def main(argv: Sequence[str]) -> int:
    """Metrics and bounds against known answers."""
    from experiments.selftest.command import main as check

    return check(argv)
