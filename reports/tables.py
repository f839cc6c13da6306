"""From records to comparison tables that are ready to be rendered.

Numbers share a table only if they may be compared: same dataset and extractor (by hash),
same training budget, same number of images. Controls stand in every table of their dataset
that was measured under their conditions.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from reports.collect import CONTROL_TITLES, Collection, FailedCell, Run
from reports.columns import (
    FIXED_COLUMNS,
    FORMATS,
    QUALITY,
    SECTIONS,
    Column,
    budget_text,
    metric_rank,
    metric_title,
    primary_metric,
)
from reports.summary import Item, observations, summarise

MISSING = "—"


@dataclass(frozen=True)
class Group:
    """What records must share before their numbers may stand in one table."""

    dataset: str
    budget: float
    n_real: int
    n_fake: int
    dataset_sha256: str
    extractor_sha256: str

    @property
    def title(self) -> str:
        """Dataset, budget and number of images in words."""
        n = f"n = {self.n_real:,}"
        if self.n_real != self.n_fake:
            n = f"n = {self.n_real:,} real and {self.n_fake:,} generated images"
        return f"{self.dataset}, {budget_text(self.budget)}, {n}"


@dataclass(frozen=True)
class TableCell:
    """A printed number: its interval or kind below it, the footnote of a missing one."""

    text: str
    note: str = ""
    mark: str = ""
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """One model or control."""

    model: str
    label: str
    note: str
    control: bool
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class Table:
    """One comparison, ready to be rendered; ``summary`` holds the same numbers unformatted."""

    group: Group
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    footnotes: tuple[tuple[str, str], ...]
    failed: tuple[FailedCell, ...]
    runs: tuple[Run, ...]
    summary: pd.DataFrame

    def places(self, sections: list[str]) -> list[int]:
        """Positions of the columns of these sections."""
        return [place for place, column in enumerate(self.columns) if column.section in sections]

    @property
    def sections(self) -> list[tuple[str, int]]:
        """Headings over neighbouring columns with the number of columns each spans."""
        counts = Counter(column.section for column in self.columns)
        return [(name, counts[name]) for name in SECTIONS if counts[name]]


def build_tables(collection: Collection) -> list[Table]:
    """All comparisons, by dataset; within one, the comparison with most models and budget first."""
    members: dict[Group, list[Run]] = defaultdict(list)
    controls = [run for run in collection.runs if run.control]
    for run in collection.runs:
        if not run.control:
            members[group_of(run)].append(run)
    trained = {group.dataset for group in members}
    for run in controls:
        if run.record.dataset not in trained:  # a dataset of which only the controls are known yet
            members.setdefault(group_of(run), [])
    first: set[str] = set()
    tables = []
    for group in sorted(members, key=lambda g: _importance(g, members[g])):
        runs = (*members[group], *_matching(group, controls))
        main = group.dataset not in first
        first.add(group.dataset)
        failed = tuple(f for f in collection.failed if _belongs(f, group, members, main))
        tables.append(_table(group, runs, failed))
    return tables


def group_of(run: Run) -> Group:
    """The comparison that a run belongs to; n is that of its main distance."""
    record = run.record
    main = primary_metric(record.metrics, record.dataset)
    sizes = [record.metrics[main]] if main else list(record.metrics.values())
    return Group(
        dataset=record.dataset,
        budget=run.budget,
        n_real=max((metric.n_real for metric in sizes), default=0),
        n_fake=max((metric.n_fake for metric in sizes), default=0),
        dataset_sha256=record.provenance.dataset_sha256,
        extractor_sha256=record.provenance.extractor_sha256 or "",
    )


def _importance(group: Group, runs: list[Run]) -> tuple[str, int, float, int, str]:
    return group.dataset, -len({r.name for r in runs}), -group.budget, -len(runs), repr(group)


def _belongs(cell: FailedCell, group: Group, members: dict[Group, list[Run]], main: bool) -> bool:
    """Whether a failure is shown under a group: where its configuration is, else where its budget is."""
    if cell.failure.dataset != group.dataset:
        return False
    homes = [g for g, runs in members.items() if any(_is_cell(r, cell) for r in runs)]
    if homes:
        return group in homes
    return main if cell.budget is None else math.isclose(cell.budget, group.budget)


def _is_cell(run: Run, cell: FailedCell) -> bool:
    return (run.record.model, run.record.config_hash) == (cell.failure.model, cell.failure.config_hash)


def _matching(group: Group, controls: Iterable[Run]) -> list[Run]:
    """The newest control of each name that was measured under the conditions of the group."""
    newest: dict[str, Run] = {}
    for run in sorted(controls, key=lambda r: r.record.provenance.date):
        other = group_of(run)
        same = (other.dataset, other.n_real, other.n_fake, other.dataset_sha256, other.extractor_sha256)
        if same == (group.dataset, group.n_real, group.n_fake, group.dataset_sha256, group.extractor_sha256):
            newest[run.name] = run
    order = list(CONTROL_TITLES)
    return sorted(
        newest.values(), key=lambda r: (order.index(r.name) if r.name in order else len(order), r.name)
    )


def _table(group: Group, runs: tuple[Run, ...], failed: tuple[FailedCell, ...]) -> Table:
    summary = summarise(observations(runs))
    columns = _columns(summary)
    cells = {(row, key, n): part for row, key, n, part in _records(summary)}
    marks: dict[str, str] = {}
    names = {row: model for row, model in zip(summary["row"], summary["model"], strict=True)}
    ambiguous = {model for model, count in Counter(names.values()).items() if count > 1}
    rows = []
    for row in sorted(names, key=lambda r: _row_order(r, runs)):
        printed = tuple(_cell(cells.get((row, c.key, c.n)), c, marks) for c in columns)
        seeds = len({run.record.seed for run in runs if _is_row(run, row)})
        note = "" if row[0] else _noise_note(seeds)
        label = CONTROL_TITLES.get(row[1], row[1]) if row[0] else row[1]
        if not row[0] and row[1] in ambiguous:
            label = f"{label} · {row[2][:6]}"  # two configurations of one model
        rows.append(TableRow(row[1], label, note, row[0], printed))
    footnotes = tuple((mark, reason) for reason, mark in marks.items())
    return Table(group, columns, tuple(rows), footnotes, failed, runs, summary)


def _records(summary: pd.DataFrame) -> Iterable[tuple[object, str, str, Item]]:
    for item in summary.to_dict("records"):
        yield item["row"], item["key"], item["n"], item


def _is_row(run: Run, row: tuple[bool, str, str]) -> bool:
    return (run.control, run.name) == row[:2] and (run.control or run.record.config_hash == row[2])


def _row_order(row: tuple[bool, str, str], runs: tuple[Run, ...]) -> tuple[bool, int, str, str]:
    place = [run.name for run in runs].index(row[1]) if row[0] else 0  # controls keep their own order
    return row[0], place, row[1], row[2]


def _noise_note(seeds: int) -> str:
    return f"training noise over {seeds} seeds" if seeds > 1 else "evaluation noise, one seed"


def _columns(summary: pd.DataFrame) -> tuple[Column, ...]:
    fixed = {column.key: (place, column) for place, column in enumerate(FIXED_COLUMNS)}
    found: list[tuple[tuple[object, ...], Column]] = []
    pairs = summary[["key", "n", "higher_is_better"]].drop_duplicates(["key", "n"])
    for key, n, direction in pairs.itertuples(index=False):
        discovered = Column(key, metric_title(key), QUALITY, higher_is_better=direction)
        place, column = fixed.get(key, (0, discovered))
        order = (SECTIONS.index(column.section), place, metric_rank(key), n)
        found.append((order, replace(column, n=n)))
    return tuple(column for _, column in sorted(found, key=lambda pair: pair[0]))


def _cell(item: Item | None, column: Column, marks: dict[str, str]) -> TableCell:
    if item is None:
        item = {"value": math.nan, "reason": "not measured with this number of images"}
    reason = str(item["reason"])
    mark = marks.setdefault(reason, _letters(len(marks))) if reason else ""
    value = float(item["value"])
    if math.isnan(value):
        return TableCell(MISSING, mark=mark)
    text = FORMATS[column.unit](value, 3)
    notes = [_interval_note(item, value, column)]
    if column.key == "bits_per_dim":
        notes.append(str(item["kind"]))
    return TableCell(text, " ".join(filter(None, notes)), mark, bool(item["best"]))


def _letters(position: int) -> str:
    """a, b, ..., z, aa, ab, ... for footnotes."""
    head, tail = divmod(position, 26)
    return (_letters(head - 1) if head else "") + chr(ord("a") + tail)


def _interval_note(item: Item, value: float, column: Column) -> str:
    low, high = float(item["low"]), float(item["high"])
    if math.isnan(low) or math.isnan(high):
        return ""
    show = FORMATS[column.unit]
    if item["noise"] == "evaluation":
        return f"[{show(low, 3)}, {show(high, 3)}]"
    half = (high - low) / 2
    return f"± {show(half, 2)}" if half > 5e-4 * abs(value) else ""
