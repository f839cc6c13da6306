"""The known density against SciPy, against sums over all images of a tiny instance, and against its own draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import chisquare, logistic

from datamodules import known_density as known
from datamodules.base import ImageDataset
from evaluation.features.extractors import load_extractor

NATS_PER_BIT = 64 * math.log(2)


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    return known.load(known.Config())


@pytest.fixture(scope="module")
def density(data: ImageDataset) -> known.TemplateMixture:
    assert isinstance(data.density, known.TemplateMixture)
    return data.density


@pytest.fixture(scope="module")
def tiny() -> known.TemplateMixture:
    """Three components over images of two pixels, close enough to be confused: all 65,536 can be added up."""
    templates = np.array([[0, 0], [0, 1], [2, 1]]).reshape(3, 1, 1, 2)
    return known.TemplateMixture(templates, known.discretised_logistic(np.array([3.0, 20.0, 60.0]), 8.0))


ALL_PAIRS = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), -1).astype(np.uint8)
ALL_PAIRS = ALL_PAIRS.reshape(-1, 1, 1, 2)


@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0, 40.0])
def test_the_noise_is_scipys_logistic_in_bins(scale: float) -> None:
    means = np.array([0.0, 0.5, 100.0, 128.25, 255.0])
    found = known.discretised_logistic(means, scale)
    np.testing.assert_allclose(logsumexp(found, axis=1), 0, atol=1e-12)
    edges = np.concatenate([[-np.inf], np.arange(255) + 0.5, [np.inf]])
    for mean, row in zip(means, found, strict=True):
        lower = np.diff(logistic.cdf(edges, mean, scale))
        upper = -np.diff(logistic.sf(edges, mean, scale))  # exact where the distribution function is close to 1
        expected = np.where(edges[1:] <= mean, lower, upper)
        there = expected > 1e-290
        np.testing.assert_allclose(np.exp(row[there]), expected[there], rtol=1e-9)
        assert np.isfinite(row).all()


def test_log_prob_is_the_sum_over_components(density: known.TemplateMixture) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    ends = np.repeat(np.array([0, 255], np.uint8), 64).reshape(2, 1, 8, 8)
    images = np.concatenate([density.sample(3, 7), noise, ends])
    means = known.LEVELS[density.templates]
    for image, found in zip(images, density.log_prob(images), strict=True):
        x = image.reshape(-1).astype(float)
        low = np.where(x == 0, -np.inf, x - 0.5)
        high = np.where(x == 255, np.inf, x + 0.5)
        # The reflected interval has the same mass and is taken where it lies in the lower tail.
        flip = x > means
        a, b = np.where(flip, 2 * means - high, low), np.where(flip, 2 * means - low, high)
        pixels = np.log(logistic.cdf(b, means, known.SCALE) - logistic.cdf(a, means, known.SCALE))
        assert found == pytest.approx(logsumexp(pixels.sum(1)) - math.log(len(means)), rel=1e-10)


def test_the_probabilities_of_all_images_add_up_to_one(tiny: known.TemplateMixture) -> None:
    assert np.exp(tiny.log_prob(ALL_PAIRS)).sum() == pytest.approx(1, abs=1e-12)


def test_entropy_and_modes_by_enumeration(tiny: known.TemplateMixture) -> None:
    log_p = tiny.log_prob(ALL_PAIRS)
    found, error = tiny.entropy()
    assert 0 < error < 0.005
    assert abs(found + (np.exp(log_p) * log_p).sum()) < 4 * error
    pixels = ALL_PAIRS.reshape(-1, 2)
    joint = sum(tiny.log_pmf[tiny.templates[:, d]][:, pixels[:, d]] for d in range(2))
    assert (tiny.mode(ALL_PAIRS) == joint.argmax(0)).all()
    assert (np.bincount(tiny.mode(ALL_PAIRS)) > 0).all() and tiny.num_modes == 3


def test_draws_follow_the_probabilities(tiny: known.TemplateMixture) -> None:
    n = 100_000
    drawn = tiny.sample(n, seed=5).reshape(-1, 2).astype(int)
    counts = np.bincount(drawn[:, 0] * 256 + drawn[:, 1], minlength=65_536)
    expected = n * np.exp(tiny.log_prob(ALL_PAIRS))
    often = expected >= 5
    pooled = [np.append(v[often], v[~often].sum()) for v in (counts, expected)]
    assert often.sum() > 1_000 and chisquare(*pooled).pvalue > 1e-3


def test_draws_depend_on_the_seed_only(density: known.TemplateMixture) -> None:
    one, again, other = (density.sample(50, seed) for seed in (1, 1, 2))
    assert one.dtype == np.uint8 and one.shape == (50, 1, 8, 8)
    assert (one == again).all() and (one != other).any()


def test_entropy_is_the_mean_of_the_draws_surprise(density: known.TemplateMixture) -> None:
    entropy, error = (value / NATS_PER_BIT for value in density.entropy())
    assert error < 1e-4, "bits per dimension"
    bits = -density.log_prob(density.sample(10_000, seed=11)) / NATS_PER_BIT
    assert abs(bits.mean() - entropy) < 4 * bits.std() / math.sqrt(len(bits))
    assert 4 < entropy < 5


def test_test_images_are_draws_from_it(data: ImageDataset, density: known.TemplateMixture) -> None:
    entropy = density.entropy()[0] / NATS_PER_BIT
    for split in (data.train, data.validation, data.test):
        bits = -density.log_prob(split.images) / NATS_PER_BIT
        assert abs(bits.mean() - entropy) < 4 * bits.std() / math.sqrt(len(bits))


def test_modes_are_told_apart_and_belong_to_one_class(data: ImageDataset, density: known.TemplateMixture) -> None:
    assert density.num_modes == len(density.weights) == 1_000
    assert density.weights.sum() == pytest.approx(1)
    components = np.arange(1_000)
    found = density.mode(density.draw(components, np.random.Generator(np.random.PCG64(3))))
    assert (found == components).mean() > 0.999
    per_class = density.num_modes // 10
    assert (density.mode(data.test.images) // per_class == data.test.labels).mean() > 0.999


def test_templates_are_training_digits_and_their_shifts(density: known.TemplateMixture) -> None:
    from datamodules import digits

    train = digits.load(digits.Config()).train
    templates = known.LEVELS[density.templates].reshape(200, 5, 8, 8)
    originals = {image.tobytes(): int(label) for image, label in zip(train.images, train.labels, strict=True)}
    classes = [originals[template[0].astype(np.uint8).tobytes()] for template in templates]
    assert classes == np.repeat(np.arange(10), 20).tolist()
    still, down, up, right, left = np.moveaxis(templates, 1, 0)
    assert (down[:, 1:] == still[:, :-1]).all() and (down[:, 0] == 0).all()
    assert (up[:, :-1] == still[:, 1:]).all() and (up[:, -1] == 0).all()
    assert (right[:, :, 1:] == still[:, :, :-1]).all() and (right[:, :, 0] == 0).all()
    assert (left[:, :, :-1] == still[:, :, 1:]).all() and (left[:, :, -1] == 0).all()


def test_the_shipped_classifier_reads_it(data: ImageDataset) -> None:
    assert data.info.default_features == "digits"
    logits = load_extractor("digits").extract(data.test.images).logits
    assert (np.asarray(logits).argmax(1) == data.test.labels).mean() > 0.98


def test_the_splits_stay_what_they_are(data: ImageDataset) -> None:
    assert [len(s) for s in (data.train, data.validation, data.test)] == [10_000, 1_000, 2_000]
    assert data.sha256 == "88cc68897de8c57f96db48a86989d2234b689dfd6b8e866bbba703a6ba380b45"


def test_blocks_do_not_matter(density: known.TemplateMixture) -> None:
    images = density.sample(known.BLOCK + 1, seed=2)
    whole = density.log_prob(images)
    assert whole.shape == (known.BLOCK + 1,) and whole.dtype == np.float64
    for rows in (slice(0, 1), slice(known.BLOCK - 1, known.BLOCK + 1)):
        np.testing.assert_allclose(density.log_prob(images[rows]), whole[rows], rtol=1e-12)
    assert len(density.log_prob(images[:0])) == len(density.mode(images[:0])) == 0


@pytest.mark.parametrize("images", [np.zeros((2, 1, 8, 8)), np.zeros((2, 8, 8), np.uint8), np.zeros((64,), np.uint8)])
def test_other_images_are_refused(density: known.TemplateMixture, images: np.ndarray) -> None:
    for ask in (density.log_prob, density.mode):
        with pytest.raises(ValueError, match=r"images must be uint8 \(N, 1, 8, 8\)"):
            ask(images)


def test_a_mixture_must_have_distinct_modes_and_normalised_noise() -> None:
    table = known.discretised_logistic(np.array([0.0, 200.0]), 8.0)
    with pytest.raises(ValueError, match="same template"):
        known.TemplateMixture(np.zeros((2, 1, 1, 2), np.intp), table)
    impossible = np.where(np.eye(2, 256) == 1, 0, -np.inf)
    for wrong in (table + 1e-6, impossible):
        with pytest.raises(ValueError, match="add up to 1"):
            known.TemplateMixture(np.array([0, 1]).reshape(2, 1, 1, 1), wrong)
