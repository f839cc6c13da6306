"""The numbers of one comparison: in long form, over seeds, with intervals and the best.

A model's seeds become a mean with a 95 % t-interval (training noise); a single seed keeps
the interval of its own measurement (evaluation noise). The best is marked only where its
interval overlaps no other, never among controls, and only within one kind of number. Numbers
of different fingerprints are neither averaged nor ranked.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from reports.collect import Run
from reports.columns import FIRST_STAGE, FIXED_COLUMNS, QUALITY, primary_metric
from reports.conditions import Conditions, condition_key, mixture

NOT_TRAINED = "a control is not trained"
SEED_INTERVAL = "t-interval of the mean over seeds"
CHECK_FAILED = "its self-check failed"

Item = dict[str, Any]


def observations(runs: Iterable[Run]) -> pd.DataFrame:
    """Every number of every run in long form: one row per (run, column).

    ``kind`` names conditions beyond n under which numbers may be ranked: the kind of a
    likelihood bound, the machine of a timing. ``fingerprint`` is that of a metric, ``doubt`` why a
    number must not be ranked whatever the others are.
    """
    return pd.DataFrame([row for run in runs for row in _observe(run)])


def _observe(run: Run) -> list[Item]:
    record = run.record
    who: Item = {"model": run.name, "control": run.control, "source": record.source, "seed": record.seed}
    who["row"] = (run.control, run.name, "" if run.control else record.config_hash)
    who |= {"dataset": record.dataset, "budget": run.budget, "kind": "", "doubt": "", "n": ""}
    who |= {"low": None, "high": None, "fingerprint": None, "ci_method": None, "features": None}
    who["section"] = ""
    rows: list[Item] = []
    sections = {name: (QUALITY, metric) for name, metric in record.metrics.items()}
    if record.reconstruction:
        sections |= {name: (FIRST_STAGE, metric) for name, metric in record.reconstruction.metrics.items()}
    for name, (section, metric) in sections.items():
        n = f"n = {metric.n_real:,}"
        if metric.n_real != metric.n_fake:
            n += f" real, {metric.n_fake:,} generated"
        rows.append(who | {
            "key": name, "section": section, "n": n, "value": metric.value, "low": metric.ci_low,
            "high": metric.ci_high, "ci_method": metric.ci_method, "higher_is_better": metric.higher_is_better,
            "reason": metric.reason_missing, "features": metric.features, "fingerprint": metric.fingerprint,
        })  # fmt: skip
    bound = record.likelihood
    rows.append(who | {
        "key": "bits_per_dim", "n": f"n = {bound.n_images:,}", "value": bound.bits_per_dim,
        "low": bound.ci_low, "high": bound.ci_high, "kind": bound.kind or "", "higher_is_better": False,
        "reason": bound.reason_missing, "doubt": CHECK_FAILED if bound.self_check_passed is False else "",
    })  # fmt: skip
    return rows + [who | row for row in _costs(run)]


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
    unknown = NOT_TRAINED if run.control else record.budget.reason_missing
    rows: list[Item] = []
    for column in FIXED_COLUMNS[1:]:
        row: Item = {"key": column.key, "higher_is_better": column.higher_is_better}
        if column.key in training:
            row |= {"value": training[column.key] if run.trained else None, "reason": unknown}
        else:
            row |= {"value": getattr(speed, column.key), "reason": speed.reason_missing}
        if column.key == "images_per_second":
            row |= {"low": speed.ci_low, "high": speed.ci_high}
        rows.append(row | {"kind": machine if row["value"] is not None else ""})
    return rows


def summarise(seen: pd.DataFrame) -> pd.DataFrame:
    """Long observations of one group to one row per (row, key, n, fingerprint), with interval and ``best``.

    Returns:
        Columns dataset, budget, row, model, control, source, key, section, n, value, low, high, seeds,
        noise ("training", "evaluation" or ""), higher_is_better, kind, features, fingerprint,
        ci_method, reason, seed (of the first), unranked (why a number is not ranked, or ""), best.
    """
    usual = _usual_n(seen)
    cells: dict[tuple[object, ...], dict[object, list[Item]]] = defaultdict(lambda: defaultdict(list))
    items = seen.astype(object).where(seen.notna(), None).to_dict("records")
    for item in sorted(items, key=lambda item: item["value"] is None):  # missing numbers last
        if item["value"] is None:
            item["n"] = usual.get(item["key"], item["n"])  # a missing number joins its column
        cell = cells[item["row"], item["key"], item["n"]]
        joins = next(iter(cell), None) if item["value"] is None else condition_key(item["fingerprint"])
        cell[joins].append(item)
    summary = pd.DataFrame([_summary(items) for cell in cells.values() for items in cell.values()])
    summary["unranked"] = _unranked(summary)
    summary["best"] = False
    rankable = ~summary["control"] & summary["value"].notna() & (summary["unranked"] == "")
    for _, column in summary[rankable].groupby(["key", "n", "kind"]):
        winner = separable_best(column)
        if winner is not None:
            summary.loc[winner, "best"] = True
    return summary


def main_space(frame: pd.DataFrame) -> str | None:
    """The main feature space: that of the metrics whose names do not tell it."""
    named = frame.loc[frame["key"].isin(("precision", "density")) & frame["features"].notna(), "features"]
    return None if named.empty else str(named.iloc[0])


def primary_of(frame: pd.DataFrame) -> str | None:
    """The distance that a comparison (observations or their summary) is about."""
    return primary_metric(frame.loc[frame["value"].notna(), "key"], frame["dataset"].iloc[0], main_space(frame))


def _unranked(summary: pd.DataFrame) -> pd.Series:
    """Why each number is not ranked: what differs between the fingerprints of its column, or its doubt."""
    reasons = summary["doubt"].copy()
    for _, column in summary[summary["value"].notna()].groupby(["key", "n"]):
        if len({condition_key(fingerprint) for fingerprint in column["fingerprint"]}) == 1:
            continue
        twice = column["row"].duplicated(keep=False)
        who = [
            Conditions(f"{model}, seed {seed}" if apart else model, fingerprint)
            for model, seed, apart, fingerprint in zip(
                column["model"], column["seed"], twice, column["fingerprint"], strict=True
            )
        ]
        control = column["control"].to_numpy(bool)
        differing = mixture(item for item, skip in zip(who, control, strict=True) if not skip)
        for index, item, is_control in zip(column.index, who, control, strict=True):
            models = [other for other, skip in zip(who, control, strict=True) if not skip]
            reason = differing or (mixture([*models[:1], item]) if is_control else "")
            reasons[index] = reason or reasons[index]
    return reasons


def _usual_n(seen: pd.DataFrame) -> dict[object, str]:
    present = seen[seen["value"].notna()]
    return {key: Counter(part["n"]).most_common(1)[0][0] for key, part in present.groupby("key")}


def _summary(items: list[Item]) -> Item:
    present = [item for item in items if item["value"] is not None]
    base = (present or items)[0]
    kept = (
        "dataset", "budget", "row", "model", "control", "source", "key", "section", "n", "higher_is_better", "features",
        "fingerprint", "seed",
    )  # fmt: skip
    result = {name: base[name] for name in kept}
    reasons = {str(i["reason"] or "no reason was recorded") for i in items if i["value"] is None}
    if present and reasons:
        missing = sum(item["value"] is None for item in items)
        reasons = {f"missing for {missing} of {len(items)} seeds: {reason}" for reason in reasons}
    kinds, methods, doubts = (
        sorted({str(item[name]) for item in present if item[name]}) for name in ("kind", "ci_method", "doubt")
    )
    result |= {"seeds": len(present), "kind": " / ".join(kinds), "reason": "; ".join(sorted(reasons))}
    result |= {"ci_method": "; ".join(methods), "doubt": "; ".join(doubts)}
    return result | _interval(present)


def _interval(present: list[Item]) -> Item:
    values = np.array([item["value"] for item in present], dtype=float)
    if len(values) == 0:
        return {"value": math.nan, "low": math.nan, "high": math.nan, "noise": ""}
    mean = float(values.mean())
    if len(values) >= 2:
        low, high = interval_of_mean(values)
        return {"value": mean, "low": low, "high": high, "noise": "training"}
    low, high = (math.nan if present[0][end] is None else present[0][end] for end in ("low", "high"))
    return {"value": mean, "low": low, "high": high, "noise": "evaluation"}


def interval_of_mean(values: ArrayLike) -> tuple[float, float]:
    """95 % t-interval of the mean of at least two values, as (low, high)."""
    data = np.asarray(values, dtype=float)
    half = float(stdtrit(len(data) - 1, 0.975) * data.std(ddof=1) / math.sqrt(len(data)))
    return float(data.mean()) - half, float(data.mean()) + half


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
