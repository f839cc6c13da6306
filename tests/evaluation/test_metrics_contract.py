"""The contract of every metric file, found by name; the driver; the names in the record."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics import Exam, MetricInfo, Score, all_metrics, metric_key, score_all, score_one
from evaluation.record import MetricValue

DISTANCES = {"fd_toy", "fd_infinity_toy", "fd_class_toy", "kd_toy"}
MEMORIZATION = {"memorization_gap_toy", "ct_toy", "authpct_toy"}
KEYS = DISTANCES | MEMORIZATION | {"precision", "recall", "density", "coverage", "vendi", "class_agreement"}
# The space in which a metric that is not defined everywhere is.
HOME = {"cmmd": "clip-toy", "inception_score": "inception", "kd_subsets_{features}": "inception"}


def toy_exam(n: int = 120, m: int = 100, shift: float = 0.3, features: str = "toy") -> Exam:
    """Normal features; half of the samples look like the class asked for."""
    rng = np.random.default_rng(0)
    labels = np.arange(m) % 10
    seen = np.where(np.arange(m) % 20 < 10, labels, (labels + 1) % 10)
    logits = np.eye(10)[seen] * 5
    real, fake = rng.normal(size=(n, 5)), rng.normal(shift, 1, size=(m, 5))
    train, held_out = rng.normal(size=(6 * n, 5)), rng.normal(size=(n, 5))
    return Exam(features, real, fake, np.arange(n) % 10, labels, logits, train, held_out)


def home(metric: MetricInfo, n: int = 120, m: int = 100, shift: float = 0.3) -> Exam:
    """An exam in a space where the metric is defined, large enough for it."""
    n, m = max(n, metric.min_samples), max(m, metric.min_samples)
    return toy_exam(n, m, shift, HOME.get(metric.names[0], "toy"))


@pytest.fixture(params=all_metrics(), ids=lambda metric: metric.names[0])
def metric(request: pytest.FixtureRequest) -> MetricInfo:
    """Every metric file's declaration."""
    return request.param


def test_declaration(metric: MetricInfo) -> None:
    assert metric.min_samples >= 2 and metric.names
    assert "arXiv:" in metric.paper and metric.summary and "\n" not in metric.summary
    assert metric.applies(HOME.get(metric.names[0], "toy"))
    assert metric.reference == ("train and test" if metric.applies("pixels") else "test")


def test_one_finite_score_per_name_with_the_value_in_its_interval(metric: MetricInfo) -> None:
    scores = metric.compute(home(metric))
    assert len(scores) == len(metric.names)
    for score in scores:
        assert isinstance(score.value, float) and np.isfinite(score.value)
        assert (score.ci_low is None) == (score.ci_high is None) == (score.ci_method is None)
        if score.ci_low is not None and score.ci_high is not None:
            assert score.ci_low <= score.value <= score.ci_high


def test_direction(metric: MetricInfo) -> None:
    """What comes from the same distribution scores better than what lies far away, or is copied."""
    good = home(metric, shift=0.0)
    bad = home(metric, shift=4.0)
    if metric.reference == "train and test":
        assert good.train is not None
        bad = replace(good, fake=good.train[: len(good.fake)])
    for near, far in zip(metric.compute(good), metric.compute(bad), strict=True):
        if near.value != far.value and metric.higher_is_better is not None:
            assert (near.value > far.value) == metric.higher_is_better
        if metric.higher_is_better is None:
            assert near.value > far.value, "a test of copying is lower with copies"


def test_least_sample_size(metric: MetricInfo) -> None:
    least, space = metric.min_samples, HOME.get(metric.names[0], "toy")
    enough, few_fake, few_real = (
        toy_exam(n, m, features=space) for n, m in ((least, least), (least, least - 1), (least - 1, least))
    )
    assert all(v.reason_missing is None for v in score_one(metric, enough).values())
    for exam, side in ((few_fake, "generated"), (few_real, "real")):
        for value in score_one(metric, exam).values():
            reason = f"{least - 1} {side} images are too few; at least {least} are needed"
            assert (value.value, value.ci_low, value.reason_missing) == (None, None, reason)


def test_score_all() -> None:
    values = score_all(toy_exam())
    assert set(values) == KEYS
    assert all(v.value is not None and v.reason_missing is None for v in values.values())
    assert all((v.n_real, v.n_fake, v.features) == (120, 100, "toy") for v in values.values())
    assert {k for k, v in values.items() if v.higher_is_better is False} == DISTANCES | {"memorization_gap_toy"}
    assert {k for k, v in values.items() if v.higher_is_better is None} == {"ct_toy", "authpct_toy"}
    with_interval = {"fd_toy", "fd_infinity_toy", "kd_toy", "class_agreement", "memorization_gap_toy", "authpct_toy"}
    assert {k for k, v in values.items() if v.ci_low is not None} == with_interval
    assert {k for k, v in values.items() if v.ci_method} == with_interval


def test_names_in_the_record() -> None:
    assert metric_key("fd_{features}", "digits", True) == "fd_digits" == metric_key("fd_{features}", "digits", False)
    assert metric_key("precision", "digits", True) == "precision"
    assert metric_key("precision", "vgg16", False) == "precision_vgg16"
    assert metric_key("inception_score", "inception", False) == "inception_score"
    assert metric_key("fd_class_{features}", "inception", True) == "fd_class_inception"


@pytest.mark.parametrize("main", [True, False])
def test_only_inception_gives_its_names(main: bool) -> None:
    owned = {"fid", "kid", "fid_infinity", "kid_subsets", "inception_score"}
    assert owned <= set(score_all(toy_exam(features="inception"), main=main))
    for space in ("clip-vit-b-32", "inception-v3", "digits", "vgg16"):
        keys = set(score_all(toy_exam(features=space), main=main))
        assert not {k for k in keys if k.startswith(("fid", "kid", "inception_score"))}, space


def test_spaces_other_than_the_main_one_and_pixels() -> None:
    assert "precision_toy" in (keys := set(score_all(toy_exam(), main=False))) and "precision" not in keys
    pixels = {key.replace("toy", "pixels") for key in MEMORIZATION}
    assert set(score_all(toy_exam(features="pixels"), main=False)) == pixels
    assert "cmmd" in score_all(toy_exam(features="clip-vit-b-32"))
    assert "class_agreement" not in score_all(toy_exam(features="inception"))  # its classes are not the dataset's


def test_what_cannot_be_computed_has_a_reason() -> None:
    exam = toy_exam()
    exam.fake[3, 1] = np.nan
    values = score_all(replace(exam, fake_labels=None))
    assert set(values) == KEYS
    assert all(v.value is None for v in values.values())
    for key in ("class_agreement", "fd_class_toy"):
        assert values.pop(key).reason_missing == "the samples were not asked for by class"
    assert values.pop("vendi").reason_missing == "given features hold values that are not finite"
    assert {v.reason_missing for v in values.values()} == {"fake features hold values that are not finite"}


def test_memorization_without_training_features_is_missing() -> None:
    values = score_all(replace(toy_exam(), train=None))
    reasons = {values[key].reason_missing for key in MEMORIZATION}
    assert reasons == {"the training images were not looked at in this feature space"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_no_number_is_missing(value: float) -> None:
    info = MetricInfo(("odd",), True, 2, "", "", lambda exam: (Score(value, 0.0, 1.0, "method"),))
    odd = score_one(info, toy_exam())["odd"]
    reason = f"the result is not a finite number ({value})"
    assert odd == MetricValue(None, None, None, 120, 100, "toy", True, reason)


def test_metrics_import_neither_torch_nor_scipy(root: Path) -> None:
    code = (
        "import sys, evaluation.metrics; from evaluation.metrics import all_metrics; all_metrics(); "
        "print({'torch', 'scipy', 'sklearn'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
