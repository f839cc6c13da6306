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
from evaluation.metrics import all_metrics
from evaluation.runner import Generated, Reference, examine, generate, number_of_samples
from experiments.discovery import model_names
from tests.models.tiny import INFO, SHAPE, random_model

EXAM = EvaluationConfig(num_samples=120, num_likelihood_images=6, batch_size=50, speed_repeats=1)


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


def test_every_metric_is_there_and_the_distance_twice(dataset: ImageDataset, reference: Reference) -> None:
    values = reference.score(Generated(dataset.train.images[:120], dataset.train.labels[:120]))
    names = {n.format(features="digits") for m in all_metrics() for n in m.names}
    assert set(values) == names | {"fd_digits_train"}
    assert all((v.value is None) == (v.reason_missing is not None) for v in values.values())


def test_without_an_extractor_metrics_are_missing_with_the_reason(dataset: ImageDataset) -> None:
    unknown = ImageDataset(replace(dataset.info, name="unknown"), dataset.train, dataset.validation, dataset.test)
    reference = Reference(unknown, EXAM, seed=0)
    assert reference.extractor_sha256 is None
    values = reference.score(Generated(dataset.test.images[:120], dataset.test.labels[:120]))
    directions = {n.format(features="unknown"): m.higher_is_better for m in all_metrics() for n in m.names}
    assert {name: v.higher_is_better for name, v in values.items()} == directions
    assert all(v.value is None and "unknown" in v.reason_missing for v in values.values())


class Small:
    """The digits of the tiny models' classes: 0, 1 and 2."""

    @staticmethod
    def of(dataset: ImageDataset) -> ImageDataset:
        def keep(split):
            rows = split.labels < INFO.num_classes
            return type(split)(split.images[rows], split.labels[rows])

        parts = map(keep, (dataset.train, dataset.validation, dataset.test))
        return ImageDataset(replace(dataset.info, num_classes=INFO.num_classes), *parts)


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
    images = torch.from_numpy(small.test.images[:6])
    bound = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(2))
    if bound is None:
        assert found.likelihood.reason_missing == model.likelihood_missing
    else:
        bits = -float(bound.log_likelihood.mean()) / (64 * np.log(2))
        assert found.likelihood.bits_per_dim == pytest.approx(bits, rel=1e-9)
