"""Memorisation: closed cases, no copying, copying; distances against scipy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from evaluation.memorization import (
    authpct,
    authpct_score,
    ct_test,
    mann_whitney_z,
    memorization_gap,
    memorization_score,
    nearest,
    nearest_distances,
)
from evaluation.metrics import Exam

Array = np.ndarray


def draw(sizes: tuple[int, ...], seed: int, d: int = 4) -> list[Array]:
    """Independent standard normal sets."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, d)) for n in sizes]


def copied(train: Array, fake: Array, share: float, seed: int, noise: float = 0.0) -> Array:
    """The generated samples with about a share of them replaced by training samples."""
    rng = np.random.default_rng(seed)
    chosen = rng.random(len(fake)) < share
    rows = train[rng.integers(0, len(train), len(fake))] + noise * rng.normal(size=fake.shape)
    return np.where(chosen[:, None], rows, fake)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [None, 1, 37])
def test_nearest_distances_are_scipys(dtype: type, block: int | None) -> None:
    x, y = (z.astype(dtype) + 30 for z in draw((80, 120), 0, d=20))
    x[5] = y[7]
    expected = cdist(x, y).min(1)
    found = nearest_distances(x, torch.from_numpy(y), block)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype is np.float32 else 1e-12, atol=0)
    assert found[5] == 0  # a copy, exactly
    assert (nearest(x, y, block=block).indices == cdist(x, y).argmin(1)).all()


def test_nearest_across_blocks_and_without_itself() -> None:
    (x,) = draw((5_000,), 1, d=3)
    everything = np.arange(len(x))
    found = nearest(x, x, skip=everything)
    rows = [0, 1, 4_095, 4_096, 4_999]
    assert found.distances[rows] == pytest.approx(np.partition(cdist(x[rows], x), 1)[:, 1])
    assert (found.indices != everything).all()


@pytest.mark.parametrize(("train", "held_out", "n"), [(600, 100, 200), (150, 100, 200), (100, 300, 100)])
def test_gap_is_zero_without_copying_and_the_share_of_copies_with_it(train: int, held_out: int, n: int) -> None:
    for share in (0.0, 0.3, 1.0):
        gaps = []
        for seed in range(60):
            t, h, f = draw((train, held_out, n), seed)
            gaps.append(memorization_gap(t, h, copied(t, f, share, seed)))
        assert np.mean(gaps) == pytest.approx(share, abs=4 * np.std(gaps) / 60**0.5 + 0.01)


def test_gap_of_bad_samples_is_zero_too() -> None:
    """Far off or collapsed, but no nearer to what was trained on than to what was not."""
    for spoil in (lambda f: 3 * f + 2, lambda f: 0.1 * f):
        gaps = [memorization_gap(t, h, spoil(f)) for t, h, f in (draw((500, 100, 100), s) for s in range(60))]
        assert np.mean(gaps) == pytest.approx(0, abs=4 * np.std(gaps) / 60**0.5)


def test_interval_of_the_gap_holds_zero_without_copying() -> None:
    def covered(seed: int) -> bool:
        t, h, f = draw((600, 100, 150), seed)
        (score,) = memorization_score(Exam("toy", h, f, train=t, held_out=h))
        assert score.ci_low is not None and score.ci_high is not None
        return score.ci_low <= 0 <= score.ci_high

    assert 0.90 <= np.mean([covered(seed) for seed in range(300)]) <= 0.99


def test_no_interval_of_the_gap_from_few_subsets() -> None:
    t, h, f = draw((200, 100, 60), 0)
    assert memorization_score(Exam("toy", h, f, train=t, held_out=h))[0].ci_low is None


@pytest.mark.parametrize("cells", [1, 4])
def test_ct_is_standard_normal_without_copying(cells: int) -> None:
    values = [ct_test(*draw((300, 150, 200), seed), cells=cells, seed=seed) for seed in range(150)]
    assert np.mean(values) == pytest.approx(0, abs=4 / 150**0.5)
    assert np.std(values) == pytest.approx(1, abs=4 / (2 * 150) ** 0.5)


def test_ct_of_copies_is_strongly_negative_and_of_far_samples_positive() -> None:
    t, h, f = draw((400, 200, 200), 0)
    assert ct_test(t, h, copied(t, f, 1.0, 0, noise=0.05)) < -10
    assert ct_test(t, h, copied(t, f, 0.3, 0)) < -3
    assert ct_test(t, h, 2 * f) > 3


def test_ct_is_the_weighted_sum_over_cells_in_units_of_its_deviation() -> None:
    """Two far halves: copies in the left one, samples farther off than real ones in the right one."""
    t, h, f = draw((600, 300, 300), 1, d=2)
    for z in (t, h, f):
        z[:, 0] += np.where(np.arange(len(z)) % 3, 20, -20)
    left = f[:, 0] < 0
    f[left] = t[t[:, 0] < 0][: left.sum()] + 0.01
    f[~left] += 1.5
    far = ct_test(t[t[:, 0] > 0], h[h[:, 0] > 0], f[~left], cells=1)
    near = ct_test(t[t[:, 0] < 0], h[h[:, 0] < 0], f[left], cells=1)
    assert near < -9 < 2 < far
    assert ct_test(t, h, f, cells=2) == pytest.approx((2 / 3 * far + 1 / 3 * near) / (5 / 9) ** 0.5, rel=1e-9)


def test_cells_with_few_generated_samples_are_left_out() -> None:
    t, h, f = draw((300, 100, 60), 2, d=2)
    for z in (t, h):
        z[:, 0] += np.where(np.arange(len(z)) % 2, 20, -20)
    f[:, 0] += 20
    f[:19] -= 40  # one short of 20
    kept = ct_test(t[t[:, 0] > 0], h[h[:, 0] > 0], f[19:], cells=1)
    assert ct_test(t, h, f, cells=2) == pytest.approx(kept, rel=1e-9)


@pytest.mark.parametrize("decimals", [0, 1, 9])  # many ties, some, none
def test_mann_whitney_z_is_scipys(decimals: int) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=40).round(decimals), rng.normal(0.3, size=55).round(decimals)
    z = mann_whitney_z(a, b)
    p = stats.mannwhitneyu(b, a, alternative="greater", method="asymptotic", use_continuity=False).pvalue
    assert stats.norm.sf(z) == pytest.approx(p, rel=1e-9)
    assert mann_whitney_z(np.ones(5), np.ones(4)) == 0


def test_authpct_by_hand() -> None:
    train = np.array([[0.0], [1], [5], [5.5]])  # nearest others at 1, 1, 0.5, 0.5
    fake = np.array([[-0.9], [-1.1], [1.2], [4.4], [5.1], [9]])
    assert authpct(train, fake) == pytest.approx(100 * 3 / 6)  # -1.1, 4.4 and 9 lie farther
    assert authpct(train, train) == 0
    assert authpct(np.repeat(train, 2, 0), train) == 0  # duplicates in the training set: at 0 from themselves


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_authpct_is_its_definition(dtype: type) -> None:
    t, f = (z.astype(dtype) for z in draw((300, 200), 5, d=8))
    f[:40] = t[:40]
    to_train, within = cdist(f, t), cdist(t, t) + np.diag(np.full(300, np.inf))
    expected = (to_train.min(1) > within.min(1)[to_train.argmin(1)]).mean()
    assert authpct(t, f) == pytest.approx(100 * expected)
    (score,) = authpct_score(Exam("toy", f, f, train=t, held_out=f))
    assert score.ci_low is not None and score.ci_high is not None
    assert 0 <= score.ci_low < score.value < score.ci_high <= 100


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: nearest_distances(np.ones((3, 2)), np.ones((3, 4))), "x, y features have 2, 4 dimensions"),
        (lambda: memorization_gap(np.eye(4), np.eye(4), np.eye(4)), "every generated sample is one of the held-out"),
        (lambda: authpct(np.ones((1, 2)), np.ones((3, 2))), "at least 2 training samples"),
        (lambda: ct_test(*draw((50, 50, 10), 0)), "no cell holds"),
        (lambda: ct_test(*draw((5, 50, 50), 0), cells=6), "cells must be from 1 to 5"),
        (lambda: ct_test(np.ones((5, 2)), np.full((5, 2), np.nan), np.ones((5, 2))), "held-out features hold values"),
    ],
)
def test_bad_input(call: Callable[[], float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
