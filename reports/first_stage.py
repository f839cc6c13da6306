"""First stages on their own, and what each stage costs: tables of models that compress images before they generate.

The numbers of the first table are columns of the comparison, so that seeds, intervals and conditions are treated
as everywhere; those of the second come from budgets and timings in the records.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from evaluation.record import FirstStage, Record
from reports.columns import FIRST_STAGE, duration, number, si
from reports.details import mean_by_name
from reports.grid import Grid, GridRow
from reports.tables import MISSING, Table, TableCell, TableRow

OTHER = "other"  # the part of the time that is spent outside the networks


def first_stage_grid(table: Table) -> Grid | None:
    """A row per model with a first stage; None if no record here has that exam."""
    shown = [row for row in table.rows if any(run.record.reconstruction for run in row.runs)]
    if not shown:
        return None
    places = [place for place, column in enumerate(table.columns) if column.section == FIRST_STAGE]
    columns = [table.columns[place] for place in places]
    sizes = dict.fromkeys(column.n for column in columns)
    own = next((p for p, c in enumerate(table.columns) if c.key == table.primary and c.n in sizes), None)
    titles = [f"{c.title} {c.arrow}".rstrip() + (f" ({c.n})" if len(sizes) > 1 else "") for c in columns]
    rows = [
        GridRow((
            row.label, *([_text(row.cells[own])] if own is not None else []), *(_text(row.cells[p]) for p in places),
            _codes(_stages(row)), _bits(row),
        ))
        for row in shown
    ]  # fmt: skip
    n = f"{next(iter(sizes))} test images. " if len(sizes) == 1 else ""
    return Grid(
        title="First stages: what comes back of an image",
        intro=(
            f"{n}Test images through the autoencoder and back, without a prior. rfd_… is the Fréchet distance between "
            "the images and what came back of them: the floor of what a prior over the codes can reach in fd_…. It "
            "compares an image with itself, so it has less of the error of a finite n than fd_…, and no interval with "
            "a tested method; rfd_…_train, against training images, is between independent sets as fd_…_train is. Use "
            "of the codebook has no interval either. PSNR: data range 255, of the mean squared error over all "
            "images; the window of SSIM stands under “How each number was made”. Letters refer to the notes above."
        ),
        header=(
            "model", *([f"{table.columns[own].title} of samples ↓"] if own is not None else []), *titles,
            "codes of an image", "bits/dim by part",
        ),
        rows=tuple(rows), notes=tuple(_notes(table)), text=(0, len(rows[0].cells) - 2, len(rows[0].cells) - 1),
    )  # fmt: skip


def _stages(row: TableRow) -> list[FirstStage]:
    return [run.record.reconstruction for run in row.runs if run.record.reconstruction]


def _text(cell: TableCell) -> str:
    text = " ".join(filter(None, (cell.text, cell.note.partition(";")[0]))) + (f" ({cell.mark})" if cell.mark else "")
    return f"{text} ★" if cell.best else text


def _codes(stages: list[FirstStage]) -> str:
    """Grids and size of the codebook; of several grids also how many codes each uses."""
    if not any(stage.codebook_size for stage in stages):
        return "continuous"
    texts = []
    for stage in (stage for stage in stages if stage.codebook_size):
        grids = " and ".join(f"{grid.rows} × {grid.columns}" for grid in stage.grids)
        texts.append(f"{grids} of {stage.codebook_size:,}")
    first = next(stage for stage in stages if stage.codebook_size)
    if len(first.grids) > 1:
        uses = (f"{g.rows} × {g.columns}: {g.used} used, perplexity {number(g.perplexity)}" for g in first.grids)
        texts.append(", ".join(uses))
    return "; ".join(dict.fromkeys(texts))


def _bits(row: TableRow) -> str:
    """The parts of the main likelihood, mean over seeds: what the code takes, and the picture given the code."""
    bounds = [run.record.likelihood for run in row.runs if run.record.likelihood.bits_per_dim is not None]
    parts = mean_by_name(bound.parts for bound in bounds)
    return "; ".join(f"{name} {number(value)}" for name, value in parts.items()) or MISSING


def _notes(table: Table) -> Iterable[str]:
    """Why a row or a number is not there."""
    without = []
    for row in (row for row in table.rows if not row.control and any(run.trained for run in row.runs)):
        found = _stages(row)
        if not found:
            without.append(row.label)
        elif len(found) < len(row.runs):
            yield f"{row.label}: {len(found)} of {len(row.runs)} records have the exam of the first stage."
        if found and _bits(row) == MISSING:
            reason = row.runs[0].record.likelihood.reason_missing or "it has no parts"
            yield f"{row.label}: no bits by part ({reason})."
    if without:
        yield (
            f"{', '.join(without)}: no first stage was examined; the model has none, or its record is older than "
            "this exam."
        )  # fmt: skip


# What each stage costs.


def stage_grid(table: Table) -> Grid | None:
    """A row per model and part, for models that are trained in several stages; None if none is."""
    rows = [
        GridRow(cells)
        for row in table.rows if any(len(run.record.budget.stages) > 1 for run in row.runs)
        for cells in _parts(row.label, [run.record for run in row.runs])
    ]  # fmt: skip
    if not rows:
        return None
    return Grid(
        title="Stages apart: training and sampling",
        intro=(
            "What each stage of training took, and how long its network works on a sample. Latency is the median of a "
            "single image, the last column the time per image at the best batch size; “other” is outside the "
            "networks. Parts are timed apart from the whole, and the clock inside a model costs time itself, so that "
            "they need not add up to its latency. Several seeds: means."
        ),
        header=(
            "model", "part", "training compute", "share", "training time", "images seen", "latency",
            "time per image",
        ),
        rows=tuple(rows), text=(0, 1),
    )  # fmt: skip


def _parts(label: str, records: list[Record]) -> Iterable[tuple[str, ...]]:
    flops = mean_by_name({s.name: s.flops for s in record.budget.stages} for record in records)
    seconds = mean_by_name({s.name: s.seconds for s in record.budget.stages} for record in records)
    seen = mean_by_name({s.name: float(s.images_seen) for s in record.budget.stages} for record in records)
    latency = mean_by_name(_by_part(record.speed.stage_latency_ms) for record in records)
    each = mean_by_name(_by_part(record.speed.stage_seconds) for record in records)
    total = sum(flops.values())
    names = dict.fromkeys((*flops, *(name for name in (*latency, *each) if name != OTHER)))
    for name in (*names, *([OTHER] if OTHER in {*latency, *each} else [])):
        trained = (
            (si(flops[name], "FLOP"), f"{100 * flops[name] / total:.0f} %" if total else MISSING,
             duration(seconds[name]), si(float(np.round(seen[name]))))
            if name in flops else (MISSING,) * 4
        )  # fmt: skip
        timed = f"{number(latency[name])} ms" if name in latency else MISSING
        yield label, name, *trained, timed, f"{number(1000 * each[name])} ms" if name in each else MISSING


def _by_part(times: dict[str, float]) -> dict[str, float]:
    """Times of networks, those inside one part of the model together: autoencoder.decoder is of autoencoder."""
    parts: dict[str, float] = {}
    for name, value in times.items():
        part = name.partition(".")[0]
        parts[part] = parts.get(part, 0.0) + value
    return parts
