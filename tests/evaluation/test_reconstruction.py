"""The exam of first stages: who sits it, what the distance is, and what of it is in the record; its pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from datamodules import digits
from datamodules.base import ImageDataset
from evaluation.code_pictures import (
    BETWEEN,
    GREY,
    code_colours,
    code_maps,
    code_picture,
    code_pictures,
    enlarged,
    inpainting_picture,
    reconstruction_picture,
    takes_a_mask,
)
from evaluation.config import EvaluationConfig
from evaluation.pairs.codebook import code_counts, perplexity
from evaluation.reconstruction import Reconstructed, code_grids, judge_first_stage, reconstructed
from evaluation.record import FirstStage, load_record
from evaluation.reference import Reference
from tests.evaluation.test_record import record
from tests.models.tiny import random_model

EXAM = EvaluationConfig(num_samples=120, batch_size=50)
KEYS = {"rfd_digits", "rfd_digits_train", "psnr", "ssim", "codebook_usage", "perplexity", "dead_codes"}


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return digits.load(digits.Config())


@pytest.fixture(scope="module")
def reference(dataset: ImageDataset) -> Reference:
    return Reference(dataset, EXAM, seed=0)


def given_back(images: np.ndarray) -> Reconstructed:
    """What a first stage of two grids would return."""
    indices = np.tile(np.array([0, 1, 1, 2, 5]), (len(images), 1))
    return Reconstructed(images, indices, ((1, 1), (2, 2)), 8)


def test_a_perfect_first_stage_has_a_distance_of_zero(reference: Reference) -> None:
    found = judge_first_stage(reference, given_back(reference.images))
    assert set(found.metrics) == KEYS and found.n_images == 120
    assert found.metrics["rfd_digits"].value == pytest.approx(0, abs=1e-3)
    assert found.metrics["psnr"].value is None and found.metrics["ssim"].value == pytest.approx(1)


def test_the_distance_against_the_formula(reference: Reference) -> None:
    noisy = np.clip(reference.images + np.random.default_rng(0).integers(0, 90, reference.images.shape), 0, 255)
    fake = noisy.astype(np.uint8)
    value = judge_first_stage(reference, given_back(fake)).metrics["rfd_digits"]
    x, y = (reference.spaces[0].look(side).features.astype(np.float64) for side in (reference.images, fake))
    root = np.real(sqrtm(np.cov(x.T) @ np.cov(y.T)))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert value.value == pytest.approx(expected, rel=1e-3) and value.value > 1
    assert value.ci_low is None and value.ci_method is None  # both sides are the same images
    assert value.fingerprint.features == "digits" and value.fingerprint.reference_split == "test"


def test_against_training_images_the_sets_are_independent(reference: Reference) -> None:
    value = judge_first_stage(reference, given_back(reference.images)).metrics["rfd_digits_train"]
    assert value.ci_low < value.value < value.ci_high and value.fingerprint.reference_split == "train"


def test_use_of_the_codebook_over_all_grids_and_in_each(reference: Reference) -> None:
    found = judge_first_stage(reference, given_back(reference.images))
    assert found.code_counts == (240, 120, 120, 120) and found.codebook_size == 8
    assert found.metrics["codebook_usage"].value == 0.5 and found.metrics["dead_codes"].value == 4
    assert [(g.rows, g.columns, g.used) for g in found.grids] == [(1, 1, 1), (2, 2, 3)]
    assert found.grids[0].perplexity == 1 and found.grids[1].perplexity == pytest.approx(2**1.5)
    with pytest.raises(ValueError, match="do not make up 5 codes"):
        code_grids(np.zeros((2, 5), np.int64), ((2, 2),), 8)


def test_continuous_codes_have_everything_but_use(reference: Reference) -> None:
    found = judge_first_stage(reference, Reconstructed(reference.images, None, (), 0))
    assert (found.codebook_size, found.grids, found.code_counts) == (0, (), ())
    assert "continuous" in found.metrics["perplexity"].reason_missing
    assert found.metrics["rfd_digits"].value is not None


def test_without_an_extractor_the_distance_is_missing_and_the_rest_is_there(dataset: ImageDataset) -> None:
    spaces = Reference(dataset, replace(EXAM, features=("inception",)), seed=0)
    found = judge_first_stage(spaces, given_back(spaces.images)).metrics
    assert found["rfid"].value is None and "weights" in found["rfid"].reason_missing
    assert found["rfid_train"].value is None and found["ssim"].value is not None
    assert not [name for name in found if name.startswith("rfd")], "Inception's own name, and only for Inception"


def test_models_are_asked_in_batches_that_do_not_matter(dataset: ImageDataset) -> None:
    model, images = random_model("vqvae"), dataset.test.images[:9]
    one, other = (reconstructed(model, images, batch_size=size) for size in (9, 4))
    assert (one.indices == other.indices).all() and one.images.shape == images.shape
    assert np.abs(one.images.astype(int) - other.images.astype(int)).max() <= 1
    assert one.grids == model.autoencoder.grids and one.codebook_size == model.autoencoder.codebook_size
    told: list[int] = []
    reconstructed(model, images, batch_size=4, on_images=told.append)
    assert told == [4, 8, 9]


@pytest.mark.parametrize("name", ["gan", "diffusion"])
def test_a_model_without_a_first_stage_has_none(name: str, dataset: ImageDataset) -> None:
    assert reconstructed(random_model(name), dataset.test.images[:4], batch_size=4) is None
    assert code_pictures(random_model(name), dataset.test.images, dataset.test.labels % 3, seed=0) == {}


def test_the_record_keeps_it_and_reads_older_ones(reference: Reference, tmp_path: Path) -> None:
    first = judge_first_stage(reference, given_back(reference.images))
    made = replace(record(), reconstruction=first)
    made.save(tmp_path / "record.json")
    assert load_record(tmp_path / "record.json").reconstruction == first
    older = (tmp_path / "record.json").read_text().replace('"reconstruction"', '"unknown"')
    (tmp_path / "older.json").write_text(older)
    assert load_record(tmp_path / "older.json").reconstruction is None
    assert isinstance(first, FirstStage)


# Pictures.


def test_every_code_has_a_colour_of_its_own_where_it_stands() -> None:
    assert len({tuple(colour) for colour in code_colours(512).tolist()}) > 500
    indices = np.array([[3, 0, 1, 2, 3]])
    one, four = code_maps(indices, ((1, 1), (2, 2)), 4, (6, 6))
    colours = code_colours(4)
    assert (one[0].transpose(1, 2, 0) == colours[3]).all() and one.shape == four.shape == (1, 3, 6, 6)
    corners = four[0].transpose(1, 2, 0)[[0, 0, 5, 5], [0, 5, 0, 5]]
    assert (corners == colours[[0, 1, 2, 3]]).all()


def test_originals_stand_above_what_came_back() -> None:
    images = np.random.default_rng(1).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
    picture = reconstruction_picture(images, 255 - images)
    side = enlarged(images).shape[2]
    upper, lower = picture[3 : 3 + side, 3 : 3 + side], picture[6 + side : 6 + 2 * side, 3 : 3 + side]
    assert (upper == enlarged(images)[0].transpose(1, 2, 0)).all() and (upper == 255 - lower).all()
    assert len(picture) == 2 * (2 * side + 9) + BETWEEN
    rows = code_picture(images[:5], np.zeros((5, 5), np.int64), ((1, 1), (2, 2)), 4)
    assert len(rows) == 3 * side + 4 * 3


def test_a_half_is_kept_and_the_other_drawn_anew(dataset: ImageDataset) -> None:
    """With a model of the diffusion family, which takes an image and a mask."""
    model = random_model("diffusion")
    assert takes_a_mask(model) and not takes_a_mask(random_model("gan"))
    images, labels = dataset.test.images[:4], dataset.test.labels[:4] % 3
    picture = inpainting_picture(model, images, labels, seed=0)
    side = enlarged(images).shape[2]
    rows = [picture[3 + k * (side + 3) : 3 + k * (side + 3) + side] for k in range(5)]
    assert all((row[: side // 2] == rows[0][: side // 2]).all() for row in rows)
    assert (rows[1][side // 2 :, 3 : 3 + side] == GREY).all()
    assert not (rows[2][side // 2 :] == rows[0][side // 2 :]).all()
    assert not (rows[2][side // 2 :] == rows[3][side // 2 :]).all()


def test_the_pictures_of_a_model_with_codes(dataset: ImageDataset) -> None:
    model = random_model("vqvae")
    drawn = code_pictures(model, dataset.test.images, dataset.test.labels % 3, seed=0)
    assert {"reconstructions.png", "codes.png"} <= set(drawn)
    assert ("inpainting.png" in drawn) == takes_a_mask(model)
    assert all(p.dtype == np.uint8 and p.ndim == 3 for p in drawn.values())
    found = model.reconstruct(torch.from_numpy(dataset.test.images[:12]))
    counts = code_counts(found.indices.numpy(), found.codebook_size)
    assert perplexity(counts) <= (counts > 0).sum() <= found.codebook_size
