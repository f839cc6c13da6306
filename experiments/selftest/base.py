"""What a check is: a known answer, what this program got, and how far apart they may be.

A file ``checks_<group>.py`` beside this one declares ``CHECKS``. Its functions import what they
check when they run: one broken file is then one failed check, and listing costs nothing.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

PREFIX = "checks_"
Shown = float | str | None


@dataclass(frozen=True)
class Finding:
    """What was expected, what was got, and how much they may differ; ``note`` is one sentence or empty."""

    expected: Shown
    got: Shown
    tolerance: Shown
    passed: bool
    note: str = ""


@dataclass(frozen=True)
class Check:
    """A named comparison; ``name`` is unique, ``group`` is that of its file, ``run`` has a docstring."""

    name: str
    group: str
    run: Callable[[], Finding]

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.run.__doc__ or "").strip().split("\n", 1)[0]


@dataclass(frozen=True)
class Outcome:
    """A check that was run, and how long it took."""

    check: Check
    finding: Finding
    seconds: float


def all_checks() -> list[Check]:
    """The checks of every file, sorted by file name; two of one name raise ``ValueError``."""
    package = importlib.import_module("experiments.selftest")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith(PREFIX))
    checks = [c for name in names for c in importlib.import_module(f"experiments.selftest.{name}").CHECKS]
    seen: set[str] = set()
    for check in checks:
        if check.name in seen:
            raise ValueError(f"two checks are named {check.name!r}")
        seen.add(check.name)
    return checks


def perform(check: Check) -> Outcome:
    """Run a check; one that raises has failed, with the error's sentence as its note."""
    start = time.perf_counter()
    try:
        finding = check.run()
    except Exception as error:
        sentence = " ".join(str(error).split()) or "no message"
        finding = Finding(None, None, None, False, f"{type(error).__name__}: {sentence}")
    return Outcome(check, finding, time.perf_counter() - start)


def close(
    expected: float, got: Any, *, relative: float | None = None, absolute: float | None = None, note: str = ""
) -> Finding:
    """|got - expected| <= absolute, or <= relative * |expected|; exactly one tolerance is given."""
    if (relative is None) == (absolute is None):
        raise ValueError("give either a relative or an absolute tolerance")
    expected, got = float(expected), float(got)
    allowed = relative * abs(expected) if relative is not None else absolute
    tolerance: Shown = f"{relative:g} relative" if relative is not None else absolute
    return Finding(expected, got, tolerance, bool(abs(got - expected) <= float(allowed or 0.0)), note)


def largest_deviation(
    expected: ArrayLike, got: ArrayLike, *, relative: float | None = None, absolute: float | None = None,
    note: str = "",
) -> Finding:
    """The worst entry of two arrays of one shape; ``relative`` is to each expected entry."""
    a, b = np.asarray(expected, np.float64), np.asarray(got, np.float64)
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"expected shape {a.shape}, got {b.shape}")
    difference = np.abs(a - b)
    if relative is not None:
        worst = float(np.where(difference > 0, difference / np.maximum(np.abs(a), 1e-300), difference).max())
        found = close(0.0, worst, absolute=relative, note=note)
        return Finding("all equal", found.got, f"{relative:g} relative", found.passed, note)
    found = close(0.0, float(difference.max()), absolute=absolute, note=note)
    return Finding("all equal", found.got, found.tolerance, found.passed, note)


def within(low: float, got: Any, high: float, note: str = "") -> Finding:
    """low <= got <= high."""
    return Finding(f"{low:g} to {high:g}", float(got), None, bool(low <= float(got) <= high), note)


def at_least(least: float, got: Any, note: str = "") -> Finding:
    """got >= least."""
    return Finding(f">= {least:g}", float(got), None, bool(float(got) >= least), note)


def at_most(most: float, got: Any, note: str = "") -> Finding:
    """got <= most."""
    return Finding(f"<= {most:g}", float(got), None, bool(float(got) <= most), note)


def same(expected: str, got: str, note: str = "") -> Finding:
    """The two words are equal."""
    return Finding(expected, got, None, expected == got, note)


def mean_within_error(
    expected: float, draws: ArrayLike, *, errors: float = 4.0, largest_error: float, note: str = ""
) -> Finding:
    """The mean of independent draws (N,) lies within ``errors`` standard errors of what is expected.

    A standard error above ``largest_error`` fails too: such a comparison would see nothing.
    """
    x = np.asarray(draws, np.float64)
    error = float(x.std(ddof=1) / math.sqrt(len(x)))
    mean = float(x.mean())
    passed = bool(abs(mean - expected) <= errors * error <= errors * largest_error)
    return Finding(float(expected), mean, f"{errors:g} standard errors of {error:.2g}", passed, note)


def all_of(*findings: Finding) -> Finding:
    """The first that failed; else the last."""
    return next((f for f in findings if not f.passed), findings[-1])
