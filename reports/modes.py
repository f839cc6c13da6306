"""Mode coverage: which components of a known mixture the samples reach, beside what as many true draws reach."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evaluation.record import Truth
from reports.columns import number
from reports.grid import Grid, GridRow
from reports.summary import interval_of_mean
from reports.tables import MISSING, Table, TableRow

WHAT_IT_IS = (
    "Every sample counts for the component of the mixture that it most probably comes from. In brackets stands what as "
    "many true draws have: of the modes hit it is the exact expectation, mean over components of 1 − (1 − w)ⁿ, of KL "
    "and distance the mean over sets of draws, and of the samples off all modes it is by definition. A model is as "
    "good as the truth where it matches the brackets, not where it reaches every mode or has a KL of 0."
)
HOW_TO_READ = (
    "Mode KL: from the samples' histogram to the true weights, Σ q ln(q / w) in nats, plug-in and not smoothed. Mode "
    "distance: their total variation. Off mode: samples less probable under the true density than nearly all true "
    "draws; they count for a mode without being near it. ± is half of a 95 % t-interval over seeds, nothing for one."
)


def mode_grid(table: Table) -> Grid | None:
    """Mode coverage, a row per model and control; None where no density is known."""
    rows = [(row, truths) for row in table.rows if (truths := [t for r in row.runs if (t := r.record.truth)])]
    if not rows:
        return None
    older = [row.label for row, truths in rows if any(truth.mode_kl is None for truth in truths)]
    notes = (f"Records that are older than some of these numbers: {', '.join(older)}.",) if older else ()
    return Grid(
        title="Mode coverage",
        intro=WHAT_IT_IS,
        header=(
            "model", "samples", f"of {rows[0][1][0].modes:,} modes hit, %", "mode KL, nats", "mode distance",
            "off mode, %",
        ),
        rows=tuple(_row(row, truths) for row, truths in rows), notes=(*notes, HOW_TO_READ),
    )  # fmt: skip


def _row(row: TableRow, truths: list[Truth]) -> GridRow:
    sizes = sorted({truth.n_samples for truth in truths if truth.n_samples is not None})
    cells = (
        row.label,
        " or ".join(f"{n:,}" for n in sizes) or MISSING,
        _beside(truths, lambda t: t.modes_hit, lambda t: t.modes_hit_expected, percent),
        _beside(truths, lambda t: t.mode_kl, lambda t: t.mode_kl_floor, number),
        _beside(truths, lambda t: t.mode_distance, lambda t: t.mode_distance_floor, number),
        _beside(truths, lambda t: t.off_mode, lambda t: t.off_mode_floor, percent),
    )
    return GridRow(cells, control=row.control)


def percent(share: float) -> str:
    """A share in [0, 1] in per cent, without the sign."""
    return number(100 * share)


def _beside(
    truths: list[Truth], found: Callable[[Truth], float | None], floor: Callable[[Truth], float | None],
    show: Callable[[float], str],
) -> str:
    """The mean over seeds, its error if there are several, and the floor in brackets."""
    values = [value for truth in truths if (value := found(truth)) is not None]
    floors = [value for truth in truths if (value := floor(truth)) is not None]
    if not values or not floors:
        return MISSING
    text = show(float(np.mean(values)))
    if len(values) > 1:
        low, high = interval_of_mean(values)
        text += f" ± {show((high - low) / 2)}"
    return f"{text} ({show(float(np.mean(floors)))})"
