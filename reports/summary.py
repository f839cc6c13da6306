"""The numbers of one comparison: in long form, over seeds, with intervals and the best.

A model's seeds become a mean with a 95 % t-interval (training noise); a single seed keeps
the interval of its own measurement (evaluation noise). The best is marked only where its
interval overlaps no other, only among trained models, and only within one kind of number.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from reports.collect import Run
from reports.columns import FIXED_COLUMNS

NOT_TRAINED = "a control is not trained"

Item = dict[str, Any]


def observations(runs: Iterable[Run]) -> pd.DataFrame:
    """Every number of every run in long form: one row per (run, column).

    ``kind`` names conditions beyond n under which numbers may be ranked: the kind of a
    likelihood bound, the machine of a timing.
    """
    return pd.DataFrame([row for run in runs for row in _observe(run)])


def _observe(run: Run) -> list[Item]:
    record = run.record
    who: Item = {"model": run.name, "control": run.control, "seed": record.seed}
    who["row"] = (run.control, run.name, "" if run.control else record.config_hash)
    who |= {"dataset": record.dataset, "budget": run.budget}
    rows: list[Item] = []
    for name, metric in record.metrics.items():
        n = f"n = {metric.n_real:,}"
        if metric.n_real != metric.n_fake:
            n += f" real, {metric.n_fake:,} generated"
        numbers: Item = {"value": metric.value, "low": metric.ci_low, "high": metric.ci_high}
        ranking: Item = {
            "higher_is_better": metric.higher_is_better,
            "kind": "",
            "reason": metric.reason_missing,
        }
        rows.append(who | {"key": name, "n": n} | numbers | ranking)
    bound = record.likelihood
    bits: Item = {
        "value": bound.bits_per_dim,
        "low": bound.ci_low,
        "high": bound.ci_high,
        "kind": bound.kind or "",
    }
    bits |= {"n": f"n = {bound.n_images:,}", "reason": bound.reason_missing}
    rows.append(who | {"key": "bits_per_dim", "higher_is_better": False} | bits)
    rows += [who | {"low": None, "high": None, "n": ""} | row for row in _costs(run)]
    return rows


def _costs(run: Run) -> list[Item]:
    record, speed = run.record, run.record.speed
    place = record.provenance
    machine = f"{place.gpu or place.cpu}, {place.threads} threads"
    training = {
        "parameters_total": record.parameters.total,
        "train_flops": record.budget.train_flops,
        "images_seen": record.budget.images_seen,
        "wall_seconds": place.wall_seconds,
    }
    rows: list[Item] = []
    for column in FIXED_COLUMNS[1:]:
        if column.key in training:
            value = None if run.control else training[column.key]
            reason = NOT_TRAINED if run.control else None
        else:
            value, reason = getattr(speed, column.key), speed.reason_missing
        ranking: Item = {
            "higher_is_better": column.higher_is_better,
            "kind": machine if value is not None else "",
        }
        rows.append({"key": column.key, "value": value, "reason": reason} | ranking)
    return rows


def summarise(seen: pd.DataFrame) -> pd.DataFrame:
    """Long observations of one group to one row per (row, key, n), with interval and ``best``.

    Returns:
        Columns dataset, budget, row, model, control, key, n, value, low, high, seeds,
        noise ("training", "evaluation" or ""), higher_is_better, kind, reason, best.
    """
    usual = _usual_n(seen)
    cells: dict[tuple[object, ...], list[Item]] = defaultdict(list)
    for item in seen.astype(object).where(seen.notna(), None).to_dict("records"):
        if item["value"] is None:
            item["n"] = usual.get(item["key"], item["n"])  # a missing number joins its column
        cells[item["row"], item["key"], item["n"]].append(item)
    summary = pd.DataFrame([_summary(items) for items in cells.values()])
    summary["best"] = False
    for _, column in summary[~summary["control"] & summary["value"].notna()].groupby(["key", "n", "kind"]):
        winner = separable_best(column)
        if winner is not None:
            summary.loc[winner, "best"] = True
    return summary


def _usual_n(seen: pd.DataFrame) -> dict[object, str]:
    present = seen[seen["value"].notna()]
    return {key: Counter(part["n"]).most_common(1)[0][0] for key, part in present.groupby("key")}


def _summary(items: list[Item]) -> Item:
    present = [item for item in items if item["value"] is not None]
    base = (present or items)[0]
    kept = ("dataset", "budget", "row", "model", "control", "key", "n", "higher_is_better")
    result = {name: base[name] for name in kept}
    reasons = {str(i["reason"] or "no reason was recorded") for i in items if i["value"] is None}
    if present and reasons:
        missing = sum(item["value"] is None for item in items)
        reasons = {f"missing for {missing} of {len(items)} seeds: {reason}" for reason in reasons}
    kinds = " / ".join(sorted({str(item["kind"]) for item in present}))
    result |= {"seeds": len(present), "kind": kinds, "reason": "; ".join(sorted(reasons))}
    return result | _interval(present)


def _interval(present: list[Item]) -> Item:
    values = np.array([item["value"] for item in present], dtype=float)
    if len(values) == 0:
        return {"value": math.nan, "low": math.nan, "high": math.nan, "noise": ""}
    mean = float(values.mean())
    if len(values) >= 2:
        half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / math.sqrt(len(values)))
        return {"value": mean, "low": mean - half, "high": mean + half, "noise": "training"}
    low, high = (math.nan if present[0][end] is None else present[0][end] for end in ("low", "high"))
    return {"value": mean, "low": low, "high": high, "noise": "evaluation"}


def separable_best(column: pd.DataFrame) -> object | None:
    """Index of the best row if its interval overlaps no other's, else None.

    None as well with fewer than two rows, without a direction, or if any interval is unknown.
    """
    direction = column["higher_is_better"].iloc[0]
    if len(column) < 2 or direction is None or column[["low", "high"]].isna().any(axis=None):
        return None
    winner = column["value"].idxmax() if direction else column["value"].idxmin()
    rest = column.drop(index=winner)
    low, high = column.loc[winner, "low"], column.loc[winner, "high"]
    apart = (rest["high"] < low).all() if direction else (rest["low"] > high).all()
    return winner if apart else None
