"""Numbers of pairs of images and of codes, against closed forms and independent computations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evaluation.metrics import Score
from evaluation.pairs import PairMetric, Pairs, pair_metrics, score_pairs
from evaluation.pairs.base import mean_interval, squared_errors
from evaluation.pairs.codebook import CONTINUOUS, code_counts, dead_codes, perplexity, usage
from evaluation.pairs.psnr import psnr, psnr_score
from evaluation.pairs.ssim import conditions, ssim, ssim_score, window_side, window_sigma
from tests.reports.synthetic import PRINT

RNG = np.random.default_rng(0)
NAMES = {"psnr", "ssim", "codebook_usage", "perplexity", "dead_codes"}


def images(n: int = 12, channels: int = 1, side: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (n, channels, side, side), dtype=np.uint8)


def pairs(n: int = 12) -> Pairs:
    return Pairs(images(n), images(n), RNG.integers(0, 6, (n, 4)), 6)


@pytest.mark.parametrize("metric", pair_metrics(), ids=lambda metric: metric.names[0])
def test_declarations_and_one_finite_score_per_name(metric: PairMetric) -> None:
    assert metric.names and metric.min_samples >= 1 and ("arXiv:" in metric.paper or "doi:" in metric.paper)
    assert metric.summary and "\n" not in metric.summary and metric.conditions(pairs())
    scores = metric.compute(pairs())
    assert len(scores) == len(metric.names) and all(np.isfinite(score.value) for score in scores)
    for score in (s for s in scores if s.ci_low is not None):
        assert score.ci_low < score.value < score.ci_high and score.ci_method


def test_the_driver_finds_them_all_and_stamps_them() -> None:
    values = score_pairs(pairs(), PRINT)
    assert set(values) == NAMES
    assert all(v.value is not None and v.n_real == v.n_fake == 12 for v in values.values())
    assert values["ssim"].fingerprint.features == "pixels, data range 255, Gaussian window 5 x 5, sigma 0.5"
    assert values["dead_codes"].ci_low is None and values["dead_codes"].higher_is_better is None


def test_too_few_images_and_continuous_codes_are_missing_with_the_reason() -> None:
    few = score_pairs(pairs(1), PRINT)
    assert few["psnr"].value is None and "1 images are too few" in few["psnr"].reason_missing
    smooth = score_pairs(replace(pairs(), indices=None, codebook_size=0), PRINT)
    assert smooth["psnr"].value is not None
    assert {smooth[name].reason_missing for name in ("codebook_usage", "perplexity", "dead_codes")} == {CONTINUOUS}


# PSNR.


@pytest.mark.parametrize("side", [8, 28])
def test_psnr_by_hand(side: int) -> None:
    real, fake = images(1100, 3, side), images(1100, 3, side)  # more than one batch
    error = np.mean((real.astype(float) - fake.astype(float)) ** 2)
    assert psnr(real, fake) == pytest.approx(10 * math.log10(255**2 / error), rel=1e-6)  # float32 logarithm


def test_psnr_of_one_grey_level_is_known() -> None:
    real = np.full((3, 1, 8, 8), 100, np.uint8)
    assert psnr(real, real + 1) == pytest.approx(20 * math.log10(255), rel=1e-6)


def test_a_perfect_reconstruction_has_no_finite_psnr_and_an_ssim_of_one() -> None:
    real = images()
    values = score_pairs(Pairs(real, real), PRINT)
    assert values["psnr"].value is None and "exactly" in values["psnr"].reason_missing
    assert values["ssim"].value == pytest.approx(1, abs=1e-12) and values["ssim"].ci_high <= 1 + 1e-12
    some = real.copy()
    some[0, 0, 0, 0] ^= 1  # one image of twelve is not exact: a value, and no interval that ends at infinity
    (score,) = psnr_score(Pairs(real, some))
    assert score == Score(pytest.approx(10 * math.log10(255**2 * real.size)))


def test_the_interval_of_the_mean_covers_it() -> None:
    """Squared errors of unequal images, as exponentials: Student's interval is a little short for skewed values."""
    rng = np.random.default_rng(3)
    ends = [mean_interval(rng.exponential(7, 200)) for _ in range(2000)]
    covered = np.mean([low <= 7 <= high for low, high in ends])
    assert 0.925 < covered < 0.965


def test_the_psnr_interval_is_that_of_the_squared_error() -> None:
    real, fake = images(50), images(50)
    low, high = mean_interval(squared_errors(real, fake))
    (score,) = psnr_score(Pairs(real, fake))
    assert 255**2 / 10 ** (score.ci_high / 10) == pytest.approx(low)
    assert 255**2 / 10 ** (score.ci_low / 10) == pytest.approx(high)


# SSIM.


def ssim_by_loops(real: np.ndarray, fake: np.ndarray, sigma: float) -> float:
    """Equation 13 of Wang et al. pixel by pixel, with mirrored borders, for one channel."""
    half = window_side(sigma) // 2
    offsets = np.arange(-half, half + 1)
    line = np.exp(-(offsets**2) / (2 * sigma**2))
    window = np.outer(line, line) / line.sum() ** 2
    x, y = (np.pad(image.astype(float), half, mode="reflect") for image in (real, fake))
    c1, c2, found = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for i, j in np.ndindex(*real.shape):
        a, b = (side[i : i + 2 * half + 1, j : j + 2 * half + 1] for side in (x, y))
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
        both = (window * (a - mean_a) * (b - mean_b)).sum()
        found.append(
            (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        )
    return float(np.mean(found))


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 20)])
def test_ssim_against_loops(channels: int, side: int) -> None:
    real = images(3, channels, side)
    fake = np.clip(real.astype(int) + RNG.integers(-40, 41, real.shape), 0, 255).astype(np.uint8)
    sigma = window_sigma(side, side)
    expected = [np.mean([ssim_by_loops(a, b, sigma) for a, b in zip(x, y, strict=True)])
                for x, y in zip(real, fake, strict=True)]  # fmt: skip
    assert ssim(real, fake) == pytest.approx(expected, rel=1e-9)


def test_ssim_of_flat_images_is_known() -> None:
    a, b, c1 = 60.0, 180.0, (0.01 * 255) ** 2
    real, fake = (np.full((2, 1, 16, 16), level, np.uint8) for level in (a, b))
    assert ssim(real, fake) == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), rel=1e-9)


def test_the_window_fits_the_image_and_is_stated() -> None:
    assert (window_side(window_sigma(8, 8)), window_side(window_sigma(28, 28))) == (5, 11)
    assert "11 x 11, sigma 1.5" in conditions(Pairs(images(2, 1, 28), images(2, 1, 28)))
    with pytest.raises(ValueError, match="at least 3 pixels"):
        ssim_score(Pairs(images(2, 1, 2), images(2, 1, 2)))


def test_sides_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="of one shape, not uint8"):
        squared_errors(images(3), images(4))
    with pytest.raises(ValueError, match="float64"):
        ssim(images(3).astype(float), images(3))


# Codes.


@pytest.mark.parametrize("k", [1, 2, 7, 240])
def test_equal_use_of_k_of_twice_as_many_codes(k: int) -> None:
    counts = code_counts(np.tile(np.arange(k), (5, 1)), 2 * k)
    assert usage(counts) == 0.5 and dead_codes(counts) == k
    assert perplexity(counts) == pytest.approx(k, rel=1e-12)


def test_one_code_only() -> None:
    counts = code_counts(np.full((9, 4), 2), 8)
    assert (usage(counts), dead_codes(counts), perplexity(counts)) == (1 / 8, 7, 1)


def test_unequal_use_has_the_perplexity_of_its_entropy() -> None:
    counts = code_counts(np.array([0, 0, 1, 3]), 4)
    assert perplexity(counts) == pytest.approx(2**1.5)  # an entropy of 1/2 + 1/4 * 2 + 1/4 * 2 bits
    assert counts.tolist() == [2, 1, 0, 1]


@pytest.mark.parametrize("indices", [[[0, 4]], [[-1, 0]], [[]]])
def test_indices_outside_the_codebook_are_refused(indices: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"must lie in 0\.\.3"):
        code_counts(np.array(indices, np.int64), 4)
