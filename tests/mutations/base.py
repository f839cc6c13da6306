"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass

METRICS = "evaluation/metrics"


@dataclass(frozen=True)
class Mutation:
    """In ``file``, ``old`` (which stands there exactly once) becomes ``new``; ``checks`` are names or groups."""

    what: str
    file: str
    old: str
    new: str
    checks: tuple[str, ...]
