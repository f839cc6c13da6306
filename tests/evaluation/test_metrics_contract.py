"""The contract of every metric file, found by name; the driver; class agreement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evaluation.metrics import Exam, MetricInfo, Score, all_metrics, class_agreement, score_all
from evaluation.metrics.class_agreement import wilson_interval
from evaluation.metrics.driver import score_one
from evaluation.record import MetricValue
from experiments.discovery import metric_names

KEYS = {"fd_toy", "kd_toy", "precision", "recall", "density", "coverage", "class_agreement"}


def toy_exam(n: int = 120, m: int = 100, d: int = 5, shift: float = 0.3) -> Exam:
    """Normal features; half of the samples look like the class asked for."""
    rng = np.random.default_rng(0)
    labels = np.arange(m) % 10
    seen = np.where(np.arange(m) % 20 < 10, labels, (labels + 1) % 10)
    real, fake = rng.normal(size=(n, d)), rng.normal(shift, 1, size=(m, d))
    return Exam(real.astype(np.float32), fake.astype(np.float32), seen, labels)


@pytest.fixture(params=all_metrics(), ids=lambda metric: metric.names[0])
def metric(request: pytest.FixtureRequest) -> MetricInfo:
    """Every metric file's declaration."""
    return request.param


def test_declaration(metric: MetricInfo) -> None:
    assert metric.min_samples >= 2 and metric.names
    assert "arXiv:" in metric.paper and metric.summary and "\n" not in metric.summary


def test_one_finite_score_per_name_with_the_value_in_its_interval(metric: MetricInfo) -> None:
    scores = metric.compute(toy_exam())
    assert len(scores) == len(metric.names)
    for score in scores:
        assert isinstance(score.value, float) and np.isfinite(score.value)
        assert (score.ci_low is None) == (score.ci_high is None)
        if score.ci_low is not None and score.ci_high is not None:
            assert score.ci_low <= score.value <= score.ci_high


def test_direction(metric: MetricInfo) -> None:
    """What comes from the same distribution scores better than what lies far away."""
    good, bad = (metric.compute(e) for e in (toy_exam(shift=0.0), toy_exam(shift=4.0)))
    for near, far in zip(good, bad, strict=True):
        if near.value != far.value:
            assert (near.value > far.value) == metric.higher_is_better


def test_least_sample_size(metric: MetricInfo) -> None:
    least = metric.min_samples
    enough, few_fake, few_real = (
        toy_exam(n, m) for n, m in ((least, least), (least, least - 1), (least - 1, least))
    )
    assert all(v.reason_missing is None for v in score_one(metric, enough, "toy").values())
    for exam, side in ((few_fake, "generated"), (few_real, "real")):
        for value in score_one(metric, exam, "toy").values():
            reason = f"{least - 1} {side} images are too few; at least {least} are needed"
            assert (value.value, value.ci_low, value.reason_missing) == (None, None, reason)


def test_discovery_finds_the_same_files() -> None:
    assert len(metric_names()) == len(all_metrics())


def test_score_all() -> None:
    values = score_all(toy_exam(), "toy")
    assert set(values) == KEYS
    assert all(v.value is not None and v.reason_missing is None for v in values.values())
    assert all((v.n_real, v.n_fake, v.features) == (120, 100, "toy") for v in values.values())
    assert {k for k, v in values.items() if not v.higher_is_better} == {"fd_toy", "kd_toy"}
    assert {k for k, v in values.items() if v.ci_low is not None} == {"fd_toy", "kd_toy", "class_agreement"}


def test_what_cannot_be_computed_has_a_reason() -> None:
    exam = toy_exam()
    exam.fake[3, 1] = np.nan
    values = score_all(Exam(exam.real, exam.fake, exam.fake_predictions, None), "toy")
    assert set(values) == KEYS
    assert all(v.value is None for v in values.values())
    assert values.pop("class_agreement").reason_missing == "the samples were not asked for by class"
    assert {v.reason_missing for v in values.values()} == {"fake features hold values that are not finite"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_no_number_is_missing(value: float) -> None:
    info = MetricInfo(("odd",), True, 2, "", "", lambda exam: (Score(value, 0.0, 1.0),))
    odd = score_one(info, toy_exam(), "toy")["odd"]
    reason = f"the result is not a finite number ({value})"
    assert odd == MetricValue(None, None, None, 120, 100, "toy", True, reason)


def test_class_agreement() -> None:
    assert class_agreement([1, 2, 3, 4], [1, 2, 0, 4]) == 0.75
    value = score_all(toy_exam(), "toy")["class_agreement"]
    expected = stats.binomtest(50, 100).proportion_ci(0.95, method="wilson")
    assert (value.value, value.ci_low, value.ci_high) == pytest.approx((0.5, expected.low, expected.high))


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (1, 500), (7_012, 10_000)])
def test_wilson_interval_is_scipys(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("predictions", "labels"), [([], []), ([1, 2], [1]), ([[1]], [[1]])])
def test_class_agreement_of_misfits(predictions: list, labels: list) -> None:
    with pytest.raises(ValueError, match="must be"):
        class_agreement(predictions, labels)


def test_metrics_import_neither_torch_nor_scipy(root: Path) -> None:
    code = "import sys, evaluation.metrics; print({'torch', 'scipy', 'sklearn'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
