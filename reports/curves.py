"""What the curves of a comparison say: points and profiles as tables, and sentences computed from them.

Only numbers of one metric and one set of conditions (fingerprint, and so n) are drawn together: those that most
points share. A cell without curves has no part in this; a damaged or foreign file is named and left out.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from evaluation.curves import BitProfile, Curves, SweepAxis
from reports.collect import Run
from reports.columns import factor, number
from reports.conditions import condition_key
from reports.tables import Table

NEARLY = 1.1  # a distance that is as good as the best for whoever pays for evaluations
MIDDLE = (0.1, 0.9)  # between these shares lie four fifths of the bits
POINT_COLUMNS = (
    "label", "model", "dataset", "config_hash", "seed", "sweep", "series", "x", "nfe", "metric", "value", "ci_low",
    "ci_high", "n", "sampling_seed", "seconds", "options", "precision", "recall",
)  # fmt: skip

SHARES = ("precision", "recall")

Read = Callable[[Run], Curves | None]


@dataclass(frozen=True)
class Member:
    """A run with its curves, and what the comparison calls it."""

    label: str
    run: Run
    curves: Curves


@dataclass(frozen=True)
class SweepCurves:
    """Points of one sweep, of one metric and n; ``points`` has ``POINT_COLUMNS``, ``floor`` is None if unknown.

    ``shares`` are precision and recall of as many real training images, None if unknown.
    """

    axis: SweepAxis
    metric: str
    n: int
    points: pd.DataFrame
    floor: float | None
    left_out: int = 0
    shares: tuple[float, float] | None = None

    @property
    def costs(self) -> bool:
        """Whether the axis counts network evaluations, and is no setting that trades one thing for another."""
        return bool((self.points["x"] == self.points["nfe"]).all())


def members_of(table: Table, read: Read) -> list[Member]:
    """The trained runs of a comparison that have curves."""
    pairs = [(row.label, run) for row in table.rows for run in row.runs if run.trained]
    found = ((label, run, read(run)) for label, run in pairs if run.curves_path.exists())
    return [Member(label, run, curves) for label, run, curves in found if curves is not None]


def points_frame(members: list[Member]) -> pd.DataFrame:
    """One row per measured point of some members."""
    rows = [
        (
            member.label, member.run.name, member.curves.dataset, member.curves.config_hash, member.curves.seed,
            point.sweep, point.series, point.x, point.nfe, point.metric, point.value.value, point.value.ci_low,
            point.value.ci_high, point.value.n_fake, point.seed, point.seconds, json.dumps(point.options),
            *(point.beside[name].value if name in point.beside else None for name in SHARES),
        )
        for member in members for point in member.curves.points if point.value.value is not None
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(POINT_COLUMNS))


def profiles_frame(members: list[Member]) -> pd.DataFrame:
    """One row per piece of every profile of some members."""
    rows = [
        {
            "label": member.label, "model": member.run.name, "dataset": member.curves.dataset,
            "config_hash": member.curves.config_hash, "seed": member.curves.seed, "kind": profile.kind,
            "axis": profile.label, "position": position, "bits_per_dim": bits, "standard_error": error,
            "model_error": wrong, "n_images": profile.n_images,
        }
        for member in members for profile in member.curves.profiles
        for position, bits, error, wrong in zip(
            profile.positions, profile.bits, profile.standard_errors, profile.errors, strict=True
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def sweeps_of(members: list[Member], metric: str | None) -> Iterator[SweepCurves]:
    """Every sweep of a comparison, with the points that were measured under the conditions that most share."""
    axes = {axis.name: axis for member in members for axis in member.curves.axes}
    for name, axis in axes.items():
        chosen = [
            (member, point) for member in members for point in member.curves.points
            if point.sweep == name and point.metric == metric and point.value.value is not None
        ]  # fmt: skip
        if not chosen:
            continue
        keys = Counter(condition_key(point.value.fingerprint) for _, point in chosen)
        usual = max(keys, key=lambda key: (keys[key], repr(key)))
        kept = {id(p): p for _, p in chosen if condition_key(p.value.fingerprint) == usual}
        narrowed = [Member(m.label, m.run, _only(m.curves, kept)) for m in members]
        floor, *shares = (_floor(members, name, usual) for name in (str(metric), *SHARES))
        points = points_frame(narrowed)
        both = (shares[0], shares[1]) if shares[0] is not None and shares[1] is not None else None
        yield SweepCurves(axis, str(metric), int(points["n"].iloc[0]), points, floor, len(chosen) - len(kept), both)


def _floor(members: list[Member], metric: str, usual: Any) -> float | None:
    """The mean of what real training images have under the same conditions."""
    floors = [
        floor.value.value for member in members for floor in member.curves.floors
        if floor.metric == metric and condition_key(floor.value.fingerprint) == usual
    ]  # fmt: skip
    known = [value for value in floors if value is not None]
    return float(np.mean(known)) if known else None


def _only(curves: Curves, kept: dict[int, object]) -> Curves:
    return Curves(
        curves.model, curves.dataset, curves.config_hash, curves.seed, curves.checkpoint_sha256,
        points=tuple(point for point in curves.points if id(point) in kept),
    )


def means(points: pd.DataFrame) -> pd.DataFrame:
    """Points of one sweep averaged over seeds: label, model, series, x, nfe, value, ci_low, ci_high, runs."""
    groups = points.groupby(["label", "model", "series", "x"], sort=True)
    found = groups.agg(
        nfe=("nfe", "mean"), value=("value", "mean"), ci_low=("ci_low", "mean"), ci_high=("ci_high", "mean"),
        runs=("value", "size"),
    )
    return found.reset_index()


def sweep_sentences(found: SweepCurves) -> list[str]:
    """What a sweep shows, model by model, then the floor and what was left out."""
    describe = _cost_sentence if found.costs else _range_sentence
    rows = means(found.points).groupby("label", sort=True)
    sentences = [describe(str(label), part, found) for label, part in rows]
    if found.floor is not None:
        sentences.append(f"The floor (dashed), as many real training images, is {number(found.floor)}.")
    if found.left_out:
        count = f"{found.left_out} points" if found.left_out > 1 else "One point"
        sentences.append(f"{count} measured under other conditions (n, versions, weights) left out.")
    return sentences


def _cost_sentence(label: str, part: pd.DataFrame, found: SweepCurves) -> str:
    best = part.loc[part["value"].idxmin()]
    text = f"{label}: {best['series']} at {best['nfe']:g} NFE comes closest, {found.metric} {number(best['value'])}"
    near = part[(part["value"] <= NEARLY * best["value"]) & (part["nfe"] < best["nfe"])]
    if near.empty or best["value"] <= 0:
        return f"{text}; nothing cheaper comes within {100 * (NEARLY - 1):.0f} % of it."
    cheap = near.sort_values(["nfe", "value"]).iloc[0]
    over = max(1, math.ceil(100 * (cheap["value"] / best["value"] - 1) - 1e-9))
    saving = factor(best["nfe"] / cheap["nfe"])
    return f"{text}; {cheap['series']} at {cheap['nfe']:g} NFE is within {over} % of it at {saving} times fewer."


def _range_sentence(label: str, part: pd.DataFrame, found: SweepCurves) -> str:
    ordered = part.sort_values("x")
    best, first, last = ordered.loc[ordered["value"].idxmin()], ordered.iloc[0], ordered.iloc[-1]
    text = f"{label}: {found.metric} is lowest, {number(best['value'])}, at {found.axis.title} {best['x']:g}"
    ends = [end for end in (first, last) if end["x"] != best["x"]]
    if ends:
        text += "; " + ", ".join(f"{number(end['value'])} at {end['x']:g}" for end in ends)
    if len(ordered) > 1 and best["x"] == last["x"]:
        text += ", so that more than was tried may be better still"
    return f"{text}."


def mean_shares(points: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of the points that have both, averaged over seeds: label, model, series, x, and these."""
    known = points.dropna(subset=list(SHARES))
    known = known.astype(dict.fromkeys(SHARES, float))
    groups = known.groupby(["label", "model", "series", "x"], sort=True)[list(SHARES)]
    return groups.mean().reset_index()


def share_sentences(found: SweepCurves) -> list[str]:
    """For every line, where precision is highest and where recall is; then where the real images are."""
    sentences = []
    for (label, series), part in mean_shares(found.points).groupby(["label", "series"], sort=True):
        name = str(label) if found.points[found.points["label"] == label]["series"].nunique() == 1 else (
            f"{label}, {series}"
        )  # fmt: skip
        ends = []
        for share in SHARES:
            best = part.loc[part[share].idxmax()]
            others = ", ".join(f"{other} {number(best[other])}" for other in SHARES if other != share)
            ends.append(f"{share} is highest, {number(best[share])}, at {best['x']:g} ({others})")
        sentences.append(f"{name}: " + "; ".join(ends) + ".")
    if found.shares is not None and sentences:
        precision, recall = map(number, found.shares)
        sentences.append(f"As many real training images (cross) have precision {precision}, recall {recall}.")
    return sentences


def profile_groups(members: list[Member]) -> dict[tuple[str, str, str], list[tuple[Member, BitProfile]]]:
    """Profiles that share kind, axis, pieces and number of images, by kind and the labels of both axes."""
    groups: dict[tuple[str, str, str], list[tuple[Member, BitProfile]]] = {}
    for member in members:
        for profile in member.curves.profiles:
            alike = groups.setdefault((profile.kind, profile.label, profile.error_label), [])
            shape = (profile.positions, profile.n_images)
            if not alike or (alike[0][1].positions, alike[0][1].n_images) == shape:
                alike.append((member, profile))
    return groups


def profile_sentences(profiles: list[tuple[Member, BitProfile]]) -> list[str]:
    """Between which places most of each model's bits lie, the first seed of each standing for all."""
    sentences, told = [], set()
    for member, profile in profiles:
        if member.label not in told:
            told.add(member.label)
            sentences.append(_profile_sentence(member.label, profile))
    return sentences


def _profile_sentence(label: str, profile: BitProfile) -> str:
    share = np.cumsum(np.clip(profile.bits, 0, None))
    total = float(sum(profile.bits))
    text = f"{label}: {number(profile.bits_per_dim)} bits/dim ({profile.kind}), {number(total)} of them"
    text += f" spread over {profile.label}"
    if share[-1] > 0:
        low, high = (profile.positions[int(np.searchsorted(share / share[-1], s))] for s in MIDDLE)
        text += f", four fifths of these between {number(low, 2)} and {number(high, 2)}"
    return text + "".join(f"; {name} {number(value, 2)}" for name, value in profile.parts.items()) + "."
