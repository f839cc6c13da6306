"""Metrics on features and classes, in float64 NumPy; one file each. Imports no torch."""

from evaluation.metrics.base import Exam, MetricInfo, Score
from evaluation.metrics.class_agreement import class_agreement
from evaluation.metrics.density_coverage import DensityCoverage, density_coverage
from evaluation.metrics.driver import all_metrics, score_all
from evaluation.metrics.frechet import FeatureStatistics, frechet_distance, frechet_from_statistics
from evaluation.metrics.kernel import kernel_distance
from evaluation.metrics.precision_recall import PrecisionRecall, precision_recall

__all__ = [
    "DensityCoverage",
    "Exam",
    "FeatureStatistics",
    "MetricInfo",
    "PrecisionRecall",
    "Score",
    "all_metrics",
    "class_agreement",
    "density_coverage",
    "frechet_distance",
    "frechet_from_statistics",
    "kernel_distance",
    "precision_recall",
    "score_all",
]
