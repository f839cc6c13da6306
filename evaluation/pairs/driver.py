"""Runs every file of pair metrics and turns the scores into record values."""

from __future__ import annotations

import importlib
import math
import pkgutil
from dataclasses import replace

from evaluation.metrics.base import Score
from evaluation.pairs.base import PairMetric, Pairs
from evaluation.record import Fingerprint, MetricValue

PACKAGE = "evaluation.pairs"


def pair_metrics() -> list[PairMetric]:
    """Every file's ``METRIC``, or its several ``METRICS``, by file name."""
    folder = importlib.import_module(PACKAGE).__path__
    names = sorted(f"{PACKAGE}.{module.name}" for module in pkgutil.iter_modules(folder))
    modules = [importlib.import_module(name) for name in names]
    declared = (getattr(module, "METRICS", (getattr(module, "METRIC", None),)) for module in modules)
    return [metric for metrics in declared for metric in metrics if isinstance(metric, PairMetric)]


def score_pairs(pairs: Pairs, fingerprint: Fingerprint) -> dict[str, MetricValue]:
    """Every number of every pair metric, or the reason why it is missing.

    Args:
        pairs: What is looked at.
        fingerprint: The conditions, to which each metric adds its own; its ``versions`` are taken as they are.
    """
    values: dict[str, MetricValue] = {}
    for metric in pair_metrics():
        values |= _score(metric, pairs, fingerprint)
    return values


def _score(metric: PairMetric, pairs: Pairs, fingerprint: Fingerprint) -> dict[str, MetricValue]:
    scores: tuple[Score | None, ...] = (None,) * len(metric.names)
    n, reason = len(pairs.real), None
    if n < metric.min_samples:
        reason = f"{n} images are too few; at least {metric.min_samples} are needed"
    else:
        try:
            scores = metric.compute(pairs)
        except ValueError as error:
            reason = str(error)
    made = replace(fingerprint, features=metric.conditions(pairs))
    return {name: _value(metric, n, score, reason, made) for name, score in zip(metric.names, scores, strict=True)}


def _value(
    metric: PairMetric, n: int, score: Score | None, reason: str | None, fingerprint: Fingerprint
) -> MetricValue:
    if score is not None and not math.isfinite(score.value):
        reason, score = f"the result is not a finite number ({score.value})", None
    if score is None:
        return MetricValue(None, None, None, n, n, None, metric.higher_is_better, reason)
    ends = (score.ci_low, score.ci_high)
    return MetricValue(
        score.value, *ends, n, n, None, metric.higher_is_better, None, score.ci_method, fingerprint
    )
