"""Controls are what they say: real training images, a fitted Gaussian, copies of the classes asked for."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules import digits
from datamodules.base import ImageDataset
from evaluation.config import EvaluationConfig
from evaluation.controls import CONTROLS, asked_labels, copycat, gaussian, real_train
from evaluation.runner import Reference
from experiments.control_rows import CONTROL_SEED
from experiments.seeds import axis_seed


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return digits.load(digits.Config())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows_of(images: np.ndarray, among: np.ndarray) -> list[set[int]]:
    """For every image, the rows of ``among`` that are equal to it."""
    places: dict[bytes, set[int]] = {}
    for row, image in enumerate(among):
        places.setdefault(image.tobytes(), set()).add(row)
    return [places.get(image.tobytes(), set()) for image in images]


@pytest.mark.parametrize("name", CONTROLS)
def test_form_and_repeatability(name: str, dataset: ImageDataset) -> None:
    one, again, other = (CONTROLS[name](dataset, 60, rng(seed)) for seed in (0, 0, 1))
    assert one.images.dtype == np.uint8 and one.images.shape == (60, 1, 8, 8)
    assert one.labels.dtype == np.int64 and one.labels.shape == (60,)
    assert (one.images == again.images).all() and (one.images != other.images).any()


def test_real_train_images_keep_their_labels_and_do_not_repeat(dataset: ImageDataset) -> None:
    drawn = real_train(dataset, 500, rng())
    found = rows_of(drawn.images, dataset.train.images)
    for rows, label in zip(found, drawn.labels, strict=True):
        assert label in dataset.train.labels[sorted(rows)]
    everything = real_train(dataset, len(dataset.train), rng()).images
    assert sorted(i.tobytes() for i in everything) == sorted(i.tobytes() for i in dataset.train.images)


def test_real_train_and_the_training_reference_do_not_overlap(dataset: ImageDataset) -> None:
    seed = axis_seed(CONTROL_SEED, "controls")
    n = 500
    assert len(dataset.train) >= 2 * n
    reference = Reference(dataset, EvaluationConfig(num_samples=n), seed=seed)
    drawn = real_train(dataset, n, rng(seed))
    order = rng(seed).permutation(len(dataset.train))
    assert (drawn.images == dataset.train.images[order[:n]]).all()
    beside = dataset.train.images[order[-n:]]
    assert (reference.train_images == beside).all()
    assert not set(order[:n]) & set(order[-n:])


def test_the_gaussian_has_the_mean_and_covariance_of_the_training_pixels(dataset: ImageDataset) -> None:
    drawn = gaussian(dataset, 20_000, rng()).images.reshape(20_000, -1).astype(float)
    pixels = dataset.train.images.reshape(len(dataset.train), -1).astype(float)
    middle = (pixels.mean(0) > 90) & (pixels.mean(0) < 165)  # pixels that clipping hardly touches
    assert middle.sum() >= 5
    assert np.abs(drawn.mean(0) - pixels.mean(0))[middle].max() < 8
    assert np.corrcoef(drawn.T[middle]) == pytest.approx(np.corrcoef(pixels.T[middle]), abs=0.08)
    dead = pixels.std(0) == 0
    assert dead.any() and (drawn[:, dead] == pixels[0, dead]).all()


def test_a_copycat_returns_training_images_of_the_class_asked_for(dataset: ImageDataset) -> None:
    drawn = copycat(dataset, 300, rng())
    assert (drawn.labels == asked_labels(dataset, 300)).all()
    for rows, label in zip(rows_of(drawn.images, dataset.train.images), drawn.labels, strict=True):
        assert label in dataset.train.labels[sorted(rows)]


def test_the_labels_asked_for_are_the_test_splits(dataset: ImageDataset) -> None:
    assert (asked_labels(dataset, 500) == dataset.test.labels).all()
    assert (asked_labels(dataset, 30) == dataset.test.labels[:30]).all()
    assert (asked_labels(dataset, 1000) == np.tile(dataset.test.labels, 2)).all()
