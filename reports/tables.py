"""From records to comparison tables that are ready to be rendered.

Numbers share a table only if they may be compared: same dataset and extractor (by hash),
same training budget, same number of images. Controls stand in every table of their dataset
that was measured under their conditions, and so do images made elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from evaluation.record import Record
from reports.collect import CONTROL_TITLES, Collection, FailedCell, Run
from reports.columns import (
    FIRST_STAGE,
    FIXED_COLUMNS,
    FORMATS,
    QUALITY,
    SECTIONS,
    UNITS,
    Column,
    budget_text,
    main_metrics,
    metric_rank,
    metric_title,
    primary_metric,
)
from reports.conditions import Conditions, mixture
from reports.summary import Item, observations, primary_of, summarise

MISSING = "—"
NOT_MEASURED: Item = {"value": math.nan, "reason": "not measured with this number of images", "doubt": ""}


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
    """One model, control, or set of images made elsewhere, with its runs (one per seed)."""

    model: str
    label: str
    note: str
    control: bool
    cells: tuple[TableCell, ...]
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Table:
    """One comparison, ready to be rendered; ``summary`` holds the same numbers unformatted.

    ``notices`` say which numbers are not ranked, and why.
    """

    group: Group
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    footnotes: tuple[tuple[str, str], ...]
    failed: tuple[FailedCell, ...]
    runs: tuple[Run, ...]
    summary: pd.DataFrame
    notices: tuple[str, ...] = ()

    def places(self, sections: list[str]) -> list[int]:
        """Positions of those columns of these sections that the first table shows."""
        return [p for p, column in enumerate(self.columns) if column.main and column.section in sections]

    @property
    def sections(self) -> list[tuple[str, int]]:
        """Headings over neighbouring columns of the first table with the number each spans."""
        counts = Counter(column.section for column in self.columns if column.main)
        return [(name, counts[name]) for name in SECTIONS if counts[name]]

    @property
    def primary(self) -> str | None:
        """The distance that this comparison is about."""
        return primary_of(self.summary)


def build_tables(collection: Collection) -> list[Table]:
    """All comparisons, by dataset; within one, the comparison with most models and budget first."""
    members: dict[Group, list[Run]] = defaultdict(list)
    controls = [run for run in collection.runs if run.control]
    for run in collection.runs:
        if run.trained:
            members[group_of(run)].append(run)
    hosts = {group: runs[0] for group, runs in members.items()}
    for run in collection.runs:
        if run.external:
            homes = [group for group, host in hosts.items() if _alike(run, host)]
            for group in homes or [group_of(run)]:
                members[group].append(run)
    known = {group.dataset for group in members}
    for run in controls:
        if run.record.dataset not in known:  # a dataset of which only the controls are known yet
            members.setdefault(group_of(run), [])
    first: dict[str, Table] = {}
    tables = []
    for group in sorted(members, key=lambda g: _importance(g, members[g])):
        runs = (*members[group], *_matching(group, controls))
        main = group.dataset not in first
        failed = tuple(f for f in collection.failed if _belongs(f, group, members, main))
        table = _table(group, runs, failed)
        if not main and runs and not any(run.trained for run in runs):
            table = replace(table, notices=(*_apart(table, first[group.dataset]), *table.notices))
        first.setdefault(group.dataset, table)
        tables.append(table)
    return tables


def main_metric(record: Record) -> str | None:
    """The distance that a record is grouped by."""
    named = record.metrics.get("precision") or record.metrics.get("density")
    return primary_metric(record.metrics, record.dataset, named.features if named else None)


def group_of(run: Run) -> Group:
    """The comparison that a run belongs to; n and extractor are those of its main distance."""
    record = run.record
    main = main_metric(record)
    sizes = [record.metrics[main]] if main else list(record.metrics.values())
    print_ = record.metrics[main].fingerprint if main else None
    extractor = print_.weights_sha256 if print_ else record.provenance.extractor_sha256
    return Group(
        dataset=record.dataset,
        budget=run.budget,
        n_real=max((metric.n_real for metric in sizes), default=0),
        n_fake=max((metric.n_fake for metric in sizes), default=0),
        dataset_sha256=record.provenance.dataset_sha256,
        extractor_sha256=extractor or "",
    )


def _alike(run: Run, host: Run) -> bool:
    """Whether images made elsewhere sat the same exam as the models of a comparison."""
    if replace(group_of(run), budget=0) != replace(group_of(host), budget=0):
        return False
    return not _difference(run, host)


def _difference(run: Run, host: Run) -> str:
    """What differs between two runs' main distances; "" if nothing does or one of them is missing."""
    values = [(r.name, r.record.metrics.get(main_metric(r.record) or "")) for r in (host, run)]
    return mixture(Conditions(who, value.fingerprint) for who, value in values if value and value.value is not None)


def _apart(table: Table, main: Table) -> list[str]:
    """Why images made elsewhere do not stand in the main comparison."""
    host = next((run for run in main.runs if run.trained), None)
    reasons = {run.name: _difference(run, host) for run in table.runs if run.external} if host else {}
    return [f"{name} stands in a table of its own: {reason}." for name, reason in reasons.items() if reason]


def _importance(group: Group, runs: list[Run]) -> tuple[str, bool, int, float, int, str]:
    untrained = not any(run.trained for run in runs)
    return group.dataset, untrained, -len({r.name for r in runs}), -group.budget, -len(runs), repr(group)


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
    cells: dict[tuple[object, str, str], list[Item]] = defaultdict(list)
    for item in summary.to_dict("records"):
        cells[item["row"], item["key"], item["n"]].append(item)
    marks: dict[str, str] = {}
    names = {row: model for row, model in zip(summary["row"], summary["model"], strict=True)}
    counts = Counter(names.values())
    rows = []
    members: dict[tuple[bool, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        members[run.control, run.name, "" if run.control else run.record.config_hash].append(run)
    for row in sorted(names, key=lambda r: _row_order(r, members[r], runs)):
        printed = tuple(
            _beside_floor(_cell(cells.get((row, c.key, c.n), []), c, marks), cells.get((row, f"r{c.key}", c.n), []))
            for c in columns
        )
        label, note = _label(row, members[row], twice=counts[row[1]] > 1)
        rows.append(TableRow(row[1], label, note, row[0], printed, tuple(members[row])))
    footnotes = tuple((mark, reason) for reason, mark in marks.items())
    return Table(group, columns, tuple(rows), footnotes, failed, runs, summary, _notices(summary))


def _label(row: tuple[bool, str, str], runs: list[Run], *, twice: bool) -> tuple[str, str]:
    """How a row is called, and what its intervals hold."""
    if row[0]:
        return CONTROL_TITLES.get(row[1], row[1]), ""
    label = f"{row[1]} · {row[2][:6]}" if twice else row[1]  # two configurations of one model
    if runs[0].external:
        return f"{label} (images made elsewhere)", "evaluation noise"
    seeds = len({run.record.seed for run in runs})
    return label, f"training noise over {seeds} seeds" if seeds > 1 else "evaluation noise, one seed"


def _notices(summary: pd.DataFrame) -> tuple[str, ...]:
    """One sentence per reason why columns are not ranked, or why a control is no yardstick in them."""
    keys: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    doubtful = summary[(summary["unranked"] != "") & (summary["unranked"] != summary["doubt"])]
    mixed = set(doubtful.loc[~doubtful["control"], "key"])
    for item in doubtful.sort_values("key", key=lambda k: k.map(metric_rank)).itertuples():
        if not item.control:
            keys["not ranked", item.unranked][item.key] = None
        elif item.key not in mixed:
            keys["controls are no yardstick", item.unranked][item.key] = None
    return tuple(f"{', '.join(names)}: {what}: {reason}." for (what, reason), names in keys.items())


def _row_order(
    row: tuple[bool, str, str], members: list[Run], runs: tuple[Run, ...]
) -> tuple[bool, bool, int, str, str]:
    place = [run.name for run in runs].index(row[1]) if row[0] else 0  # controls keep their own order
    return row[0], members[0].external, place, row[1], row[2]


def _columns(summary: pd.DataFrame) -> tuple[Column, ...]:
    fixed = {column.key: (place, column) for place, column in enumerate(FIXED_COLUMNS)}
    found: list[tuple[tuple[object, ...], Column]] = []
    shown = main_metrics(summary["key"], primary_of(summary))
    pairs = summary[["key", "n", "higher_is_better", "section"]].drop_duplicates(["key", "n"])
    for key, n, direction, section in pairs.itertuples(index=False):
        discovered = Column(
            key, metric_title(key), section or QUALITY, UNITS.get(key, ""), higher_is_better=direction,
            main=key in shown,
        )
        place, column = fixed.get(key, (0, discovered))
        order = (SECTIONS.index(column.section), place, metric_rank(key), n)
        found.append((order, replace(column, n=n)))
    return tuple(column for _, column in sorted(found, key=lambda pair: pair[0]))


def _cell(items: list[Item], column: Column, marks: dict[str, str]) -> TableCell:
    if len(items) > 1:  # seeds of one row that were measured under different conditions
        mark = marks.setdefault(f"not averaged over seeds: {items[0]['unranked']}", _letters(len(marks)))
        values = (FORMATS[column.unit](float(item["value"]), 3) for item in items)
        return TableCell(" / ".join(values), mark=mark)
    if not items and column.section == FIRST_STAGE:
        return TableCell(MISSING)  # most models have none, which needs no footnote
    item: Item = items[0] if items else NOT_MEASURED
    reason = "; ".join(filter(None, (str(item["reason"]), str(item["doubt"]))))
    mark = marks.setdefault(reason, _letters(len(marks))) if reason else ""
    value = float(item["value"])
    if math.isnan(value):
        return TableCell(MISSING, mark=mark)
    text = FORMATS[column.unit](value, 3)
    notes = [_interval_note(item, value, column)]
    if column.key == "bits_per_dim":
        notes.append(str(item["kind"]))
    return TableCell(text, " ".join(filter(None, notes)), mark, bool(item["best"]))


def _beside_floor(cell: TableCell, floor: list[Item]) -> TableCell:
    """The distance of samples with that of the first stage, which no prior over its codes is expected to beat."""
    if cell.text == MISSING or len(floor) != 1 or math.isnan(float(floor[0]["value"])):
        return cell
    text = f"first stage: {FORMATS[''](float(floor[0]['value']), 3)}"
    return replace(cell, note="; ".join(filter(None, (cell.note, text))))


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
