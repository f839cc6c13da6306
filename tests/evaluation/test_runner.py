"""The exam: which images are asked for, what is compared with what, and what is said where it cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules import digits
from datamodules.base import ImageDataset
from evaluation.config import EvaluationConfig
from evaluation.controls import asked_labels
from evaluation.fingerprint import image_hash
from evaluation.likelihood.bits import ScoredBound
from evaluation.metrics import all_metrics
from evaluation.metrics.driver import metric_key
from evaluation.record import BoundGap, Likelihood, Truth
from evaluation.runner import (
    Generated,
    Reference,
    believed,
    examine,
    generate,
    number_of_samples,
    score_likelihoods,
)
from experiments.discovery import model_names
from tests.models.tiny import INFO, SHAPE, random_model

pytestmark = pytest.mark.usefixtures("short_likelihoods")

EXAM = EvaluationConfig(
    num_samples=120, num_likelihood_images=6, num_slow_likelihood_images=2, batch_size=50, speed_repeats=1
)


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return digits.load(digits.Config())


@pytest.fixture(scope="module")
def reference(dataset: ImageDataset) -> Reference:
    return Reference(dataset, EXAM, seed=0)


def test_as_many_images_as_the_test_split_has_or_fewer(dataset: ImageDataset) -> None:
    assert number_of_samples(dataset, EXAM) == 120
    assert number_of_samples(dataset, EvaluationConfig()) == len(dataset.test) == 500


@pytest.mark.parametrize("name", model_names())
def test_batches_do_not_matter(name: str) -> None:
    labels = np.array([0, 1, 2, 2, 1, 0, 0])
    model = random_model(name)
    one, other = (generate(model, labels, seed=5, batch_size=b) for b in (7, 3))
    assert one.images.dtype == np.uint8 and one.images.shape == (7, *SHAPE)
    assert (one.labels == labels).all()
    assert np.abs(one.images.astype(int) - other.images.astype(int)).max() <= 1


def test_real_test_images_against_themselves(dataset: ImageDataset, reference: Reference) -> None:
    n = reference.n
    values = reference.score(Generated(dataset.test.images[:n], dataset.test.labels[:n]))
    assert values["fd_digits"].value == pytest.approx(0, abs=1e-3)
    assert values["precision"].value == values["recall"].value == values["coverage"].value == 1
    assert values["class_agreement"].value > 0.95
    assert values["fd_digits_train"].value > values["fd_digits"].value
    assert all(v.n_real == v.n_fake == n for v in values.values())


def keys(features: str, main: bool) -> dict[str, bool]:
    """Names of all metrics of a feature space, with their direction."""
    metrics = [m for m in all_metrics() if m.applies(features)]
    return {metric_key(n, features, main): m.higher_is_better for m in metrics for n in m.names}


def test_every_metric_is_there_and_the_distance_twice(dataset: ImageDataset, reference: Reference) -> None:
    values = reference.score(Generated(dataset.train.images[:120], dataset.train.labels[:120]))
    assert set(values) == set(keys("digits", True) | keys("pixels", False)) | {"fd_digits_train"}
    assert all((v.value is None) == (v.reason_missing is not None) for v in values.values())


def test_without_an_extractor_metrics_are_missing_with_the_reason(dataset: ImageDataset) -> None:
    unknown = replace(dataset, info=replace(dataset.info, name="unknown"))
    reference = Reference(unknown, EXAM, seed=0)
    assert reference.extractor_sha256 is None
    values = reference.score(Generated(dataset.test.images[:120], dataset.test.labels[:120]))
    directions = keys("unknown", True)
    assert {name: values[name].higher_is_better for name in directions} == directions
    assert all(values[name].value is None and "unknown" in values[name].reason_missing for name in directions)
    assert any(values[name].value is not None for name in keys("pixels", False)), "pixels need no extractor"


def test_several_feature_spaces_and_one_that_cannot_be_had(dataset: ImageDataset) -> None:
    exam = replace(EXAM, features=("digits", "inception"))
    values = Reference(dataset, exam, seed=0).score(Generated(dataset.test.images[120:240], None))
    assert values["fd_digits"].value is not None and values["precision"].features == "digits"
    assert values["fid"].value is None and "weights" in values["fid"].reason_missing
    assert values["precision_inception"].features == "inception"
    assert "fd_inception" not in values and values["class_agreement"].reason_missing


def test_every_number_carries_its_fingerprint(dataset: ImageDataset, reference: Reference) -> None:
    generated = Generated(dataset.train.images[:100], dataset.train.labels[:100], resize="4x4 to 8x8, bilinear")
    values = {name: v for name, v in reference.score(generated).items() if v.value is not None}
    prints = {name: v.fingerprint for name, v in values.items()}
    assert all(p is not None for p in prints.values())
    one = prints["fd_digits"]
    assert (one.features, one.n_real, one.n_fake, one.reference_split) == ("digits", 120, 100, "test")
    assert one.weights_sha256 == reference.extractor_sha256 and one.dtype == "float32"
    assert one.resize == "4x4 to 8x8, bilinear" and one.quantiser == "uint8 as given"
    assert one.reference_sha256 == image_hash(dataset.test.images[:120])
    assert prints["fd_digits_train"].reference_split == "train"
    assert prints["memorization_gap_pixels"].reference_split == "train and test"
    assert {"torch", "numpy"} <= set(one.versions)


class Small:
    """The digits of the tiny models' classes: 0, 1 and 2."""

    @staticmethod
    def of(dataset: ImageDataset) -> ImageDataset:
        def keep(split):
            rows = split.labels < INFO.num_classes
            return type(split)(split.images[rows], split.labels[rows])

        parts = map(keep, (dataset.train, dataset.validation, dataset.test))
        return ImageDataset(replace(dataset.info, num_classes=INFO.num_classes), *parts)


def test_a_likelihood_that_beats_the_truth_is_taken_back() -> None:
    images = np.zeros((2, 1, 8, 8), np.uint8)
    honest, cheating = (
        ScoredBound(Likelihood(2.0, 1.9, 2.1, kind, {}, 100, standard_error=0.05), images, np.zeros(2))
        for kind in ("honest", "cheating")
    )
    gaps = (BoundGap("honest", 0.4, 0.05, 100), BoundGap("cheating", -0.4, 0.05, 100))
    truth = Truth(2.4, 0.0, 2.5, 0.0, 10, 10, 10.0, 0.1, 0.1, gaps)
    one, other = believed([honest, cheating], truth)
    assert one == honest.likelihood
    assert other.bits_per_dim is None and other.kind == "cheating" and other.self_check_passed is False
    assert "bits" in other.reason_missing


@pytest.mark.parametrize("name", model_names())
def test_an_examination(name: str, dataset: ImageDataset) -> None:
    small = Small.of(dataset)
    model, reference = random_model(name), Reference(small, EXAM, seed=0)
    found = examine(model, reference, EXAM, seeds={"samples": 1, "likelihood": 2})
    assert (found.generated.labels == asked_labels(small, 120)).all()
    again = generate(model, found.generated.labels, seed=1, batch_size=50)
    assert (again.images == found.generated.images).all()
    assert found.metrics == reference.score(found.generated)
    assert found.speed.images_per_second > 0
    assert [found_.kind for found_ in found.likelihoods] == list(model.likelihood_kinds)
    n = 2 if model.likelihood_kinds[0] in model.slow_likelihood_kinds else 6
    images = torch.from_numpy(small.test.images[:n])
    model.calibrate_likelihood(
        torch.from_numpy(small.validation.images[:64]), generator=torch.Generator().manual_seed(2)
    )
    bound = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(2))
    bits = -float(bound.log_likelihood.mean()) / (64 * np.log(2))
    assert found.likelihoods[0].bits_per_dim == pytest.approx(bits, rel=1e-9)
    assert found.truth is None


@pytest.mark.parametrize("name", ["diffusion", "gan"])
def test_slow_likelihoods_that_were_not_asked_for_are_missing_with_the_reason(
    name: str, reference: Reference, dataset: ImageDataset
) -> None:
    model = random_model(name)
    exam = replace(EXAM, num_slow_likelihood_images=0)
    small = Reference(Small.of(dataset), exam, seed=0)
    found = {bound.likelihood.kind: bound.likelihood for bound in score_likelihoods(model, small.dataset, exam, seed=0)}
    assert set(found) == set(model.likelihood_kinds)
    for kind, likelihood in found.items():
        asked = kind not in model.slow_likelihood_kinds
        assert (likelihood.bits_per_dim is not None) == asked
        assert asked or "not asked for" in likelihood.reason_missing
