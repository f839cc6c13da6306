"""Known density: how far samples and bounds are from the truth, and whether the metrics see it.

Where the density of the data is known, a sample's true log-likelihood and mode can be computed.
So the usual metrics, which must guess from features, can themselves be examined: do they rank
models (and controls) as the truth does? Spearman's rank correlation answers that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from evaluation.record import BoundGap, Truth
from reports.collect import Run
from reports.columns import main_metrics, metric_title, number
from reports.conditions import Conditions, mixture
from reports.grid import Grid, GridRow
from reports.summary import interval_of_mean
from reports.tables import MISSING, Table, TableRow

LEAST_ROWS = 4
LEAST_ERRORS = 3  # a bound below the truth by more standard errors than this is no bound

WHAT_IT_IS = (
    "This data set is drawn from a known distribution: a mixture of many fixed templates with independent noise "
    "in every pixel, so that the exact probability of any image can be computed. That gives the truth which other "
    "data sets hide: how probable a model's samples really are, which of the templates (modes) they reach, and how "
    "far a claimed likelihood is from the real one."
)
HOW_TO_READ = (
    "Samples may have a lower cross-entropy than the entropy if they keep to the probable images. ± is a standard "
    "error for one seed and half of a 95 % t-interval for several. A bound more "
    f"than {LEAST_ERRORS} standard errors below the truth is marked ✗."
)


@dataclass(frozen=True)
class Quality:
    """One true property of samples, and which direction is better."""

    title: str
    of: Callable[[Truth], float]
    higher_is_better: bool


QUALITIES = (
    Quality("fidelity: cross-entropy − entropy", lambda truth: truth.cross_entropy - truth.entropy, False),
    Quality("diversity: modes reached", lambda truth: float(truth.modes_reached), True),
    Quality("diversity: mode distance", lambda truth: truth.mode_distance, False),
)


def truth_grid(table: Table) -> Grid | None:
    """Samples against the truth, a row per model and control; None where no density is known."""
    rows = [(row, truths) for row in table.rows if (truths := [t for r in row.runs if (t := r.record.truth)])]
    if not rows:
        return None
    first = rows[0][1][0]
    beaten = [f"{row.label}: {sentence}" for row, truths in rows if (sentence := _beats(truths))]
    return Grid(
        title="Against the truth",
        intro=(
            f"{WHAT_IT_IS} The entropy of the source is {number(first.entropy, 4)}"
            f"{_error_of_entropy(first)} bits/dim: on average no valid bound is below it."
        ),
        header=("model", "cross-entropy of samples", "minus entropy", "bound − truth, bits/dim"),
        rows=tuple(_truth_row(row, truths) for row, truths in rows), notes=(*beaten, HOW_TO_READ), text=(0, 3),
    )  # fmt: skip


def _error_of_entropy(truth: Truth) -> str:
    """The error in print, nothing where it is rounding."""
    return f" ± {number(truth.entropy_error, 2)}" if truth.entropy_error > 1e-9 else ""


def _truth_row(row: TableRow, truths: list[Truth]) -> GridRow:
    kinds = dict.fromkeys(gap.kind for truth in truths for gap in truth.gaps)
    gaps = [[gap for truth in truths for gap in truth.gaps if gap.kind == kind] for kind in kinds]
    cells = (
        row.label,
        _with_error([truth.cross_entropy for truth in truths], truths[0].cross_entropy_error),
        _with_error([t.cross_entropy - t.entropy for t in truths], math.hypot(
            truths[0].cross_entropy_error, truths[0].entropy_error)),
        "; ".join(map(_gap_text, gaps)) or MISSING,
    )  # fmt: skip
    return GridRow(cells, control=row.control, flagged=bool(_beats(truths)))


def _with_error(values: list[float], error: float) -> str:
    if len(values) > 1:
        low, high = interval_of_mean(values)
        error = (high - low) / 2
    return f"{number(float(np.mean(values)), 4)} ± {number(error, 2)}"


def _gap_text(gaps: list[BoundGap]) -> str:
    """One kind's gap, over all seeds."""
    mark = "✗ " if any(impossible(gap) for gap in gaps) else ""
    return f"{mark}{gaps[0].kind} {_with_error([gap.gap for gap in gaps], gaps[0].standard_error)}"


def impossible(gap: BoundGap) -> bool:
    """Whether a bound beats the truth by more than its error allows."""
    return gap.gap < -LEAST_ERRORS * gap.standard_error


def _beats(truths: list[Truth]) -> str:
    """The sentence that names bounds which beat the truth; "" if none does."""
    wrong = [gap for truth in truths for gap in truth.gaps if impossible(gap)]
    if not wrong:
        return ""
    worst = min(wrong, key=lambda gap: gap.gap)
    return (
        f"its {worst.kind} bound claims {number(-worst.gap)} bits/dim less than the true density assigns, more than "
        f"{LEAST_ERRORS} standard errors ({number(worst.standard_error, 2)}): it is no valid bound "
        f"({len(wrong)} of {sum(len(truth.gaps) for truth in truths)} measurements)."
    )


def examined_metrics(table: Table) -> list[str]:
    """The metrics that are held against the truth: those of the first table."""
    present = table.summary[table.summary["value"].notna()]
    return [key for key in main_metrics(present["key"], table.primary) if not key.startswith("memorization")]


def points_of_truth(table: Table, metric: str) -> pd.DataFrame:
    """One row per run with this metric and a truth: model, control, seed, value, and one column per quality."""
    rows = [
        {"model": run.name, "control": run.control, "seed": run.record.seed, "value": value.value}
        | {quality.title: quality.of(run.record.truth) for quality in QUALITIES}
        for run in table.runs
        if run.record.truth and (value := run.record.metrics.get(metric)) and value.value is not None
    ]
    return pd.DataFrame(rows, columns=["model", "control", "seed", "value", *(q.title for q in QUALITIES)])


def agreement(values: Sequence[float], truth: Sequence[float], same_direction: bool) -> float:
    """Spearman's rank correlation, turned so that +1 means "ranks as the truth does"; NaN if undefined."""
    if len(set(values)) < 2 or len(set(truth)) < 2:
        return math.nan
    return float(spearmanr(values, truth).statistic) * (1 if same_direction else -1)


def agreement_with(table: Table, metric: str, quality: Quality) -> tuple[float, int, str]:
    """Rank agreement of a metric with one true quality, n of rows, and why there is none ("" if there is)."""
    held: list[Conditions] = []
    directions = set()
    for run in table.runs:
        value = run.record.metrics.get(metric)
        if run.record.truth and value and value.value is not None:
            held.append(Conditions(run.name, value.fingerprint))
            directions.add(value.higher_is_better)
    if len(held) < LEAST_ROWS:
        return math.nan, len(held), f"too few rows ({len(held)})"
    if differing := mixture(held):
        return math.nan, len(held), f"not ranked: {differing}"
    data = points_of_truth(table, metric)
    rho = agreement(data["value"].tolist(), data[quality.title].tolist(), directions == {quality.higher_is_better})
    return rho, len(held), "all values are equal" if math.isnan(rho) else ""


def agreement_grid(table: Table) -> Grid | None:
    """How well each metric ranks all rows (models x seeds, controls) as the truth does."""
    metrics = examined_metrics(table)
    if not metrics or not any(run.record.truth for run in table.runs):
        return None
    rows = []
    for metric in metrics:
        found = [agreement_with(table, metric, quality) for quality in QUALITIES]
        texts = [f"{MISSING} ({why})" if why else f"{rho:+.2f}" for rho, _, why in found]
        rows.append(GridRow((metric_title(metric), str(found[0][1]), *texts)))
    return Grid(
        title="Do the metrics rank as the truth does?",
        intro=(
            "Spearman's rank correlation over all rows of this comparison (every seed of every model, and the "
            "controls) between a metric and a true property of the samples. +1: the same order, 0: unrelated, "
            f"−1: the reverse. At least {LEAST_ROWS} rows are needed; with few rows only a large value means much, "
            "and seeds of one model are not independent of each other."
        ),
        header=("metric", "rows", *(quality.title for quality in QUALITIES)), rows=tuple(rows),
    )  # fmt: skip


def gap_points(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run and kind of bound: model, kind, gap, standard_error (bits per dimension)."""
    rows = [
        {"model": run.name, "kind": gap.kind, "gap": gap.gap, "standard_error": gap.standard_error}
        for run in runs if run.record.truth for gap in run.record.truth.gaps
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "kind", "gap", "standard_error"])
