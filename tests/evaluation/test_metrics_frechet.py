"""Fréchet distance against closed forms, torch-fidelity and itself computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity import metric_fid

from evaluation.metrics import FeatureStatistics, frechet_distance, frechet_from_statistics
from evaluation.metrics.frechet import covariance_factor, group_distances, trace_from_factor, trace_from_samples
from evaluation.metrics.intervals import random_groups
from evaluation.metrics.statistics import GroupStatistics

Array = np.ndarray


def with_moments(n: int, mean: Array, covariance: Array, seed: int) -> Array:
    """n samples whose sample mean and unbiased covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x.T)))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def features(n: int, d: int, seed: int) -> Array:
    """Correlated, skewed samples."""
    rng = np.random.default_rng(seed)
    return np.abs(rng.normal(size=(n, d)) @ rng.normal(size=(d, d))) / d + rng.normal(size=d)


@pytest.mark.parametrize("n", [20, 400])  # few samples: singular values; many: eigenvalues
@pytest.mark.parametrize("d", [1, 3, 15])
def test_diagonal_gaussians(n: int, d: int) -> None:
    rng = np.random.default_rng(d)
    m, s = rng.normal(size=(2, d)), rng.uniform(0.1, 3, size=(2, d))
    real, fake = (with_moments(n + 7 * i, m[i], np.diag(s[i] ** 2), seed=i) for i in (0, 1))
    expected = ((m[0] - m[1]) ** 2).sum() + ((s[0] - s[1]) ** 2).sum()
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9)


def test_rotated_gaussians_that_do_not_commute() -> None:
    angle = 0.7
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    c1, c2 = np.diag([4.0, 1.0]), rotation @ np.diag([9.0, 0.25]) @ rotation.T
    product = c1 @ c2  # for 2x2: tr M^½ = (tr M + 2 det M^½)^½
    trace = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    real, fake = with_moments(50, np.zeros(2), c1, 0), with_moments(60, np.ones(2), c2, 1)
    assert frechet_distance(real, fake) == pytest.approx(2 + np.trace(c1 + c2) - 2 * trace, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(200, 5), (300, 64), (120, 100)])
def test_torch_fidelity(n: int, d: int) -> None:
    real, fake = features(n, d, 0), features(n + 20, d, 1)
    stats = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
    theirs = metric_fid.fid_statistics_to_metric(*stats, verbose=False)[metric_fid.KEY_METRIC_FID]
    assert frechet_distance(real, fake) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 40, 200), (40, 30, 35), (500, 400, 16), (5, 300, 40)])
def test_both_ways_to_the_trace_agree(n: int, m: int, d: int) -> None:
    x, y = features(n, d, 2), features(m, d, 3)
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    assert trace_from_samples(a, b) == pytest.approx(
        trace_from_factor(covariance_factor(a.T @ a), b.T @ b), rel=1e-6
    )
    by_statistics = frechet_from_statistics(FeatureStatistics.of(x), FeatureStatistics.of(y))
    assert frechet_distance(x, y) == pytest.approx(by_statistics, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(500, 8), (40, 200), (2, 3)])
def test_identical_sets_are_at_distance_zero(n: int, d: int) -> None:
    x = features(n, d, 4)
    scale = np.trace(np.atleast_2d(np.cov(x.T)))
    assert 0 <= frechet_distance(x, x.copy()) <= 1e-7 * scale
    assert 0 <= frechet_distance(x, x[::-1]) <= 1e-7 * scale


def test_constant_features_have_only_the_distance_of_the_means() -> None:
    assert frechet_distance(np.zeros((10, 4)), np.full((12, 4), 3.0)) == 36.0


def test_symmetric_permutation_and_rotation_invariant() -> None:
    rng = np.random.default_rng(5)
    x, y = features(150, 12, 6), features(100, 12, 7)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    expected = frechet_distance(x, y)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(rng.permutation(x), rng.permutation(y)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(x @ rotation + 5, y @ rotation + 5) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * expected, rel=1e-9)


def test_takes_torch_tensors_and_float32() -> None:
    x, y = features(80, 6, 8).astype(np.float32), features(70, 6, 9).astype(np.float32)
    expected = frechet_distance(x.astype(np.float64), y.astype(np.float64))
    assert frechet_distance(torch.from_numpy(x), torch.from_numpy(y)) == expected == frechet_distance(x, y)


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=5),
    d=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_statistics_merge_and_part(sizes: list[int], d: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(3, 2, size=(sum(sizes), d))
    parts = [FeatureStatistics.of(part) for part in np.split(x, np.cumsum(sizes)[:-1])]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    expected = FeatureStatistics.of(x)
    assert whole.n == expected.n
    np.testing.assert_allclose(whole.mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(whole.scatter, expected.scatter, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        whole.without(parts[0]).scatter, FeatureStatistics.of(x[sizes[0] :]).scatter, rtol=1e-9, atol=1e-9
    )


def test_statistics_are_numpys() -> None:
    x = features(50, 4, 10)
    np.testing.assert_allclose(FeatureStatistics.of(x).covariance, np.cov(x.T), rtol=1e-12)


@pytest.mark.parametrize(
    ("real", "fake", "sentence"),
    [
        (np.zeros((5, 3)), np.zeros((5, 4)), "real features have 3 dimensions, fake ones 4"),
        (np.zeros((1, 3)), np.zeros((5, 3)), "1 real samples are too few"),
        (np.zeros((5, 3)), np.zeros(3), r"fake features must be \(N, D\)"),
        (np.zeros((5, 3)), np.full((5, 3), np.nan), "fake features hold values that are not finite"),
        (np.full((5, 3), np.inf), np.zeros((5, 3)), "real features hold values that are not finite"),
    ],
)
def test_bad_input(real: Array, fake: Array, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        frechet_distance(real, fake)


def test_statistics_of_float32_in_blocks_and_of_shards() -> None:
    x = (features(5_000, 6, 11) + 100).astype(np.float32)  # three blocks, far from the origin
    statistics = FeatureStatistics.of(x)
    np.testing.assert_allclose(statistics.mean, x.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.covariance, np.cov(x.astype(np.float64).T), rtol=1e-9)
    shards = [FeatureStatistics.of(part) for part in np.array_split(x, 7)]
    merged = shards[0]
    for shard in shards[1:]:
        merged = merged.merge(shard)
    y = features(300, 6, 12) + 100
    expected = frechet_distance(x, y)
    assert frechet_from_statistics(merged, FeatureStatistics.of(y)) == pytest.approx(expected, rel=1e-9)


def test_statistics_of_one_sample_have_no_distance() -> None:
    one, two = FeatureStatistics.of(np.ones((1, 3))), FeatureStatistics.of(np.eye(3))
    with pytest.raises(ValueError, match="at least 2 samples a side, not 1 and 3"):
        frechet_from_statistics(one, two)


def test_rank_deficient_covariances() -> None:
    """Three directions in twelve dimensions: the distance is that of the three coordinates."""
    x, y = features(400, 3, 13), features(300, 3, 14)
    basis = np.linalg.qr(np.random.default_rng(15).normal(size=(12, 3)))[0]
    assert frechet_distance(x @ basis.T, y @ basis.T) == pytest.approx(frechet_distance(x, y), rel=1e-6)


@pytest.mark.parametrize("d", [3, 40])
def test_unions_of_groups_are_sets_without_rows(d: int) -> None:
    x, y = features(200, d, 16), features(150, d, 17)
    groups = [random_groups(len(z)) for z in (x, y)]
    sides = [GroupStatistics(z, g) for z, g in zip((x, y), groups, strict=True)]
    kept = np.ones((4, 20), bool)
    kept[1, 3] = kept[2, 7] = kept[2, 19] = kept[3, :12] = False
    rows = [np.concatenate([g for g, keep in zip(groups[0], mask, strict=True) if keep]) for mask in kept]
    expected = [frechet_distance(x[r], y) for r in rows]
    assert group_distances(*sides, kept, kept[:1]) == pytest.approx(expected, rel=1e-8)
    assert group_distances(*sides[::-1], kept[:1], kept) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("d", "n"), [(2, 50), (6, 200), (16, 400)])
def test_predicted_bias_of_gaussians(d: int, n: int) -> None:
    """N(0, I_d) against itself: 2d/n + d(d+1)/2n to first order in 1/n, the second being d/n smaller."""
    rng = np.random.default_rng(d)
    values = [frechet_distance(*rng.normal(size=(2, n, d))) for _ in range(400)]
    predicted = 2 * d / n + d * (d + 1) / (2 * n)
    noise = 4 * np.std(values) / np.sqrt(len(values))
    assert np.mean(values) == pytest.approx(predicted, abs=noise + predicted * d / n)
