"""Figures of a first stage's codes: how often each occurs, and how many are in use while it is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reports.collect import Run
from reports.columns import number, si, trimmed
from reports.plots import INK, MAX_CURVE_POINTS, MUTED, WIDTH, Look, style

PER_LINE = 3
MAX_PANELS = 9
LOGGED = {"codes_used": "codes in the batch", "perplexity": "perplexity of the batch"}


def code_use(runs: Sequence[Run], look: dict[str, Look], titles: Sequence[str]) -> Figure | None:
    """A panel per run: the share of every code, falling, on a log axis, and what equal use would be.

    Args:
        runs: With counts of their codes; others are left out.
        look: Colour per model.
        titles: Of the runs.
    """
    shown = [(run, title) for run, title in zip(runs, titles, strict=True) if _counts(run)][:MAX_PANELS]
    if not shown:
        return None
    columns = min(PER_LINE, len(shown))
    lines = math.ceil(len(shown) / columns)
    with style():
        width = WIDTH * max(columns, 1.7) / PER_LINE
        figure = Figure(figsize=(width, 0.4 + 2.9 * lines), layout="constrained")
        grid = list(figure.subplots(lines, columns, squeeze=False).flat)
        for axes, (run, title) in zip(grid, shown, strict=False):
            _use(axes, run, title, look[run.name].colour)
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
    return figure


def _counts(run: Run) -> tuple[int, ...]:
    return run.record.reconstruction.code_counts if run.record.reconstruction else ()


def _use(axes: Axes, run: Run, title: str, colour: str) -> None:
    first = run.record.reconstruction
    assert first is not None, "only runs with counts are drawn"
    shares = np.array(first.code_counts, float) / sum(first.code_counts)
    size, used = max(first.codebook_size, len(shares)), len(shares)
    floor = shares.min() / 3
    axes.set_yscale("log")
    axes.fill_between(np.arange(used + 1), np.append(shares, shares[-1]), floor, step="post", color=colour, lw=0)
    axes.axhline(1 / size, color=INK, lw=1, ls=(0, (4, 2)), label=f"equal use: 1 / {size:,}")
    if used < size:
        axes.axvspan(used, size, color=MUTED, alpha=0.18, lw=0, label=f"{size - used:,} dead codes")
    axes.set(xlim=(0, size), ylim=(floor, max(shares.max() * 4, 8 / size)))
    axes.set_title(title, fontsize=10, pad=16)
    axes.text(
        0, 1.02, f"{used:,} of {size:,} codes occur", transform=axes.transAxes, color=MUTED, fontsize=8.5, va="bottom",
    )  # fmt: skip
    axes.set(xlabel="codes, the most frequent first", ylabel="share of all codes")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(number(value))))
    axes.legend(frameon=False, fontsize=8.5, loc="upper right")


def codes_in_training(logs: Sequence[tuple[Run, pd.DataFrame]], look: dict[str, Look]) -> Figure | None:
    """Codes in use and perplexity over images seen, a panel each, a line per run; None if no log has them."""
    panels = {name: [(run, log) for run, log in logs if _logged(log, name)] for name in LOGGED}
    panels = {name: members for name, members in panels.items() if members}
    if not panels:
        return None
    with style():
        figure = Figure(figsize=(WIDTH * max(len(panels), 1.2) / len(LOGGED), 3.3), layout="constrained")
        for axes, (name, members) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(),
                                         strict=True):
            named: set[str] = set()
            for run, log in members:
                part = log[log[name].notna()]
                step = max(1, len(part) // MAX_CURVE_POINTS)
                label = None if run.name in named else run.name
                named.add(run.name)
                axes.plot(
                    part["images_seen"].to_numpy()[::step], part[name].to_numpy()[::step], color=look[run.name].colour,
                    lw=1.3, alpha=0.85, label=label,
                )  # fmt: skip
            axes.set_title(LOGGED[name])
            axes.set(xlabel="images seen", ylim=(0, None))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(si(value))))
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.legend(frameon=False, fontsize=8.5)
    return figure


def _logged(log: pd.DataFrame, name: str) -> bool:
    return name in log and pd.api.types.is_numeric_dtype(log[name]) and bool(log[name].notna().any())
