"""Recall by class while adversarial models are trained: which classes come, and whether all of them go."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reports.collect import Run
from reports.columns import si, trimmed
from reports.plots import WIDTH, Look, style

MEAN = "recall_mean"
OF_CLASS = re.compile(r"recall_\d+")
PER_LINE = 4


def recall_in_training(logs: Sequence[tuple[Run, pd.DataFrame]], look: dict[str, Look]) -> Figure | None:
    """Recall over images seen: a panel per model, a strong line per seed for the mean, a faint one for each class.

    Args:
        logs: Runs with their training log; those without recall are left out.
        look: Colour per model.
    """
    panels: dict[str, list[pd.DataFrame]] = {}
    for run, log in logs:
        part = measured(log)
        if not part.empty:
            panels.setdefault(run.name, []).append(part)
    if not panels:
        return None
    columns = min(PER_LINE, len(panels))
    lines = math.ceil(len(panels) / columns)
    with style():
        width = WIDTH * max(columns, 1.5) / PER_LINE if columns < PER_LINE else WIDTH
        figure = Figure(figsize=(width, 0.4 + 2.7 * lines), layout="constrained")
        grid = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
        for axes, (model, parts) in zip(grid, sorted(panels.items()), strict=False):
            _panel(axes, parts, look[model])
            axes.set_title(model)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        grid[0].set_ylabel("recall of training images")
    return figure


def measured(log: pd.DataFrame) -> pd.DataFrame:
    """The rows and columns of a training log that hold recall, with images seen; empty if there are none."""
    names = [c for c in log if c == MEAN or OF_CLASS.fullmatch(str(c))]
    if MEAN not in names or not all(pd.api.types.is_numeric_dtype(log[c]) for c in names):
        return pd.DataFrame()
    return log.loc[log[MEAN].notna(), ["images_seen", *names]].sort_values("images_seen")


def _panel(axes: Axes, parts: list[pd.DataFrame], drawn: Look) -> None:
    for part in parts:
        for name in part.columns.drop(["images_seen", MEAN]):
            axes.plot(part["images_seen"], part[name], color=drawn.colour, lw=0.7, alpha=0.3)
        axes.plot(part["images_seen"], part[MEAN], color=drawn.colour, lw=1.8, marker=drawn.marker, ms=3.5)
    axes.plot([], [], color=drawn.colour, lw=1.8, marker=drawn.marker, ms=3.5, label="mean")
    axes.plot([], [], color=drawn.colour, lw=0.7, alpha=0.5, label="a class")
    axes.set(xlabel="images seen", ylim=(-0.03, 1.03))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(si(value))))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
