"""Precision, recall, density and coverage against prdc, scikit-learn and cases known by heart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.spatial.distance import cdist
from torch_fidelity import metric_prc

from evaluation.metrics import density_coverage, expected_coverage, precision_recall
from evaluation.metrics.neighbours import neighbour_radii, squared_distances

Array = np.ndarray


def features(n: int, seed: int, d: int = 16, shift: float = 0.0, scale: float = 1.0) -> Array:
    """Normal samples in float32, far from the origin as real features may be."""
    return (np.random.default_rng(seed).normal(shift, scale, size=(n, d)) + 20).astype(np.float32)


CASES = [
    (features(300, 0), features(250, 1)),
    (features(200, 2), features(300, 3, shift=0.3, scale=0.7)),
    (features(200, 4, d=3), features(200, 5, d=3, shift=2)),
    (features(100, 6, d=200), features(150, 7, d=200, scale=1.2)),
]


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_prdc(case: int, k: int) -> None:
    real, fake = CASES[case]
    theirs = compute_prdc(real.astype(np.float64), fake.astype(np.float64), k)
    ours = precision_recall(real, fake, k)._asdict() | density_coverage(real, fake, k)._asdict()
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
def test_block_size_does_not_matter(block: int) -> None:
    real, fake = CASES[1]
    assert precision_recall(real, fake, block=block) == precision_recall(real, fake)
    assert density_coverage(real, fake, block=block) == density_coverage(real, fake)


def test_permutation_invariant_and_takes_torch() -> None:
    rng = np.random.default_rng(0)
    real, fake = CASES[1]
    shuffled, tensors = (rng.permutation(real), rng.permutation(fake)), map(torch.from_numpy, (real, fake))
    assert precision_recall(*shuffled) == precision_recall(real, fake)
    assert density_coverage(*shuffled) == density_coverage(*tensors) == density_coverage(real, fake)


def test_precision_and_recall_change_places_with_the_sets() -> None:
    real, fake = CASES[1]
    assert precision_recall(fake, real) == precision_recall(real, fake)[::-1]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_identical_sets_are_perfect(case: int) -> None:
    x = CASES[case][0]
    copy = np.random.default_rng(0).permutation(x)
    assert precision_recall(x, copy) == (1, 1)
    assert density_coverage(x, copy) == (1, 1)


def test_sets_far_apart_share_nothing() -> None:
    assert precision_recall(features(50, 0), features(50, 1, shift=99)) == (0, 0)
    assert density_coverage(features(50, 0), features(50, 1, shift=99)) == (0, 0)


def test_collapse_onto_one_real_image() -> None:
    real = features(100, 8)
    fake = np.repeat(real[:1], 80, axis=0)
    precision, recall = precision_recall(real, fake)
    assert precision == 1
    assert recall == 0.01  # balls of radius zero around a real image hold that image
    nearby = (cdist(real, real[:1])[:, 0] < np.sort(cdist(real, real))[:, 5]).mean()
    assert density_coverage(real, fake).coverage == pytest.approx(nearby)


def test_on_a_line_by_hand() -> None:
    real, fake = np.array([[0.0], [1], [3], [10]]), np.array([[0.5], [4.5], [5.5]])
    # k = 1: real radii 1, 1, 2, 7 (the ball of 10 is [3, 17]); fake radii 4, 1, 1.
    assert precision_recall(real, fake, k=1) == (1, 3 / 4)
    # open balls: 0 and 1 hold 0.5; 3 holds 4.5 (not 5.5: 2.5 away); 10 holds 4.5 and 5.5
    assert density_coverage(real, fake, k=1) == pytest.approx((5 / 3, 1))


def test_border_of_a_ball_is_inside_for_precision_only() -> None:
    real, fake = np.array([[0.0], [2.0]]), np.array([[-2.0], [-4.0]])
    assert precision_recall(real, fake, k=1).precision == 0.5
    assert density_coverage(real, fake, k=1) == (0, 0)


def test_squared_distances_and_radii_are_scipys() -> None:
    x, y = CASES[0][0].astype(np.float64), CASES[0][1].astype(np.float64)
    blocks = list(squared_distances(x, y, block=90))
    assert [(rows.start, rows.stop) for rows, _ in blocks] == [(0, 90), (90, 180), (180, 270), (270, 300)]
    np.testing.assert_allclose(np.concatenate([b for _, b in blocks]), cdist(x, y) ** 2, rtol=1e-6)
    np.testing.assert_allclose(neighbour_radii(x, 4), np.sort(cdist(x, x))[:, 4] ** 2, rtol=1e-6)


@pytest.mark.parametrize("function", [precision_recall, density_coverage])
def test_too_few_samples_for_k(function: Callable[..., tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="3 real samples are too few; at least 4 are needed"):
        function(features(3, 0), features(9, 1), k=3)
    with pytest.raises(ValueError, match="k must be from 1"):
        function(features(9, 0), features(9, 1), k=0)


def test_across_blocks_of_columns() -> None:
    """More rows than one tile of the matrix product."""
    real, fake = features(2_300, 0, d=4), features(2_100, 1, d=4, shift=0.2)
    theirs = compute_prdc(real.astype(np.float64), fake.astype(np.float64), 5)
    assert precision_recall(real, fake, 5)._asdict() | density_coverage(real, fake)._asdict() == pytest.approx(theirs)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_torch_fidelity(case: int, k: int) -> None:
    real, fake = (torch.from_numpy(x).double() for x in CASES[case])
    theirs = metric_prc.prc_features_to_metric(
        fake, real, prc_neighborhood=k, prc_batch_size=100, save_cpu_ram=False, verbose=False
    )
    expected = theirs[metric_prc.KEY_METRIC_PRECISION], theirs[metric_prc.KEY_METRIC_RECALL]
    assert precision_recall(real, fake, k) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "m", "k", "d"), [(100, 100, 5, 3), (60, 150, 3, 2), (80, 40, 1, 8)])
def test_expected_coverage_of_two_sets_of_one_law(n: int, m: int, k: int, d: int) -> None:
    values = [
        density_coverage(features(n, 2 * s, d), features(m, 2 * s + 1, d), k).coverage for s in range(200)
    ]
    assert np.mean(values) == pytest.approx(expected_coverage(n, m, k), abs=4 * np.std(values) / 200**0.5)


def test_expected_coverage_by_hand() -> None:
    assert expected_coverage(2, 1, 1) == pytest.approx(1 / 2)  # one other real, one fake: which is nearer
    assert expected_coverage(10_000, 10_000, 5) == pytest.approx(1 - 2**-5, abs=1e-4)
    with pytest.raises(ValueError, match="must hold, not k=5, n_real=5, n_fake=9"):
        expected_coverage(5, 9, 5)
