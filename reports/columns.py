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
FIRST_STAGE = "First stage"  # a table of its own
SECTIONS = (QUALITY, LIKELIHOOD, SAMPLING, TRAINING, FIRST_STAGE)

# Families of metrics in the order in which they are shown; the longest prefix of a name is its family.
METRIC_ORDER = (
    "fd_", "fid", "fd_infinity_", "fid_infinity", "kd_", "kid", "kd_subsets_", "kid_subsets", "fd_class_",
    "precision", "recall", "density", "coverage", "vendi", "inception_score", "cmmd", "class_agreement",
    "memorization_gap_", "ct_", "authpct_",
    "rfd_", "rfid", "psnr", "ssim", "codebook_usage", "perplexity", "dead_codes",
)  # fmt: skip
MAIN_METRICS = ("precision", "recall", "density", "coverage", "class_agreement")  # of the main feature space
DERIVED = ("fd_infinity_", "fd_class_")  # begin like a Fréchet distance and are something else
UNITS = {"dead_codes": "count"}  # of metrics that are no plain numbers
ACRONYMS = {"psnr": "PSNR (dB)", "ssim": "SSIM"}
TITLES = {"memorization_gap_": "memorisation gap", "ct_": "C_T", "authpct_": "AuthPct"}


@dataclass(frozen=True)
class Column:
    """One column. ``higher_is_better`` is None where a number is a cost or a fact and nothing is ranked."""

    key: str
    title: str
    section: str
    unit: str = ""
    higher_is_better: bool | None = None
    n: str = ""
    main: bool = True  # whether the first table shows it; the table of all metrics does anyway

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


def metric_family(key: str) -> str:
    """The longest family prefix of a metric's name; "" if the name belongs to none."""
    return max((prefix for prefix in METRIC_ORDER if key.startswith(prefix)), key=len, default="")


def metric_rank(key: str) -> tuple[int, str]:
    """Sort key: the usual order of the families first, everything else alphabetically after them."""
    family = metric_family(key)
    return METRIC_ORDER.index(family) if family else len(METRIC_ORDER), key


def metric_title(key: str) -> str:
    """How a metric is written: distances keep their exact name, words lose the underscore."""
    family = metric_family(key)
    if family in TITLES:
        return f"{TITLES[family]} ({key.removeprefix(family)})"
    if key in ACRONYMS:
        return ACRONYMS[key]
    if key.startswith(("fd_", "kd_", "fid", "kid", "rfd_", "rfid")):
        return key
    space = key.removeprefix(family).removeprefix("_") if family else ""  # not the main one, which goes without saying
    return f"{family} ({space})".replace("_", " ", family.count("_")) if space else key.replace("_", " ")


def primary_metric(keys: Iterable[str], dataset: str, features: str | None = None) -> str | None:
    """The distance that verdict and figures are about.

    It is that of the main feature space ``features`` where that is known, else ``fd_<dataset>``, else
    the first other Fréchet distance.
    """
    names = set(keys)
    first = [] if features is None else ["fid" if features == "inception" else f"fd_{features}"]
    others = sorted(k for k in names if k.startswith("fd_") and not k.startswith(DERIVED))
    candidates = [*first, f"fd_{dataset}", *others, "fid"]
    against_test = [k for k in candidates if k in names and not k.endswith("_train")]
    return next(iter(against_test), None)


def main_metrics(keys: Iterable[str], primary: str | None) -> list[str]:
    """The few metrics that the comparison's first table shows; all others have a table of their own."""
    names = set(keys)
    chosen = list(MAIN_METRICS)
    if primary is not None:
        space = "inception" if primary == "fid" else primary.removeprefix("fd_")
        # Pixels first: features of a network that was trained on the training images treat those apart.
        gaps = ["memorization_gap_pixels", f"memorization_gap_{space}"]
        kernel = "kid" if primary == "fid" else f"kd_{space}"
        chosen = [primary, kernel, *chosen, *[k for k in gaps if k in names][:1]]
    return [key for key in chosen if key in names]


def number(value: float, digits: int = 3) -> str:
    """Significant digits, three unless told: 0.0123, 1.23, 123, 1,230, 1.23e-5."""
    rounded = float(f"{value:.{digits}g}")
    if not math.isfinite(rounded):
        return str(rounded)  # a difference of numbers near the largest that there are
    size = abs(rounded)
    if size == 0:
        return "0"
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{rounded:,.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"


def trimmed(text: str) -> str:
    """A formatted number without the zeros that end its decimals: "3.00 TFLOP" is "3 TFLOP", "1.00e-4" is "1e-4"."""
    return re.sub(r"\.(?!\d)", "", re.sub(r"(\.\d*?)0+(?=\D|$)", r"\1", text))


def factor(value: float) -> str:
    """A ratio in prose: two significant digits, no idle zeros."""
    return trimmed(number(value, 2))


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """Significant digits with a decimal prefix: ``si(1.2e12, "FLOP")`` is "1.20 TFLOP"."""
    rounded = float(f"{value:.{digits}g}")
    if not math.isfinite(rounded):
        return f"{rounded} {unit}".rstrip()
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
    """A training budget in words; 0 stands for rows that were not trained here."""
    return f"{trimmed(si(budget, 'FLOP'))} of training" if budget > 0 else "nothing trained here"
