"""Metrics on features and classes, in float64 NumPy; one file each. Imports no torch."""

from evaluation.metrics.base import Exam, MetricInfo, Score
from evaluation.metrics.class_agreement import class_agreement
from evaluation.metrics.cmmd import cmmd
from evaluation.metrics.density_coverage import DensityCoverage, density_coverage, expected_coverage
from evaluation.metrics.driver import all_metrics, metric_key, score_all, score_one
from evaluation.metrics.frechet import frechet_distance, frechet_from_statistics
from evaluation.metrics.frechet_infinity import FrechetInfinity, frechet_infinity
from evaluation.metrics.inception_score import InceptionScore, inception_score
from evaluation.metrics.kernel import kernel_distance
from evaluation.metrics.kernel_subsets import KernelDistanceSubsets, kernel_distance_subsets
from evaluation.metrics.per_class import PerClassFrechet, per_class_frechet
from evaluation.metrics.precision_recall import PrecisionRecall, precision_recall
from evaluation.metrics.statistics import FeatureStatistics
from evaluation.metrics.vendi import vendi_score

__all__ = [
    "DensityCoverage",
    "Exam",
    "FeatureStatistics",
    "FrechetInfinity",
    "InceptionScore",
    "KernelDistanceSubsets",
    "MetricInfo",
    "PerClassFrechet",
    "PrecisionRecall",
    "Score",
    "all_metrics",
    "class_agreement",
    "cmmd",
    "density_coverage",
    "expected_coverage",
    "frechet_distance",
    "frechet_from_statistics",
    "frechet_infinity",
    "inception_score",
    "kernel_distance",
    "kernel_distance_subsets",
    "metric_key",
    "per_class_frechet",
    "precision_recall",
    "score_all",
    "score_one",
    "vendi_score",
]
