"""What goes by classes: class agreement, inception score, per-class distances; and the Vendi score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import eigvalsh
from torch_fidelity import metric_isc

from evaluation.metrics import (
    Exam,
    class_agreement,
    frechet_distance,
    inception_score,
    per_class_frechet,
    vendi_score,
)
from evaluation.metrics.class_agreement import class_agreement_score, wilson_interval


def test_class_agreement() -> None:
    assert class_agreement([1, 2, 3, 4], [1, 2, 0, 4]) == 0.75
    labels = np.arange(100) % 10
    logits = np.eye(10)[np.where(np.arange(100) < 50, labels, (labels + 1) % 10)]
    exam = Exam("toy", np.ones((2, 1)), np.ones((100, 1)), fake_labels=labels, fake_logits=logits)
    (score,) = class_agreement_score(exam)
    expected = stats.binomtest(50, 100).proportion_ci(0.95, method="wilson")
    assert (score.value, score.ci_low, score.ci_high) == pytest.approx((0.5, expected.low, expected.high))


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (1, 500), (7_012, 10_000)])
def test_wilson_interval_is_scipys(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("predictions", "labels"), [([], []), ([1, 2], [1]), ([[1]], [[1]])])
def test_class_agreement_of_misfits(predictions: list, labels: list) -> None:
    with pytest.raises(ValueError, match="must be"):
        class_agreement(predictions, labels)


@pytest.mark.parametrize("splits", [1, 3, 10])
@pytest.mark.parametrize("seed", [2020, 5])
def test_inception_score_is_torch_fidelitys(splits: int, seed: int) -> None:
    logits = np.random.default_rng(0).normal(0, 3, size=(203, 17)).astype(np.float32)
    theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits, True, seed)
    expected = theirs[metric_isc.KEY_METRIC_ISC_MEAN], theirs[metric_isc.KEY_METRIC_ISC_STD]
    assert inception_score(logits, splits, seed) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    softmax = torch.from_numpy(logits).double().softmax(1)
    assert inception_score(softmax, splits, seed) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_inception_score_of_balanced_one_hots_is_the_number_of_classes(classes: int) -> None:
    assert inception_score(np.tile(np.eye(classes), (3, 1))) == pytest.approx((classes, 0), rel=1e-12)
    assert inception_score(np.full((50, classes), 1 / classes)) == pytest.approx((1, 0), rel=1e-12)


def test_rows_that_do_not_sum_to_one_are_logits() -> None:
    rows = np.array([[0.2, 0.9], [0.9, 0.2]])
    softmax = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
    assert inception_score(rows) == pytest.approx(inception_score(softmax), rel=1e-12)
    assert inception_score(rows)[0] != pytest.approx(inception_score(rows / 1.1)[0], rel=1e-3)
    with pytest.raises(ValueError, match="splits must be from 1 to 2 for 2 samples, not 3"):
        inception_score(rows, splits=3)


def test_per_class_frechet_is_that_of_each_class() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(90, 4)), rng.normal(0.5, 2, size=(60, 4))
    found = per_class_frechet(x, y, np.arange(90) % 3, np.arange(60) // 20)
    expected = [frechet_distance(x[c::3], y[20 * c : 20 * c + 20]) for c in range(3)]
    assert found.distances == pytest.approx(dict(enumerate(expected)))
    assert (found.mean, found.worst) == pytest.approx((np.mean(expected), max(expected)))


def test_per_class_sees_classes_that_changed_places() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(400) % 2
    x, y = (rng.normal(10 * labels[:, None], 1, size=(400, 3)) for _ in range(2))
    assert frechet_distance(x, y) < 1 < 100 < per_class_frechet(x, y, labels, 1 - labels).mean


@pytest.mark.parametrize(
    ("real_labels", "fake_labels", "sentence"),
    [
        ([0, 0, 1, 1], [0, 0, 0, 1], "class 1 has 1 fake samples; at least 2"),
        ([0, 0, 0, 0], [0, 0, 2, 2], "class 2 has 0 real samples"),
        ([0, 0, 1], [0, 0, 1, 1], r"real labels must be integers \(4,\)"),
        ([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], "real labels must be integers"),
    ],
)
def test_classes_that_cannot_be_compared(real_labels: list, fake_labels: list, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        per_class_frechet(np.eye(4), np.eye(4), real_labels, fake_labels)


def test_vendi_score_counts_different_samples() -> None:
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.tile(np.eye(5), (4, 1)) * 3) == pytest.approx(5)  # each four times
    assert vendi_score(np.ones((9, 3))) == pytest.approx(1)
    assert vendi_score(torch.eye(4)) == pytest.approx(4)


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, np.inf])
@pytest.mark.parametrize(("n", "d"), [(30, 8), (8, 30), (2_500, 3)])
def test_vendi_score_is_its_definition(n: int, d: int, q: float) -> None:
    x = np.random.default_rng(3).normal(0.5, 1, size=(n, d))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    values = eigvalsh(unit @ unit.T / n)[-min(n, d) :] if n < 100 else eigvalsh(unit.T @ unit / n)
    expected = {1.0: np.exp(stats.entropy(values)), np.inf: 1 / values.max()}
    other = (values**q).sum() ** (1 / (1 - q)) if q not in expected else expected[q]
    assert vendi_score(x, q) == pytest.approx(other, rel=1e-9)


def test_vendi_score_of_bad_input() -> None:
    with pytest.raises(ValueError, match="order q must be at least 0"):
        vendi_score(np.eye(3), q=-1)
    with pytest.raises(ValueError, match="a row of zeros has no direction"):
        vendi_score(np.zeros((3, 2)))
