"""The figures of the report. Each function returns a matplotlib figure and draws from records only.

Colours are those of seaborn's colour-blind palette, one per model in every figure, with a
marker of its own so that colour is never the only cue. Controls are grey lines. Figures are
built without pyplot: no global state, no display.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from reports.collect import Run
from reports.columns import number, si, trimmed

WIDTH = 11.0  # inches; the page shows figures at about this width
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
INK, MUTED = "#23262d", "#6b7280"
MAX_CURVE_POINTS = 200
CONTROL_LINES = {
    "real_train": ("floor (real images)", (0, (5, 3))),
    "gaussian": ("fitted Gaussian", (0, (1, 2))),
}


@dataclass(frozen=True)
class Look:
    """How one model is drawn."""

    colour: str
    marker: str


def looks(models: Iterable[str]) -> dict[str, Look]:
    """One colour and marker per model name; the same names always get the same ones."""
    names = sorted(set(models))
    colours = sns.color_palette("colorblind", 10).as_hex()
    return {
        name: Look(colours[i % len(colours)], MARKERS[(i + i // len(colours)) % len(MARKERS)])
        for i, name in enumerate(names)
    }


def style() -> AbstractContextManager[None]:
    """Settings all figures share, as a context manager."""
    settings = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.85)
    settings |= {
        "axes.edgecolor": "#c9ced6", "axes.labelcolor": INK, "axes.titlesize": 11, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "grid.color": "#eceff3",
        "svg.hashsalt": "paragon", "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
        "text.parse_math": False,  # names and reasons come from records
    }  # fmt: skip
    return mpl.rc_context(settings)


def render(figure: Figure) -> tuple[bytes, bytes]:
    """SVG (text as paths, no date: equal records give equal bytes) and PNG of a figure."""
    FigureCanvasAgg(figure)
    svg, png = BytesIO(), BytesIO()
    with style():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, not again for every format
        figure.savefig(
            svg, format="svg", bbox_inches="tight", facecolor="white", metadata={"Date": None}, dpi=160
        )
        figure.savefig(png, format="png", bbox_inches="tight", facecolor="white", dpi=160)
    return svg.getvalue(), png.getvalue()


def points(runs: Iterable[Run], metric: str) -> pd.DataFrame:
    """One row per run that has ``metric``: model, control, external, seed, budget, distance, seconds, flops."""
    rows = []
    for run in runs:
        score = run.record.metrics.get(metric)
        if score is None or score.value is None:
            continue
        rate = run.record.speed.images_per_second
        rows.append({
            "model": run.name, "control": run.control, "external": run.external, "seed": run.record.seed,
            "budget": run.budget,
            "distance": score.value, "seconds": 1 / rate if rate else math.nan,
            "flops": math.nan if run.record.budget.train_flops is None else run.record.budget.train_flops,
        })  # fmt: skip
    names = ["model", "control", "external", "seed", "budget", "distance", "seconds", "flops"]
    return pd.DataFrame(rows, columns=names)


def quality_vs_time(data: pd.DataFrame, metric: str, look: dict[str, Look]) -> Figure | None:
    """Distance against sampling time per image; every seed is a dot. None without a timed run."""
    trained = data[~data["control"] & data["seconds"].notna()]
    if trained.empty:
        return None
    with style():
        figure, axes = _axes(WIDTH, 4.4)
        _dots(axes, trained, "seconds", look)
        _log_x(axes, trained["seconds"], lambda s: f"{number(s * 1000)} ms" if s < 1 else f"{number(s)} s")
        axes.set(
            xlabel="sampling time per image, best batch size (left is faster)", ylabel=_distance_label(metric)
        )
        _distance_axis(axes, data, look)
    return figure


def quality_vs_compute(data: pd.DataFrame, metric: str, look: dict[str, Look]) -> Figure | None:
    """Distance against training compute, all budgets; lines join a model's means. None without a run."""
    trained = data[~data["control"] & (data["flops"] > 0)]
    if trained.empty:
        return None
    with style():
        figure, axes = _axes(WIDTH, 4.4)
        for model, part in trained.groupby("model"):
            means = part.groupby("budget")[["flops", "distance"]].mean()
            axes.plot(
                means["flops"], means["distance"], color=look[model].colour, lw=1.4, alpha=0.7, zorder=2
            )
        _dots(axes, trained, "flops", look)
        _log_x(axes, trained["flops"], lambda flops: si(flops, "FLOP"))
        axes.set(xlabel="training compute (left is cheaper)", ylabel=_distance_label(metric))
        _distance_axis(axes, data, look)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _distance_label(metric: str) -> str:
    return f"{metric} (lower is better)"


def _dots(axes: Axes, data: pd.DataFrame, x: str, look: dict[str, Look]) -> None:
    names = sorted(data["model"].unique())
    sns.scatterplot(
        data=data, x=x, y="distance", hue="model", style="model", hue_order=names, style_order=names, ax=axes,
        palette={n: look[n].colour for n in names}, markers={n: look[n].marker for n in names},
        s=80, alpha=0.85, edgecolor="white", linewidth=0.8, legend=False, zorder=3,
    )  # fmt: skip
    handles = [
        Line2D([], [], ls="", marker=look[n].marker, color=look[n].colour, ms=8, label=n) for n in names
    ]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=min(6, len(names)),
        frameon=False, handletextpad=0.2, columnspacing=1.4,
    )  # fmt: skip


def _log_x(axes: Axes, values: pd.Series, show: Callable[[float], str]) -> None:
    """A log axis with round, readable ticks (1-2-5) that also works for one single value."""
    low, high = float(values.min()), float(values.max())
    axes.set_xscale("log")
    margin = max(1.25, (high / low) ** 0.08, (10 * low / high) ** 0.5)  # at least a decade
    axes.set_xlim(low / margin, high * margin)
    log_ticks(axes.xaxis, low, high)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(show(value))))


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks 1-2-5 for a range of less than three decades, powers of ten for more; no minor ticks."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(number(value))))


def _distance_axis(axes: Axes, data: pd.DataFrame, look: dict[str, Look]) -> None:
    """Control lines, labelled outside the right edge, and a log scale where distances differ much.

    Images made elsewhere have neither a speed nor a cost here, so they are lines too, labelled at the left.
    """
    for name, level in data[data["external"].astype(bool)].groupby("model")["distance"].mean().items():
        axes.axhline(level, color=look[str(name)].colour, lw=1.2, zorder=1)
        axes.annotate(
            f"{name} (made elsewhere)", (0.0, level), xycoords=("axes fraction", "data"), xytext=(6, 2),
            textcoords="offset points", color=look[str(name)].colour, fontsize=8.5,
        )  # fmt: skip
    levels = data[data["control"]].groupby("model")["distance"].mean()
    levels = levels[levels.index.isin(CONTROL_LINES)].sort_values()
    for position, (name, level) in enumerate(levels.items()):
        label, dashes = CONTROL_LINES[str(name)]
        axes.axhline(level, color=MUTED, lw=1.2, ls=dashes, zorder=1)
        axes.annotate(
            f"{label}\n{number(level)}", (1.0, level), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", color=MUTED, fontsize=8.5, va="top" if position == 0 else "bottom",
        )  # fmt: skip
    shown = pd.concat([data.loc[~data["control"], "distance"], levels])
    if shown.min() > 0 and shown.max() > 8 * shown.min():
        axes.set_yscale("log")
        log_ticks(axes.yaxis, shown.min(), shown.max())
    elif shown.min() > 0:
        axes.set_ylim(0, shown.max() * 1.08)


def training_curves(logs: Sequence[tuple[Run, pd.DataFrame]], look: dict[str, Look]) -> Figure | None:
    """Losses over images seen: a panel per model and stage, a line per loss and seed.

    Args:
        logs: Runs with their training log (columns images_seen, optionally stage, and losses).
        look: Colour per model.
    """
    panels: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for run, log in logs:
        stages = log["stage"].astype(str) if "stage" in log else pd.Series("training", index=log.index)
        for stage, part in log.groupby(stages, sort=False):
            panels.setdefault((run.name, str(stage)), []).append(part)
    if not panels:
        return None
    columns = len(panels) if len(panels) <= 4 else 3
    lines = math.ceil(len(panels) / columns)
    with style():
        figure = Figure(
            figsize=(WIDTH, 0.5 + 2.7 * lines), layout=ConstrainedLayoutEngine(h_pad=0.14, w_pad=0.08)
        )
        grid = list(figure.subplots(lines, columns, squeeze=False).flat)
        for axes, ((model, stage), parts) in zip(grid, sorted(panels.items()), strict=False):
            _curves(axes, parts, look[model].colour)
            axes.set_title(model if stage in (model, "training") else f"{model}: {stage}")
            axes.set_xlabel("images seen")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
    return figure


def _curves(axes: Axes, parts: list[pd.DataFrame], colour: str) -> None:
    losses = [c for c in parts[0] if c.endswith("loss") and any(p[c].notna().any() for p in parts if c in p)]
    shades = sns.light_palette(colour, len(losses) + 2)[2:][::-1]
    dashes = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
    heights = []
    for i, (loss, shade) in enumerate(zip(losses, shades, strict=True)):
        for part in (p for p in parts if loss in p):
            x, y = _thinned(part, loss)
            axes.plot(x, y, color=shade, ls=dashes[i % len(dashes)], lw=1.3, alpha=0.85)
            heights.append(y[len(y) // 50 :])  # the first steps are off any scale
        axes.plot([], [], color=shade, ls=dashes[i % len(dashes)], label=loss.replace("_", " "))
    seen = np.concatenate(heights) if heights else np.zeros(0)
    if len(seen):
        low, high = seen.min(), seen.max()
        if low > 0 and high > 20 * low:
            axes.set_yscale("log")
        elif high > low:
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.legend(frameon=False, fontsize=8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(si(value))))
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))


def _thinned(log: pd.DataFrame, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """A sparse log column as at most MAX_CURVE_POINTS means over neighbouring entries."""
    rows = log[["images_seen", loss]].apply(pd.to_numeric, errors="coerce").dropna()
    rows = rows[np.isfinite(rows).all(axis=1)].sort_values("images_seen")
    bins = np.arange(len(rows)) // max(1, math.ceil(len(rows) / MAX_CURVE_POINTS))
    means = rows.groupby(bins).mean()
    return means["images_seen"].to_numpy(), means[loss].to_numpy()
