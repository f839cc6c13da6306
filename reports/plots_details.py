"""Figures of what lies behind the tables: bounds and metrics against the truth, speed by batch size."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from reports.collect import Run
from reports.columns import metric_title, si, trimmed
from reports.plots import INK, MUTED, WIDTH, Look, log_ticks, style
from reports.tables import Table
from reports.truth import QUALITIES, agreement_with, examined_metrics, gap_points, points_of_truth

TO_THE_EDGE = 1.96  # standard errors in half of a 95 % interval
MAX_PANELS = 4
MAX_LINES = 10  # per model
SHOWN_QUALITIES = (QUALITIES[0], QUALITIES[2])
SPREAD = 0.5  # vertical room that the seeds of one row share


def bound_gaps(runs: Iterable[Run], look: dict[str, Look]) -> Figure | None:
    """Bound minus truth, a line per model and kind, a dot with its 95 % interval per seed. None without gaps."""
    data = gap_points([run for run in runs if not run.control])
    if data.empty:
        return None
    rows = list(data.groupby(["model", "kind"]))
    with style():
        figure = Figure(figsize=(WIDTH, 1.3 + 0.5 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, lw=1.2, zorder=1)
        for place, ((model, _), part) in enumerate(rows):
            heights = place + (np.arange(len(part)) - (len(part) - 1) / 2) * SPREAD / max(len(part), 3)
            axes.errorbar(
                part["gap"], heights, xerr=TO_THE_EDGE * part["standard_error"], fmt=look[model].marker,
                color=look[model].colour, ms=6, lw=1.2, capsize=2.5, zorder=3, mec="white", mew=0.6,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [f"{model}: {kind}" for (model, kind), _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", colors=INK, length=0)
        axes.set_xlabel("bound minus truth, bits/dim (0 is the true density; left of it no valid bound can be)")
        low = min(0.0, float((data["gap"] - TO_THE_EDGE * data["standard_error"]).min()))
        high = max(0.0, float((data["gap"] + TO_THE_EDGE * data["standard_error"]).max()))
        margin = 0.06 * (high - low) or 0.01
        axes.set_xlim(low - margin, high + margin)
        axes.axvspan(low - margin, 0, color="#fbeeec", zorder=0, lw=0)
    return figure


def metrics_vs_truth(table: Table, look: dict[str, Look]) -> Figure | None:
    """Small panels: each metric against true fidelity and diversity, every run a dot. None without truth."""
    metrics = [m for m in examined_metrics(table) if not points_of_truth(table, m).empty][:MAX_PANELS]
    if not metrics:
        return None
    with style():
        figure = Figure(figsize=(WIDTH, 0.6 + 2.7 * len(SHOWN_QUALITIES)), layout="constrained")
        grid = figure.subplots(len(SHOWN_QUALITIES), MAX_PANELS, squeeze=False)
        for line, quality in zip(grid, SHOWN_QUALITIES, strict=True):
            for axes, metric in zip(line, metrics, strict=False):
                rho, n, why = agreement_with(table, metric, quality)
                _scatter(axes, points_of_truth(table, metric), quality.title, look)
                axes.set_title(metric_title(metric), fontsize=10, pad=16)
                text = why if why and len(why) < 40 else "not ranked" if why else f"rank agreement {rho:+.2f}, {n} rows"
                axes.text(0, 1.02, text, transform=axes.transAxes, color=MUTED, fontsize=8.5, va="bottom")
                axes.set_xlabel(quality.title, fontsize=8.5)
            for axes in line[len(metrics) :]:
                axes.set_axis_off()
        names = sorted({run.name for run in table.runs if run.record.truth and not run.control})
        _legend(figure, names, look, controls=any(run.control for run in table.runs if run.record.truth))
    return figure


def _scatter(axes: Axes, data: pd.DataFrame, x: str, look: dict[str, Look]) -> None:
    for (model, control), part in data.groupby(["model", "control"]):
        drawn = Look(MUTED, "x") if control else look[str(model)]
        axes.scatter(
            part[x], part["value"], facecolor=drawn.colour, marker=drawn.marker, s=42, zorder=3,
            edgecolor=None if control else "white", linewidth=1.5 if control else 0.6,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    values = data["value"]
    if values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale("log")
        log_ticks(axes.yaxis, values.min(), values.max())


def _legend(figure: Figure, names: list[str], look: dict[str, Look], *, controls: bool) -> None:
    handles = [Line2D([], [], ls="", marker=look[n].marker, color=look[n].colour, ms=7, label=n) for n in names]
    if controls:
        handles.append(Line2D([], [], ls="", marker="x", color=MUTED, ms=6, label="controls"))
    figure.legend(handles=handles, loc="outside upper left", ncols=min(7, len(handles)), frameon=False)


def speed_sweep(runs: Iterable[Run], look: dict[str, Look]) -> Figure | None:
    """Images per second against batch size: a faint line per seed, a strong one for the mean. None without a sweep."""
    rows = [
        {"model": run.name, "run": str(run.path), "batch": int(size), "rate": rate}
        for run in runs for size, rate in run.record.speed.sweep.items() if rate > 0
    ]  # fmt: skip
    if not rows:
        return None
    data = pd.DataFrame(rows).sort_values("batch")
    with style():
        figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xscale="log", yscale="log", xlabel="batch size", ylabel="images per second (higher is faster)")
        for model, part in data.groupby("model"):
            drawn = look[str(model)]
            for _, one in list(part.groupby("run"))[:MAX_LINES]:
                axes.plot(one["batch"], one["rate"], color=drawn.colour, lw=0.8, alpha=0.3)
            means = part.groupby("batch")["rate"].mean()
            axes.plot(means.index, means, color=drawn.colour, marker=drawn.marker, lw=1.8, ms=6, mec="white")
        sizes = sorted(data["batch"].unique())
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        log_ticks(axes.yaxis, data["rate"].min(), data["rate"].max())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(si(value))))
        _legend(figure, sorted(data["model"].unique()), look, controls=False)
    return figure
