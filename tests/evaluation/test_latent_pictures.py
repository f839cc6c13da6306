"""Pictures of a latent space: what stands where in them, and that models without one have none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluation.code_pictures import enlarged
from evaluation.latent_pictures import (
    GAP,
    MIXED,
    SOUGHT,
    STOPS,
    interpolation_picture,
    latent_pictures,
    latents,
    mixing_picture,
)
from evaluation.pictures import tile
from models.base import GenerativeModel
from models.gan.projection import Search
from tests.models.tiny import INFO, SHAPE, random_model, tiny_data

CLASSES = INFO.num_classes


@pytest.fixture(autouse=True)
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.gan.family.SEARCH", Search(steps=20, restarts=2))


def cells_of(picture: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """The images of a picture, uint8 (rows, columns, side, side, 3)."""
    side = enlarged(np.zeros((1, *SHAPE), np.uint8)).shape[2]
    rows = (len(picture) - GAP) // (side + GAP)
    assert picture.shape == (rows * (side + GAP) + GAP, columns * (side + GAP) + GAP, 3)
    step = side + GAP
    return np.stack([
        [picture[GAP + r * step : GAP + r * step + side, GAP + c * step : GAP + c * step + side]
         for c in range(columns)] for r in range(rows)
    ])  # fmt: skip


def shown(model: GenerativeModel, n: int, labels: list[int], seed: int) -> NDArray[np.uint8]:
    """The first samples of a seed as a picture shows them, (n, side, side, 3)."""
    made = model.sample(n, condition=torch.tensor(labels), generator=torch.Generator().manual_seed(seed)).images
    return enlarged(made.numpy()).transpose(0, 2, 3, 1)


def close(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return bool(np.abs(one.astype(int) - other.astype(int)).max() <= 1)


@pytest.mark.parametrize("name", ["gan", "dcgan"])
def test_ways_begin_and_end_at_samples_and_stay_in_their_class(name: str) -> None:
    model = random_model(name)
    found = cells_of(interpolation_picture(model, seed=4), STOPS)
    assert len(found) == CLASSES
    ends = shown(model, 2 * CLASSES, [k // 2 for k in range(2 * CLASSES)], seed=4)
    for row in range(CLASSES):
        assert close(found[row, 0], ends[2 * row]) and close(found[row, -1], ends[2 * row + 1])
        steps = np.abs(np.diff(found[row].astype(int), axis=0)).mean((1, 2, 3))
        assert steps.max() < np.abs(found[row, 0].astype(int) - found[row, -1]).mean(), "no stop is a jump"


def test_a_row_of_mixtures_is_one_latent_as_every_class() -> None:
    model = random_model("gan")
    found = cells_of(mixing_picture(model, seed=4), CLASSES)
    assert len(found) == MIXED
    for column in range(CLASSES):
        assert close(found[:, column], shown(model, MIXED, [column] * MIXED, seed=4))
    assert not close(found[0, 0], found[0, 1]) and not close(found[0, 0], found[1, 0])


def test_test_images_stand_above_what_was_found() -> None:
    model, (images, labels) = random_model("gan"), tiny_data(12)
    drawn = latent_pictures(model, images.numpy(), labels.numpy(), seed=4)
    assert list(drawn) == ["interpolation.png", "mixing.png", "inversion.png"]
    found = cells_of(drawn["inversion.png"], SOUGHT)
    expected = model.project(images[:SOUGHT], condition=labels[:SOUGHT], generator=torch.Generator().manual_seed(4))
    pair = tile(enlarged(np.concatenate([images[:SOUGHT].numpy(), expected.images.numpy()])), SOUGHT, GAP)
    assert len(found) == 2 and (drawn["inversion.png"] == pair).all()
    again = latent_pictures(model, images.numpy(), labels.numpy(), seed=4)
    assert all((drawn[name] == again[name]).all() for name in drawn)


def test_fewer_test_images_than_asked_for_are_enough() -> None:
    images, labels = tiny_data(2)
    drawn = latent_pictures(random_model("gan"), images.numpy(), labels.numpy(), seed=0)
    assert len(cells_of(drawn["inversion.png"], 2)) == 2


def test_the_latents_are_those_of_the_first_samples() -> None:
    model, labels = random_model("wgan_gp"), torch.tensor([0, 1, 2])
    plain = model.sample(3, condition=labels, generator=torch.Generator().manual_seed(9)).images
    given = model.sample(3, condition=labels, generator=torch.Generator(), noise=latents(model, 3, 9)).images
    assert torch.equal(plain, given)


@pytest.mark.parametrize("name", ["diffusion", "vqvae"])
def test_a_model_without_a_latent_space_has_none(name: str) -> None:
    images, labels = tiny_data(4)
    assert latent_pictures(random_model(name), images.numpy(), labels.numpy(), seed=0) == {}
