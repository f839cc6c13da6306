"""The tables behind the first one: every likelihood, every metric, sampling speed, and fingerprints.

Each is a grid of texts with one row per model (or per number), computed from the records of
one comparison. Seeds become a mean only where they were measured under the same conditions.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from evaluation.record import Fingerprint, Likelihood, Speed
from reports.columns import FIRST_STAGE, QUALITY, duration, number, si
from reports.conditions import condition_key, short
from reports.grid import Grid, GridRow
from reports.summary import interval_of_mean
from reports.tables import MISSING, Table, TableRow

PASSED = {True: "✓", False: "✗", None: MISSING}


def likelihood_grid(table: Table) -> Grid | None:
    """A row per model and kind of bound; None if nothing here was ever asked for a likelihood."""
    rows, notes = [], []
    for row in (row for row in table.rows if not row.control):
        kinds: dict[tuple[str, int], list[Likelihood]] = defaultdict(list)
        for run in row.runs:
            for bound in run.record.likelihoods or (run.record.likelihood,):
                if bound.bits_per_dim is None:
                    kind = f", {bound.kind}" if bound.kind else ""
                    notes.append(f"{row.label}{kind}: none ({bound.reason_missing or 'no reason was recorded'}).")
                else:
                    kinds[bound.kind or "not recorded", bound.n_images].append(bound)
        rows += [_likelihood_row(row, kind, n, bounds) for (kind, n), bounds in kinds.items()]
    if not rows:
        return None  # why there is none stands in the first table's footnotes
    return Grid(
        title="Likelihood: every kind with its self-check",
        intro=(
            "Bits per dimension of unseen test images, lower is better. Kinds are different quantities (bounds "
            "from different sides, estimates under different observation models) and are not ranked against each "
            "other. ± is the standard error over images; the interval is over seeds where there are several. "
            "NFE counts network evaluations per image."
        ),
        header=(
            "model", "kind", "bits/dim", "95 % interval", "images", "NFE", "parts (bits/dim)", "self-check", "settings",
        ),
        rows=tuple(rows), notes=tuple(dict.fromkeys(notes)), text=(0, 1, 6, 7, 8),
    )  # fmt: skip


def _likelihood_row(row: TableRow, kind: str, n: int, bounds: list[Likelihood]) -> GridRow:
    values = [bound.bits_per_dim for bound in bounds if bound.bits_per_dim is not None]
    errors = [bound.standard_error for bound in bounds if bound.standard_error is not None]
    # Seeds see the same test images, so their errors do not average out: the typical one is printed.
    text = number(float(np.mean(values)), 4) + (f" ± {number(float(np.mean(errors)), 2)}" if errors else "")
    if len(values) > 1:
        low, high = interval_of_mean(values)
        interval = f"[{number(low, 4)}, {number(high, 4)}]"
    elif bounds[0].ci_low is None or bounds[0].ci_high is None:
        interval = MISSING
    else:
        interval = f"[{number(bounds[0].ci_low, 4)}, {number(bounds[0].ci_high, 4)}]"
    evaluations = [bound.nfe for bound in bounds if bound.nfe is not None]
    nfe = si(float(np.mean(evaluations))) if evaluations else MISSING
    parts = "; ".join(f"{name} {number(value)}" for name, value in mean_by_name(b.parts for b in bounds).items())
    check, failed = _self_check(bounds)
    cells = (row.label, kind, text, interval, f"{n:,}", nfe, parts or MISSING, check, _settings(bounds))
    return GridRow(cells, flagged=failed)


def _self_check(bounds: list[Likelihood]) -> tuple[str, bool]:
    """The mark and sentence of the worst check over seeds, and whether it failed."""
    order = {False: 0, None: 1, True: 2}
    worst = min(bounds, key=lambda bound: order[bound.self_check_passed])
    passed = sum(bound.self_check_passed is True for bound in bounds)
    count = f" {passed} of {len(bounds)} seeds:" if len(bounds) > 1 else ""
    if worst.self_check is None and worst.self_check_passed is None:
        return "not checked", False
    text = f"{PASSED[worst.self_check_passed]}{count} {worst.self_check or ''}".strip()
    return text, worst.self_check_passed is False


def _settings(bounds: list[Likelihood]) -> str:
    """Settings as "name = value"; where seeds differ (values tuned on validation data) all of them."""
    values: dict[str, list[str]] = defaultdict(list)
    for bound in bounds:
        for name, value in bound.settings.items():
            values[name].append(value if isinstance(value, str) else f"{value:.4g}")
    return "; ".join(f"{name} = {' / '.join(dict.fromkeys(texts))}" for name, texts in values.items()) or MISSING


def mean_by_name(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Mean of each entry over those mappings that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for part in parts:
        for name, value in part.items():
            values[name].append(value)
    return {name: float(np.mean(found)) for name, found in values.items()}


def metric_grid(table: Table) -> Grid | None:
    """Every metric as a row, every model and control as a column."""
    places = [place for place, column in enumerate(table.columns) if column.section == QUALITY]
    if not places:
        return None
    rows = []
    for place in places:
        column = table.columns[place]
        cells = [" ".join(filter(None, (column.title, column.arrow))), column.n]
        for row in table.rows:
            cell = row.cells[place]
            text = " ".join(filter(None, (cell.text, cell.note))) + (f" ({cell.mark})" if cell.mark else "")
            cells.append(f"{text} ★" if cell.best else text)
        rows.append(GridRow(tuple(cells)))
    return Grid(
        title="All metrics", intro="★: best, and its interval overlaps no other. Letters refer to the notes above.",
        header=("metric", "n", *(row.label for row in table.rows)), rows=tuple(rows), text=(0, 1), folded=True,
    )  # fmt: skip


def fingerprint_grid(table: Table) -> Grid | None:
    """How each number was made: one row per set of conditions and interval method, with the numbers it holds."""
    columns = {(c.key, c.n): c for c in table.columns if c.section in (QUALITY, FIRST_STAGE)}
    summary = table.summary[table.summary["value"].notna()]
    made: dict[tuple[str, str, object], list[tuple[str, str, Fingerprint | None]]] = defaultdict(list)
    for item in summary.itertuples():
        if (item.key, item.n) in columns:
            condition = condition_key(item.fingerprint)
            made[item.key, item.n, condition].append((item.model, item.ci_method, item.fingerprint))
    alike: dict[tuple[object, str, str], list[tuple[str, str, object]]] = defaultdict(list)
    counts = Counter(key[:2] for key in made)
    for key, values in made.items():
        methods = "; ".join(sorted({method for _, method, _ in values} - {""})) or "none"
        who = ", ".join(sorted({model for model, _, _ in values})) if counts[key[:2]] > 1 else ""
        alike[key[2], methods, who].append(key)
    if not alike:
        return None
    prints = {key[2]: values[0][2] for key, values in made.items()}
    versions = {_versions(print_) for print_ in prints.values() if print_ is not None}
    places = {pair: place for place, pair in enumerate(columns)}
    rows = []
    for (condition, methods, who), keys in alike.items():
        pairs = sorted((key[:2] for key in keys), key=places.__getitem__)
        titles = dict.fromkeys(columns[pair].title for pair in pairs)
        names = ", ".join(titles) + (f" of {who}" if who else "")
        cells = (names, *_condition_cells(prints[condition], with_versions=len(versions) > 1), methods)
        rows.append((min(places[key[:2]] for key in keys), GridRow(cells, flagged=bool(who))))
    same = f" Versions: {next(iter(versions))}." if len(versions) == 1 else ""
    return Grid(
        title="How each number was made",
        intro=(
            "The conditions of every number; numbers whose conditions differ are never ranked. SHA-256 digests are "
            f"cut to 12 digits. The interval method is that of a single measurement.{same}"
        ),
        header=(
            "metrics", "features", "weights SHA-256", "dtype", "resize", "quantiser", "n real / generated",
            "reference", "reference SHA-256", "seed", *(["versions"] if len(versions) > 1 else []), "interval method",
        ),
        rows=tuple(row for _, row in sorted(rows, key=lambda pair: pair[0])), text=tuple(range(12)), folded=True,
    )  # fmt: skip


def _condition_cells(fingerprint: Fingerprint | None, *, with_versions: bool) -> list[str]:
    if fingerprint is None:
        return ["not recorded"] * (9 + with_versions)
    shown = (
        fingerprint.features, fingerprint.weights_sha256, fingerprint.dtype, fingerprint.resize,
        fingerprint.quantiser, f"{fingerprint.n_real:,} / {fingerprint.n_fake:,}", fingerprint.reference_split,
        fingerprint.reference_sha256, fingerprint.seed, *([_versions(fingerprint)] if with_versions else []),
    )  # fmt: skip
    return ["none" if value is None else short(f"{value}") for value in shown]


def _versions(fingerprint: Fingerprint | None) -> str:
    found = sorted(fingerprint.versions.items()) if fingerprint else []
    return ", ".join(f"{name} {version}" for name, version in found) or "not recorded"


def speed_grid(table: Table) -> Grid | None:
    """Throughput, latencies, memory and where the time goes; None where nothing was timed."""
    rows = []
    for row in table.rows:
        timed = [run.record.speed for run in row.runs if run.record.speed.images_per_second is not None]
        if timed:
            rows.append(GridRow((row.label, *_speed_cells(timed))))
    if not rows:
        return None
    machines = sorted({
        f"{run.record.provenance.gpu or run.record.provenance.cpu}, {run.record.provenance.threads} threads"
        for run in table.runs if run.record.speed.images_per_second is not None
    })  # fmt: skip
    return Grid(
        title="Sampling speed",
        intro=(
            "All stages included; the first call (warm-up) is excluded from everything else. Latency is that of "
            "batch size 1. Utilisation is the share of the machine's measured matrix-product peak. Several seeds: "
            f"means. Measured on {'; '.join(machines)}."
        ),
        header=(
            "model", "images/s", "95 % interval", "best batch", "latency p50 / p90 / p95", "NFE", "FLOP per image",
            "utilisation", "peak memory", "warm-up", "where the time goes",
        ),
        rows=tuple(rows), text=(0, 10), folded=True,
    )  # fmt: skip


def _speed_cells(timed: list[Speed]) -> tuple[str, ...]:
    def mean(name: str) -> float:
        values = [value for speed in timed if (value := getattr(speed, name)) is not None]
        return float(np.mean(values)) if values else math.nan

    def shown(name: str, text: str = "{}", scale: float = 1.0) -> str:
        return MISSING if math.isnan(mean(name)) else text.format(number(mean(name) * scale))

    rates = [speed.images_per_second for speed in timed if speed.images_per_second is not None]
    low, high = interval_of_mean(rates) if len(rates) > 1 else (mean("ci_low"), mean("ci_high"))
    interval = MISSING if math.isnan(low + high) else f"[{number(low)}, {number(high)}]"
    batches = " / ".join(dict.fromkeys(f"{speed.batch_size}" for speed in timed if speed.batch_size))
    stages = mean_by_name(speed.stage_seconds for speed in timed)
    total = sum(stages.values())
    parts = ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in stages.items()) if total else ""
    warm, flops, nfe = mean("warm_up_seconds"), mean("flops_per_image"), mean("nfe")
    latencies = " / ".join(shown(f"latency_ms_p{share}") for share in (50, 90, 95))
    return (
        number(float(np.mean(rates))), interval, batches or MISSING, f"{latencies} ms",
        MISSING if math.isnan(nfe) else si(nfe), MISSING if math.isnan(flops) else si(flops, "FLOP"),
        shown("utilisation", "{} %", 100),
        shown("peak_memory_mib", "{} MiB"), MISSING if math.isnan(warm) else duration(warm), parts or MISSING,
    )  # fmt: skip
