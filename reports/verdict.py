"""What a comparison says, in words, computed from its numbers.

A pure function from the summary of one table (``tables.summarise``) to sentences. No
sentence knows a model by name: other numbers give other words.
"""

from __future__ import annotations

import math

import pandas as pd

from reports.columns import FIRST_STAGE, budget_text, factor, metric_rank, metric_title, number
from reports.summary import primary_of, separable_best

NEARLY_EQUAL = 1.05


def verdict(summary: pd.DataFrame) -> list[str]:
    """Sentences about one comparison, the shortest answer first.

    Args:
        summary: One row per (model or control, column) as ``tables.summarise`` returns it.
    """
    trained = summary[~summary["control"]]
    if trained.empty:
        return ["No trained model has been measured here yet; only the controls are known."]
    main = primary_of(summary)
    parts = [_headline(trained, main)]
    parts += _quality(trained, main)
    parts += _references(summary, main)
    parts += _first_stages(trained, main)
    parts += _other_metrics(trained, main)
    parts += _speed(trained, main)
    parts += _likelihood(trained)
    return parts + _hedges(trained)


def _ranked(summary: pd.DataFrame, key: str | None) -> pd.DataFrame:
    """Rows whose number may be ranked, best first."""
    rows = summary[(summary["key"] == key) & summary["value"].notna() & (summary["unranked"] == "")]
    if rows.empty:
        return rows
    return rows.sort_values("value", ascending=not rows["higher_is_better"].iloc[0], kind="stable")


def _and(names: list[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _names(rows: pd.DataFrame) -> list[str]:
    """Model names; where one model is there in two configurations, with the configuration's hash."""
    twice = rows["model"].duplicated(keep=False)
    return [
        f"{r.model} ({r.row[2][:6]})" if t else r.model for r, t in zip(rows.itertuples(), twice, strict=True)
    ]


def _contenders(rows: pd.DataFrame) -> list[str]:
    """The best of ranked rows and all that its interval does not separate it from."""
    best = rows.iloc[0]
    names = _names(rows)
    if len(rows) == 1 or separable_best(rows) is not None:
        return names[:1]
    low, high = best["low"], best["high"]
    apart = (rows["low"] > high) | (rows["high"] < low)  # False where an interval is unknown
    return [name for name, far in zip(names, apart, strict=True) if not far]


def _headline(trained: pd.DataFrame, main: str | None) -> str:
    answers = []
    quality, speed = _ranked(trained, main), _ranked(trained, "images_per_second")
    bounds = _ranked(trained, "bits_per_dim")
    if len(quality):
        names = _contenders(quality)
        answers.append(
            f"closest to the real images: {_and(names)}" + (" (not separable)" if len(names) > 1 else "")
        )
    if len(speed) and speed["kind"].nunique() == 1:
        answers.append(f"fastest: {_names(speed)[0]}")
    if len(bounds):
        answers.append(f"with a likelihood: {_and(sorted(_names(bounds)))}")
    where, budget = f"On {trained['dataset'].iloc[0]}", trained["budget"].iloc[0]
    where += f" with {budget_text(budget)}" if budget > 0 else ""
    if trained["row"].nunique() == 1:
        only = trained["model"].iloc[0]
        return f"{where}, only {only} has been measured, so there is nothing to choose between."
    if answers:
        return f"{where} — {'; '.join(answers)}."
    measured = trained["value"].notna().any()
    return f"{where}, {'what was measured cannot be ranked' if measured else 'no number could be measured'}."


def _quality(trained: pd.DataFrame, main: str | None) -> list[str]:
    rows = _ranked(trained, main)
    if rows.empty and main is not None:
        why = trained.loc[(trained["key"] == main) & (trained["unranked"] != ""), "unranked"].iloc[0]
        return [f"{main} is not ranked here: {why}."]
    if rows.empty:
        reasons = trained.loc[trained["key"].str.startswith("fd_"), "reason"]
        why = f" ({reasons.iloc[0]})" if len(reasons) and reasons.iloc[0] else ""
        return [f"No distance to the real images was measured{why}, so image quality is not ranked."]
    names, best = _names(rows), rows.iloc[0]
    if len(rows) == 1:
        return [f"{names[0]} reaches {main} = {number(best['value'])} (lower is better)."]
    lead = f"{names[0]} has the lowest {main}, {number(best['value'])}; next is {names[1]} with"
    lead += f" {number(rows.iloc[1]['value'])}."
    if separable_best(rows) is not None:
        return [f"{lead} Its interval overlaps no other, so the difference is separable from noise."]
    contenders = _contenders(rows)
    if rows[["low", "high"]].isna().any(axis=None):
        return [f"{lead} Not every distance has an interval, so it is open whether the difference is noise."]
    return [f"{lead} Its interval overlaps that of {_and(contenders[1:])}: they cannot be told apart."]


def _references(summary: pd.DataFrame, main: str | None) -> list[str]:
    rows = _ranked(summary[~summary["control"]], main)
    controls = _ranked(summary[summary["control"]], main)
    value = dict(zip(controls["model"], controls["value"], strict=True))
    if rows.empty:
        return []
    sentences, best, name = [], float(rows.iloc[0]["value"]), _names(rows)[0]
    floor, gaussian, copycat = (value.get(key) for key in ("real_train", "gaussian", "copycat"))
    if floor is None:
        sentences.append(
            "No floor was measured with the same number of images, so it is open how good is good."
        )
    elif best <= floor:
        sentences.append(
            f"{name} lies at or below the floor of real against real images ({number(floor)}): "
            "that is a reason to look for copied training images."
        )
    elif floor > 0:
        sentences.append(
            f"{name} is {factor(best / floor)} times as far from the test images as real training images are "
            f"(the floor, {number(floor)})."
        )
    if gaussian is not None:
        worse = [n for n, v in zip(_names(rows), rows["value"], strict=True) if v >= gaussian]
        if best < gaussian and best > 0:
            times = factor(gaussian / best)
            sentences.append(
                f"A Gaussian fitted to the pixels ({number(gaussian)}) is {times} times as far as {name}."
            )
        if worse:
            sentences.append(f"{_and(worse)} did not beat this simple Gaussian ({number(gaussian)}).")
    if copycat is not None and copycat <= best:
        sentences.append(
            f"A copycat that returns training images scores {number(copycat)}: "
            "this distance alone cannot tell generating from copying."
        )
    return sentences


def _first_stages(trained: pd.DataFrame, main: str | None) -> list[str]:
    """How much of the distance of each model's samples its first stage has by itself."""
    key = f"r{main}"
    floors, samples = _ranked(trained, key), _ranked(trained, main)
    sentences = []
    for name, item in zip(_names(floors), floors.itertuples(), strict=True) if len(floors) else ():
        own = samples.loc[[row == item.row for row in samples["row"]], "value"]
        beside = f"; its samples have {main} = {number(own.iloc[0])}" if len(own) else ""
        sentences.append(
            f"The first stage of {name} alone has {key} = {number(item.value)}, the floor of what a prior over its "
            f"codes can reach{beside}."
        )
    return sentences


def _other_metrics(trained: pd.DataFrame, main: str | None) -> list[str]:
    """Metrics in which another model than that with the best distance is separably best."""
    first = _ranked(trained, main)
    if len(first) < 2:
        return []
    wins: dict[str, list[str]] = {}
    fixed = {"bits_per_dim", "images_per_second", "latency_ms_p50"}
    of_samples = ~trained["key"].isin(fixed) & (trained["section"] != FIRST_STAGE)
    for item in trained[trained["best"] & of_samples].itertuples():
        if item.row != first.iloc[0]["row"]:
            wins.setdefault(item.model, []).append(item.key)
    listed = [
        f"{model} is separably best in {_and([metric_title(key) for key in sorted(keys, key=metric_rank)])}"
        for model, keys in wins.items()
    ]
    return [f"Not every metric names the same model: {_and(listed)}."] if listed else []


def _speed(trained: pd.DataFrame, main: str | None) -> list[str]:
    rows = _ranked(trained, "images_per_second")
    if len(rows) < 2:
        return [f"{_names(rows)[0]} samples {number(rows.iloc[0]['value'])} images/s."] if len(rows) else []
    if rows["kind"].nunique() > 1:
        return ["Sampling speeds were measured on different machines or thread counts and are not ranked."]
    names, rates = _names(rows), rows["value"].to_numpy(float)
    text = f"{names[0]} samples fastest: {number(rates[0])} images/s, {factor(rates[0] / rates[-1])} times"
    text += f" the rate of the slowest, {names[-1]} ({number(rates[-1])} images/s)."
    quality = _ranked(trained, main)
    if len(quality):
        leader = quality.iloc[0]
        rate = rows.loc[[row == leader["row"] for row in rows["row"]], "value"]
        if leader["row"] == rows.iloc[0]["row"]:
            text += " It is also the one with the lowest distance."
        elif len(rate):
            times = factor(rates[0] / rate.iloc[0])
            text += f" {_names(quality)[0]}, with the lowest distance, needs {times} times as long per image."
    return [text]


def _likelihood(trained: pd.DataFrame) -> list[str]:
    rows, sentences = _ranked(trained, "bits_per_dim"), []
    doubted = trained[(trained["key"] == "bits_per_dim") & (trained["unranked"] != "")]
    sentences += [f"The likelihood of {item.model} is not used: {item.unranked}." for item in doubted.itertuples()]
    if len(rows):
        values = [
            f"{name} {number(v)} ({kind or 'kind not recorded'})"
            for name, v, kind in zip(_names(rows), rows["value"], rows["kind"], strict=True)
        ]
        text = f"Bits per dimension of test images (lower is better): {', '.join(values)}."
        if rows["kind"].nunique() > 1:
            text += " Bounds of different kinds are not ranked against each other."
        sentences.append(text)
    missing = trained[(trained["key"] == "bits_per_dim") & trained["value"].isna()]
    sentences += [f"{item.model} has no likelihood: {item.reason}." for item in missing.itertuples()]
    return list(dict.fromkeys(sentences))  # two configurations of one model lack it for one reason


def _hedges(trained: pd.DataFrame) -> list[str]:
    sentences = []
    quality = trained[(trained["source"] != "external") & (trained["key"] != "nfe") & trained["value"].notna()]
    seeds = quality.groupby("row")["seeds"].max()
    single = sorted({row[1] for row, count in seeds.items() if count == 1})
    if single:
        whom = "Every model" if len(single) == quality["model"].nunique() else _and(single)
        sentences.append(
            f"{whom} was trained with one seed only: the intervals hold evaluation noise, "
            "and another training run may reverse the order."
        )
    flops = trained.loc[(trained["key"] == "train_flops") & (trained["value"] > 0), "value"]
    if len(flops) > 1 and math.isfinite(flops.max()) and flops.max() > NEARLY_EQUAL * flops.min():
        times = factor(flops.max() / flops.min())
        sentences.append(f"Training compute was not equal: the largest is {times} times the smallest.")
    return sentences
