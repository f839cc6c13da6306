"""Runs every metric file over one pair of feature sets and turns the scores into record values."""

from __future__ import annotations

import importlib
import math
import pkgutil

from evaluation.metrics.base import Exam, MetricInfo, Score
from evaluation.record import MetricValue

PACKAGE = "evaluation.metrics"
OTHER_MODULES = ("evaluation.memorization",)  # what declares metrics outside that folder
# Names that mean Inception's features and nothing else.
INCEPTION_NAMES = {
    "fd_inception": "fid",
    "fd_infinity_inception": "fid_infinity",
    "rfd_inception": "rfid",
    "rfd_inception_train": "rfid_train",
    "kd_inception": "kid",
    "kd_subsets_inception": "kid_subsets",
    "inception_score_inception": "inception_score",
}


def all_metrics() -> list[MetricInfo]:
    """Every file's ``METRIC``, or its several ``METRICS``: this folder's by file name, then the others'."""
    folder = importlib.import_module(PACKAGE).__path__
    names = sorted(f"{PACKAGE}.{module.name}" for module in pkgutil.iter_modules(folder))
    modules = [importlib.import_module(name) for name in (*names, *OTHER_MODULES)]
    declared = (getattr(module, "METRICS", (getattr(module, "METRIC", None),)) for module in modules)
    return [metric for metrics in declared for metric in metrics if metric is not None]


def metric_key(template: str, features: str, main: bool) -> str:
    """The record key of a metric's name in a feature space.

    Args:
        template: One of ``MetricInfo.names``, e.g. ``fd_{features}`` or ``precision``.
        features: Name of the feature space.
        main: Whether it is the main one, where names without ``{features}`` stay as they are.

    Returns:
        E.g. ``fd_digits``, ``precision``, ``precision_pixels``; ``fid`` for ``fd_{features}`` of ``inception``.
    """
    if "{features}" in template:
        key = template.format(features=features)
    elif main:
        return template
    else:
        key = f"{template}_{features}"
    return INCEPTION_NAMES.get(key, key)


def score_all(exam: Exam, *, main: bool = True) -> dict[str, MetricValue]:
    """Every number of every metric that applies to the feature space, or the reason why it is missing.

    Args:
        exam: Features of both sides, and what else there is to look at.
        main: Whether this is the main feature space, see ``metric_key``.

    Returns:
        Record values by name, without fingerprints.
    """
    values: dict[str, MetricValue] = {}
    for metric in all_metrics():
        if metric.applies(exam.features):
            values |= score_one(metric, exam, main=main)
    return values


def score_one(metric: MetricInfo, exam: Exam, *, main: bool = True) -> dict[str, MetricValue]:
    """The numbers of one metric, or its reason under each of its names."""
    names = [metric_key(name, exam.features, main) for name in metric.names]
    scores: tuple[Score | None, ...] = (None,) * len(names)
    reason = _too_few(metric, exam)
    if reason is None:
        try:
            scores = metric.compute(exam)
        except ValueError as error:
            reason = str(error)
    return {name: _value(metric, exam, score, reason) for name, score in zip(names, scores, strict=True)}


def _too_few(metric: MetricInfo, exam: Exam) -> str | None:
    for side, n in (("real", len(exam.real)), ("generated", len(exam.fake))):
        if n < metric.min_samples:
            return f"{n} {side} images are too few; at least {metric.min_samples} are needed"
    return None


def _value(metric: MetricInfo, exam: Exam, score: Score | None, reason: str | None) -> MetricValue:
    if score is not None and not math.isfinite(score.value):
        reason, score = f"the result is not a finite number ({score.value})", None
    value, low, high, method = (score.value, score.ci_low, score.ci_high, score.ci_method) if score else (None,) * 4
    return MetricValue(
        value, low, high, len(exam.real), len(exam.fake), exam.features, metric.higher_is_better, reason, method
    )
