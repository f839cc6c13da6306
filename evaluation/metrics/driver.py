"""Runs every metric file over one pair of feature sets and turns the scores into record values."""

from __future__ import annotations

import importlib
import math
import pkgutil

from evaluation.metrics.base import Exam, MetricInfo, Score
from evaluation.record import MetricValue


def all_metrics() -> list[MetricInfo]:
    """The ``METRIC`` of every file in this folder that declares one, sorted by file name."""
    package = importlib.import_module("evaluation.metrics")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = (importlib.import_module(f"evaluation.metrics.{name}") for name in names)
    return [module.METRIC for module in modules if hasattr(module, "METRIC")]


def score_all(exam: Exam, features: str) -> dict[str, MetricValue]:
    """Every number of every metric, or the reason why it is missing.

    Args:
        exam: Features of both sides, and the classes seen and asked for.
        features: Name of the feature space; it replaces ``{features}`` in the names.

    Returns:
        Record values by name, e.g. ``fd_digits``, ``precision``, ``class_agreement``.
    """
    values: dict[str, MetricValue] = {}
    for metric in all_metrics():
        values |= score_one(metric, exam, features)
    return values


def score_one(metric: MetricInfo, exam: Exam, features: str) -> dict[str, MetricValue]:
    """The numbers of one metric, or its reason under each of its names."""
    names = [name.format(features=features) for name in metric.names]
    scores: tuple[Score | None, ...] = (None,) * len(names)
    reason = _too_few(metric, exam)
    if reason is None:
        try:
            scores = metric.compute(exam)
        except ValueError as error:
            reason = str(error)
    return {
        name: _value(metric, exam, features, score, reason) for name, score in zip(names, scores, strict=True)
    }


def _too_few(metric: MetricInfo, exam: Exam) -> str | None:
    for side, n in (("real", len(exam.real)), ("generated", len(exam.fake))):
        if n < metric.min_samples:
            return f"{n} {side} images are too few; at least {metric.min_samples} are needed"
    return None


def _value(
    metric: MetricInfo, exam: Exam, features: str, score: Score | None, reason: str | None
) -> MetricValue:
    if score is not None and not math.isfinite(score.value):
        reason, score = f"the result is not a finite number ({score.value})", None
    value, low, high = (score.value, score.ci_low, score.ci_high) if score else (None, None, None)
    n_real, n_fake = len(exam.real), len(exam.fake)
    return MetricValue(value, low, high, n_real, n_fake, features, metric.higher_is_better, reason)
