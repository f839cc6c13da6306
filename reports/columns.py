"""The columns of a comparison table: what they are called, how they rank, how they print.

Metric columns are discovered in the records; only the columns that every record has
(likelihood, speed, cost) are listed here. Numbers print with three significant digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

QUALITY, LIKELIHOOD, SAMPLING, TRAINING = "Quality", "Likelihood", "Sampling", "Training"
SECTIONS = (QUALITY, LIKELIHOOD, SAMPLING, TRAINING)

METRIC_ORDER = ("fd_", "fid", "kd_", "kid", "precision", "recall", "density", "coverage", "class_agreement")


@dataclass(frozen=True)
class Column:
    """One column. ``higher_is_better`` is None where a number is a cost or a fact and nothing is ranked."""

    key: str
    title: str
    section: str
    unit: str = ""
    higher_is_better: bool | None = None
    n: str = ""

    @property
    def arrow(self) -> str:
        """The direction of better, or nothing."""
        return {None: "", True: "↑", False: "↓"}[self.higher_is_better]


FIXED_COLUMNS = (
    Column("bits_per_dim", "bits/dim", LIKELIHOOD, higher_is_better=False),
    Column("images_per_second", "images/s", SAMPLING, higher_is_better=True),
    Column("latency_ms_p50", "latency p50", SAMPLING, unit="ms", higher_is_better=False),
    Column("nfe", "NFE", SAMPLING, unit="count"),
    Column("parameters_total", "parameters", TRAINING, unit="count"),
    Column("train_flops", "train compute", TRAINING, unit="FLOP"),
    Column("images_seen", "images seen", TRAINING, unit="count"),
    Column("wall_seconds", "wall time", TRAINING, unit="s"),
)


def metric_rank(key: str) -> tuple[int, str]:
    """Sort key: the usual order of the families first, everything else alphabetically after them."""
    for position, prefix in enumerate(METRIC_ORDER):
        if key.startswith(prefix):
            return position, key
    return len(METRIC_ORDER), key


def metric_title(key: str) -> str:
    """How a metric is written: distances keep their exact name, words lose the underscore."""
    return key if key.startswith(("fd_", "kd_")) else key.replace("_", " ")


def primary_metric(keys: Iterable[str], dataset: str) -> str | None:
    """The distance that verdict and figures are about: ``fd_<dataset>``, else the first other distance."""
    names = set(keys)
    candidates = [f"fd_{dataset}", *sorted(k for k in names if k.startswith("fd_")), "fid"]
    against_test = [k for k in candidates if k in names and not k.endswith("_train")]
    return next(iter(against_test), None)


def number(value: float, digits: int = 3) -> str:
    """Significant digits, three unless told: 0.0123, 1.23, 123, 1,230, 1.23e-5."""
    rounded = float(f"{value:.{digits}g}")
    size = abs(rounded)
    if size == 0:
        return "0"
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{rounded:,.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"


def trimmed(text: str) -> str:
    """A formatted number without the zeros that end its decimals: "3.00 TFLOP" is "3 TFLOP"."""
    return re.sub(r"(\.\d*?)0+(?=\D|$)", r"\1", text).replace(". ", " ").removesuffix(".")


def factor(value: float) -> str:
    """A ratio in prose: two significant digits, no idle zeros."""
    return trimmed(number(value, 2))


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """Significant digits with a decimal prefix: ``si(1.2e12, "FLOP")`` is "1.20 TFLOP"."""
    rounded = float(f"{value:.{digits}g}")
    power = 0 if abs(rounded) < 1000 else min(7, int(math.log10(abs(rounded)) // 3))
    scaled = rounded / 1000**power
    whole = power == 0 and scaled == round(scaled)
    text = f"{scaled:.0f}" if whole else number(scaled, digits)
    prefix = ("", "k", "M", "G", "T", "P", "E", "Z")[power]
    return f"{text} {prefix}{unit}".rstrip()


def duration(seconds: float, digits: int = 3) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 60:
        return f"{number(seconds, digits)} s"
    if seconds < 3600:
        return f"{number(seconds / 60, digits)} min"
    return f"{number(seconds / 3600, digits)} h"


FORMATS: dict[str, Callable[[float, int], str]] = {
    "": number,
    "ms": lambda value, digits: f"{number(value, digits)} ms",
    "count": lambda value, digits: si(value, digits=digits),
    "FLOP": lambda value, digits: si(value, "FLOP", digits),
    "s": duration,
}


def budget_text(budget: float) -> str:
    """A training budget in words; 0 means that nothing was trained."""
    return f"{trimmed(si(budget, 'FLOP'))} of training" if budget > 0 else "no training"
