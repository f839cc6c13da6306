"""Figures of trade-offs: precision against recall along a sweep, a likelihood against what it was calibrated by."""

from __future__ import annotations

import math
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from reports.columns import number, trimmed
from reports.curves import SweepCurves, mean_shares
from reports.plots import INK, MUTED, WIDTH, Look, log_ticks, style
from reports.tables import Table

DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
MOST_NAMED = 12  # points of a line whose setting is written beside them


def share_figure(found: SweepCurves, look: dict[str, Look]) -> Figure | None:
    """Recall to the right, precision upwards, a line per model and series joined in the order of the setting.

    None where the axis counts network evaluations, or fewer than two points of every line have both.
    """
    data = mean_shares(found.points)
    lines = [(key, part.sort_values("x")) for key, part in data.groupby(["label", "series"], sort=True)]
    if found.costs or max((len(part) for _, part in lines), default=0) < 2:
        return None
    with style():
        figure = Figure(figsize=(0.62 * WIDTH, 4.8), layout="constrained")
        axes, single = figure.add_subplot(), data.groupby("label")["series"].nunique().max() == 1
        for place, ((label, series), part) in enumerate(lines):
            item = look[str(part["model"].iloc[0])]
            axes.plot(
                part["recall"], part["precision"], color=item.colour, marker=item.marker, ms=5.5, lw=1.4, mec="white",
                mew=0.6, ls=DASHES[place % len(DASHES)], label=label if single else f"{label}, {series}", zorder=3,
            )  # fmt: skip
            step = max(1, math.ceil(len(part) / MOST_NAMED))
            for x, recall, precision in part[["x", "recall", "precision"]].to_numpy()[::step]:
                axes.annotate(
                    f"{x:g}", (recall, precision), xytext=(4, 4), textcoords="offset points", fontsize=8, color=MUTED
                )
        if found.shares is not None:
            precision, recall = found.shares
            axes.plot([recall], [precision], color=INK, marker="x", ms=8, ls="", label="real images", zorder=4)
        axes.set(xlabel="recall (how much of what is real is covered)", ylabel="precision (how many look real)")
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


def tried_values(table: Table) -> Iterator[tuple[str, str, str, str, dict[float, float]]]:
    """Label, model, kind, name of the setting and bits/dim by its value, of every run that tried several values."""
    for row in (row for row in table.rows if not row.control):
        for run in row.runs:
            for bound in run.record.likelihoods or (run.record.likelihood,):
                for name, values in bound.tried.items():
                    # A record may come from elsewhere: what has no place on the axes is left out.
                    fit = {x: y for x, y in sorted(values.items()) if 0 < x < math.inf and math.isfinite(y)}
                    if len(fit) > 1:
                        yield row.label, run.name, bound.kind or "not recorded", name, fit


def tried_figure(table: Table, look: dict[str, Look]) -> Figure | None:
    """A panel per kind and setting, a line per run, the chosen value marked; None where nothing was tried."""
    panels: dict[tuple[str, str], list[tuple[str, str, dict[float, float]]]] = {}
    for label, model, kind, name, values in tried_values(table):
        panels.setdefault((kind, name), []).append((label, model, values))
    if not panels:
        return None
    with style():
        figure = Figure(figsize=(0.62 * WIDTH * min(len(panels), 2), 3.9), layout="constrained")
        for axes, ((kind, name), lines) in zip(
            figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True
        ):
            _tried(axes, lines, look)
            axes.set(xlabel=f"{name} ({kind})", ylabel="bits/dim of validation images (lower is better)")
    return figure


def _tried(axes: Axes, lines: list[tuple[str, str, dict[float, float]]], look: dict[str, Look]) -> None:
    axes.set_xscale("log")
    labels = list(dict.fromkeys(label for label, _, _ in lines))
    named: set[str] = set()
    for label, model, values in lines:
        dashes = DASHES[labels.index(label) % len(DASHES)]
        name = None if label in named else label
        named.add(label)
        x, y = list(values), list(values.values())
        axes.plot(x, y, color=look[model].colour, ls=dashes, lw=1.4, label=name, zorder=2)
        best = min(values, key=values.__getitem__)
        axes.plot([best], [values[best]], color=look[model].colour, marker=look[model].marker, ms=8, zorder=3)
    places = [x for _, _, values in lines for x in values]
    log_ticks(axes.xaxis, min(places), max(places))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(number(value))))
    axes.legend(frameon=False, fontsize=8.5)
