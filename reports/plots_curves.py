"""Figures of curves: quality along a sweep of sampler settings, where bits lie, and what likelihoods are made of."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from evaluation.curves import BitProfile
from evaluation.record import Likelihood
from reports.columns import number, trimmed
from reports.curves import Member, SweepCurves, means
from reports.details import mean_by_name
from reports.plots import INK, MARKERS, MUTED, WIDTH, Look, log_ticks, style
from reports.tables import Table

MAX_COLUMNS = 3
FLOOR_DASHES = (0, (5, 3))
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
MOST_BARS = 24


def sweep_figure(found: SweepCurves, look: dict[str, Look]) -> Figure:
    """Distance along a sweep: a panel per model with a line per series, or one panel where each has one line."""
    data = means(found.points)
    labels = sorted(data["label"].unique())
    single = data.groupby("label")["series"].nunique().max() == 1
    panels = [labels] if single else [[label] for label in labels]
    columns = min(MAX_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    drawn = _looks_of_labels(data, look) if single else _looks_of_series(data)
    with style():
        height = 4.2 if lines == 1 else 0.8 + 3.1 * lines
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for place, (axes, names) in enumerate(zip(grid.flat, panels, strict=False)):
            part = data[data["label"].isin(names)]
            seen = found.points[found.points["label"].isin(names)]
            _panel(axes, part, seen, "label" if single else "series", drawn)
            _scales(axes, data, found)
            _floor(axes, found, last=place == len(panels) - 1 or place % columns == columns - 1)
            axes.set_title("" if single else names[0])
            axes.set_xlabel(found.axis.label if place >= len(panels) - columns else "")
            axes.tick_params(labelbottom=place >= len(panels) - columns)
            if place % columns == 0:
                axes.set_ylabel(f"{found.metric} (lower is better)")
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
        handles = [Line2D([], [], color=d.colour, marker=d.marker, ms=6, label=name) for name, d in drawn.items()]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(7, len(handles)), frameon=False)
    return figure


def _looks_of_labels(data: pd.DataFrame, look: dict[str, Look]) -> dict[str, Look]:
    return {str(row.label): look[str(row.model)] for row in data.drop_duplicates("label").itertuples()}


def _looks_of_series(data: pd.DataFrame) -> dict[str, Look]:
    names = sorted(data["series"].unique())
    colours = sns.color_palette("dark", 10).as_hex()  # not the palette of models
    return {name: Look(colours[i % 10], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def _panel(axes: Axes, data: pd.DataFrame, seen: pd.DataFrame, by: str, drawn: dict[str, Look]) -> None:
    for name, part in data.groupby(by):
        item, part = drawn[str(name)], part.sort_values("x")
        axes.plot(
            part["x"], part["value"], color=item.colour, marker=item.marker, ms=5.5, lw=1.6, mec="white", mew=0.6,
            zorder=3,
        )  # fmt: skip
        once = part[(part["runs"] == 1) & part["ci_low"].notna() & (part["ci_low"] > 0)]
        axes.vlines(once["x"], once["ci_low"], once["ci_high"], color=item.colour, lw=1, alpha=0.45, zorder=2)
        if part["runs"].max() > 1:
            dots = seen[seen[by] == name]
            axes.plot(dots["x"], dots["value"], ls="", marker=".", ms=4, color=item.colour, alpha=0.4, zorder=2)


def _scales(axes: Axes, data: pd.DataFrame, found: SweepCurves) -> None:
    values = [*data["value"], *([found.floor] if found.floor is not None else [])]
    if min(values) > 0:
        axes.set_yscale("log")
        log_ticks(axes.yaxis, min(values), max(values))
        axes.set_ylim(min(values) / 1.5, max(values) * 1.25)
    if found.axis.log:
        low, high = float(data["x"].min()), float(data["x"].max())
        axes.set_xscale("log")
        axes.set_xlim(low / 1.2, high * 1.2)
        log_ticks(axes.xaxis, low, high)


def _floor(axes: Axes, found: SweepCurves, *, last: bool) -> None:
    if found.floor is None:
        return
    axes.axhline(found.floor, color=MUTED, lw=1.2, ls=FLOOR_DASHES, zorder=1)
    if last:
        axes.annotate(
            f"floor\n(real images)\n{number(found.floor)}", (1.0, found.floor), xycoords=("axes fraction", "data"),
            xytext=(6, 0), textcoords="offset points", color=MUTED, fontsize=8.5, va="center",
        )  # fmt: skip


def profile_figure(profiles: Sequence[tuple[Member, BitProfile]], look: dict[str, Look]) -> Figure:
    """Error and contribution in bits per dimension along the axis of a profile; a line per model, seeds averaged."""
    groups: dict[str, list[tuple[Member, BitProfile]]] = defaultdict(list)
    for member, profile in profiles:
        groups[member.label].append((member, profile))
    first = profiles[0][1]
    with style():
        figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        handles = []
        for place, (label, items) in enumerate(sorted(groups.items())):
            drawn, x = look[items[0][0].run.name], first.positions
            errors = np.mean([profile.errors for _, profile in items], axis=0)
            bits = np.mean([profile.bits for _, profile in items], axis=0)
            dashes = DASHES[place % len(DASHES)]
            left.plot(x, errors, color=drawn.colour, ls=dashes, lw=1.8)
            right.plot(x, bits, color=drawn.colour, ls=dashes, lw=1.8, zorder=3)
            if len(groups) == 1:
                right.fill_between(x, 0, bits, color=drawn.colour, alpha=0.15, lw=0)
            handles.append(Line2D([], [], color=drawn.colour, ls=dashes, lw=1.8, label=label))
        shown = np.array([profile.errors for _, profile in profiles])
        if shown.min() > 0:
            left.set_yscale("log")
            log_ticks(left.yaxis, float(shown.min()), float(shown.max()))
        for axes in (left, right):
            axes.set_xscale("log")
            log_ticks(axes.xaxis, first.positions[0], first.positions[-1])
            axes.set_xlabel(first.label)
        left.set_title(first.error_label)
        right.set_title(f"contribution to {first.kind}, bits/dim in each of {len(first.positions)} pieces")
        right.set_ylim(bottom=min(0.0, right.get_ylim()[0]))
        figure.legend(handles=handles, loc="outside upper left", ncols=min(7, len(handles)), frameon=False)
    return figure


def parts_figure(table: Table) -> Figure | None:
    """Every kind of likelihood as a bar stacked of its parts, in bits per dimension; None where nothing has parts."""
    bars = likelihood_bars(table)[:MOST_BARS]
    if not any(len(parts) > 1 for _, parts, _ in bars):
        return None
    names = list(dict.fromkeys(name for _, parts, _ in bars for name in parts))
    palette = sns.color_palette("Set2", 8).as_hex()
    colours = {name: palette[i % 8] for i, name in enumerate(names)}
    hatches = {name: "" if i < 8 else "///" for i, name in enumerate(names)}
    with style():
        figure = Figure(figsize=(WIDTH, 1.5 + 0.42 * len(bars)), layout="constrained")
        axes = figure.add_subplot()
        for place, (_, parts, total) in enumerate(bars):
            ends = {True: 0.0, False: 0.0}  # of what is stacked to the right and to the left of 0
            for name, value in parts.items():
                axes.barh(
                    place, value, left=ends[value >= 0], height=0.62, color=colours[name], hatch=hatches[name],
                    edgecolor="white", lw=0.8, zorder=2,
                )  # fmt: skip
                ends[value >= 0] += value
            axes.plot([total, total], [place - 0.42, place + 0.42], color=INK, lw=2.2, zorder=4)
            axes.annotate(
                f"sum {number(total)}", (max(ends[True], total), place), xytext=(6, 0), textcoords="offset points",
                va="center", fontsize=9, color=INK,
            )  # fmt: skip
        axes.axvline(0, color=INK, lw=0.8, zorder=3)
        axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.tick_params(axis="y", colors=INK, length=0)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(number(value))))
        axes.set_xlabel("bits per dimension (black mark: the sum, lower is better within one kind)")
        handles = [
            Patch(facecolor=colours[name], hatch=hatches[name], edgecolor="white", label=name) for name in names
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(7, len(handles)), frameon=False)
    return figure


def likelihood_bars(table: Table) -> list[tuple[str, dict[str, float], float]]:
    """Label, parts and sum (bits per dimension, means over seeds) of every row and kind that has a number."""
    bars = []
    for row in (row for row in table.rows if not row.control):
        kinds: dict[tuple[str, int], list[Likelihood]] = defaultdict(list)
        for run in row.runs:
            for bound in run.record.likelihoods or (run.record.likelihood,):
                if bound.bits_per_dim is not None and bound.parts:
                    kinds[bound.kind or "not recorded", bound.n_images].append(bound)
        for (kind, n), bounds in kinds.items():
            parts = mean_by_name(bound.parts for bound in bounds)
            total = float(np.mean([bound.bits_per_dim for bound in bounds if bound.bits_per_dim is not None]))
            doubt = ", self-check failed" if any(bound.self_check_passed is False for bound in bounds) else ""
            bars.append((f"{row.label}: {kind}, n = {n:,}{doubt}", parts, total))
    return bars
