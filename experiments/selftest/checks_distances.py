"""Distances between feature sets: closed forms, torch-fidelity's own functions, brute force.

Chong and Forsyth 2020 (arXiv:1911.07023) for the bias; Jayasumana et al. 2024 (arXiv:2401.09603)
for the Gaussian kernel; Chan et al. 1979 for statistics that merge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.selftest.base import (
    Check,
    Finding,
    all_of,
    close,
    largest_deviation,
    mean_within_error,
    same,
    within,
)

GROUP = "distances"
Array = NDArray[np.float64]


def features(n: int, d: int, seed: int) -> Array:
    """Correlated, skewed samples (n, d) with a mean of their own."""
    rng = np.random.default_rng(seed)
    return np.abs(rng.normal(size=(n, d)) @ rng.normal(size=(d, d))) / d + rng.normal(size=d)


def fd_diagonal() -> Finding:
    """Diagonal Gaussians: |m1 - m2|² + |s1 - s2|²."""
    from evaluation.metrics import FeatureStatistics, frechet_from_statistics

    rng = np.random.default_rng(0)
    m, s = rng.normal(size=(2, 40)), rng.uniform(0.1, 3, size=(2, 40))
    n = 1000
    real, fake = (FeatureStatistics(n, m[i], np.diag(s[i] ** 2) * (n - 1)) for i in (0, 1))
    expected = ((m[0] - m[1]) ** 2).sum() + ((s[0] - s[1]) ** 2).sum()
    return close(expected, frechet_from_statistics(real, fake), relative=1e-10)


def fd_rotated() -> Finding:
    """Two-dimensional Gaussians that do not commute: tr M^½ = (tr M + 2 det^½ M)^½."""
    from evaluation.metrics import FeatureStatistics, frechet_from_statistics

    c, s = np.cos(0.7), np.sin(0.7)
    rotation = np.array([[c, -s], [s, c]])
    c1, c2 = np.diag([4.0, 1.0]), rotation @ np.diag([9.0, 0.25]) @ rotation.T
    trace = np.sqrt(np.trace(c1 @ c2) + 2 * np.sqrt(np.linalg.det(c1 @ c2)))
    real, fake = FeatureStatistics(11, np.zeros(2), c1 * 10), FeatureStatistics(21, np.ones(2), c2 * 20)
    expected = 2 + np.trace(c1 + c2) - 2 * trace
    found = (frechet_from_statistics(*pair) for pair in ((real, fake), (fake, real)))
    return all_of(*(close(expected, value, relative=1e-10) for value in found))


def fd_torch_fidelity() -> Finding:
    """torch-fidelity's own distance on the same features, more samples than dimensions and fewer."""
    import torch
    from torch_fidelity import metric_fid

    from evaluation.metrics import frechet_distance

    found = []
    for n, d in ((400, 12), (300, 64), (130, 100)):
        real, fake = features(n, d, 1), features(n + 20, d, 2)
        stats = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
        theirs = metric_fid.fid_statistics_to_metric(*stats, verbose=False)[metric_fid.KEY_METRIC_FID]
        found.append(close(theirs, frechet_distance(real, fake), relative=1e-6))
    return all_of(*found)


def fd_two_ways() -> Finding:
    """Fewer samples than dimensions: singular values of the samples against eigenvalues of the covariances."""
    import scipy.linalg

    from evaluation.metrics import FeatureStatistics, frechet_distance, frechet_from_statistics

    x, y = features(30, 120, 3), features(45, 120, 4)
    by_samples = frechet_distance(x, y)
    by_statistics = frechet_from_statistics(FeatureStatistics.of(x), FeatureStatistics.of(y))
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    trace = scipy.linalg.svdvals(a @ b.T).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * trace
    return all_of(
        close(expected, by_samples, relative=1e-9), close(expected, by_statistics, relative=1e-6)
    )


def fd_singular() -> Finding:
    """A covariance v vᵀ of rank one: tr (v vᵀ C)^½ = (vᵀ C v)^½, on either side, and of none 0."""
    from evaluation.metrics.frechet import covariance_factor, trace_from_covariances, trace_from_factor

    v = np.array([2.0, 0.0, -1.0, 3.0, 0.0])
    line, full = np.outer(v, v), np.cov(features(40, 5, 19).T)
    expected = [float(np.sqrt(v @ full @ v))] * 2 + [float(v @ v), 0.0]
    pairs = ((line, full), (full, line), (line, line), (line, np.zeros((5, 5))))
    by_factor = [float(trace_from_factor(covariance_factor(one), other[None])[0]) for one, other in pairs]
    return all_of(
        largest_deviation(expected, by_factor, absolute=1e-7),
        largest_deviation(expected, [trace_from_covariances(*pair) for pair in pairs], absolute=1e-7),
    )


def fd_merge() -> Finding:
    """Statistics of shards merge to those of the whole, and come apart again."""
    from evaluation.metrics import FeatureStatistics

    x = features(9000, 12, 5) + 30  # more rows than a block
    parts = [FeatureStatistics.of(shard) for shard in np.split(x, [1, 200, 777])]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    rest = merged.without(parts[2])
    left = np.delete(x, np.s_[200:777], axis=0)
    return all_of(
        largest_deviation(x.mean(0), merged.mean, relative=1e-12),
        largest_deviation(np.cov(x.T), merged.covariance, absolute=1e-10),
        close(8423, rest.n, absolute=0),
        largest_deviation(left.mean(0), rest.mean, relative=1e-12),
        largest_deviation(np.cov(left.T), rest.covariance, absolute=1e-10),
    )


def fd_bias() -> Finding:
    """N(0, I) against itself: the mean of the estimate is 2 d / n + d (d + 1) / 2 n."""
    from evaluation.metrics import frechet_distance

    d, n = 8, 1000
    rng = np.random.default_rng(6)
    draws = [frechet_distance(rng.normal(size=(n, d)), rng.normal(size=(n, d))) for _ in range(200)]
    predicted = 2 * d / n + d * (d + 1) / (2 * n)
    # The prediction is the first order in 1 / n; the next, of relative size d / n, is the tolerance.
    return close(predicted, np.mean(draws), relative=0.04, note=f"mean of {len(draws)} pairs of sets")


def fd_infinity() -> Finding:
    """The extrapolation to infinite n takes the bias out: N(0, I) against itself gives 0."""
    from evaluation.metrics import frechet_distance, frechet_infinity

    d, n = 8, 2000
    rng = np.random.default_rng(7)
    draws = [(rng.normal(size=(n, d)), rng.normal(size=(n, d))) for _ in range(24)]
    plain = np.array([frechet_distance(x, y) for x, y in draws])
    estimates = np.array([frechet_infinity(x, y, seed=i).value for i, (x, y) in enumerate(draws)])
    note = f"the plain distance is {plain.mean():.4f} on the same {len(draws)} pairs"
    return mean_within_error(0.0, estimates, largest_error=0.1 * float(plain.mean()), note=note)


def fd_infinity_line() -> Finding:
    """The extrapolation is NumPy's straight line through distances of the rows, against 1 / n, at 0."""
    from evaluation.metrics import frechet_distance, frechet_infinity
    from evaluation.metrics.frechet_infinity import _draw, _groups

    x, y = features(400, 5, 26), features(400, 5, 27)
    random = np.random.default_rng(3)
    groups = [_groups(400, 20, random) for _ in range(2)]
    inverse_n, distances = [], []
    for size in range(6, 21):  # 15 points from three tenths of 20 groups to all
        masks = _draw(20, size, random)
        rows = [np.concatenate([own[g] for g in np.flatnonzero(m)]) for own, m in zip(groups, masks, strict=True)]
        inverse_n.append(1 / len(rows[0]))
        distances.append(frechet_distance(x[rows[0]], y[rows[1]]))
    line = np.polyfit(inverse_n, distances, 1)
    return close(line[1], frechet_infinity(x, y, seed=3).value, relative=1e-7)


def fd_per_class() -> Finding:
    """The mean and the worst of the distances of the classes."""
    from evaluation.metrics import frechet_distance, per_class_frechet

    x, y = features(300, 6, 8), features(240, 6, 9)
    own, other = np.arange(300) % 3, np.arange(240) % 3
    each = [frechet_distance(x[own == c], y[other == c]) for c in range(3)]
    found = per_class_frechet(x, y, own, other)
    return all_of(
        close(float(np.mean(each)), found.mean, relative=1e-9), close(max(each), found.worst, relative=1e-9)
    )


def brute_force_kernel_distance(x: Array, y: Array) -> float:
    """Unbiased MMD² with the cubic kernel, pair by pair."""

    def k(a: Array, b: Array) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    m, n = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_y = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_x + within_y - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


def kd_brute_force() -> Finding:
    """Pair by pair, for any size of the blocks."""
    from evaluation.metrics import kernel_distance

    x, y = features(23, 5, 10), features(31, 5, 11) + 0.2
    expected = brute_force_kernel_distance(x, y)
    return all_of(*(close(expected, kernel_distance(x, y, block=b), relative=1e-10) for b in (1024, 7, 1)))


def kd_closed_form() -> Finding:
    """N(0, I) against N(m, I), a = |m|²: 3 a / D + 3 a² / D² + (a³ + 6 a² + (3 D + 6) a) / D³."""
    from evaluation.metrics import kernel_distance

    d, n, a = 3, 60, 0.75
    rng = np.random.default_rng(12)
    shift = np.sqrt(a / d)
    draws = [kernel_distance(rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift) for _ in range(1500)]
    expected = 3 * a / d + 3 * a**2 / d**2 + (a**3 + 6 * a**2 + (3 * d + 6) * a) / d**3
    return mean_within_error(expected, draws, largest_error=0.02 * expected)


def kid_torch_fidelity() -> Finding:
    """torch-fidelity's own kernel distance over random subsets, with its seed."""
    import torch
    from torch_fidelity import metric_kid

    from evaluation.metrics import kernel_distance_subsets

    x, y = features(260, 16, 13), features(300, 16, 14)
    kwargs: dict[str, Any] = {"kid_subsets": 20, "kid_subset_size": 100, "rng_seed": 2020, "verbose": False}
    # theirs draws from its first argument first
    theirs = metric_kid.kid_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), **kwargs)
    found = kernel_distance_subsets(x, y, subsets=20, size=100, seed=2020)
    return all_of(
        close(theirs[metric_kid.KEY_METRIC_KID_STD], found.std, relative=1e-6),
        close(theirs[metric_kid.KEY_METRIC_KID_MEAN], found.mean, relative=1e-6),
    )


def cmmd_brute_force() -> Finding:
    """1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y)), Gaussian kernel on unit vectors, pair by pair."""
    from evaluation.metrics import cmmd

    x, y = features(40, 6, 15), features(55, 6, 16)
    found = cmmd(x, y, sigma=0.3)
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))

    def mean_kernel(a: Array, b: Array) -> float:
        return float(np.mean([np.exp(-((p - q) ** 2).sum() / (2 * 0.3**2)) for p in a for q in b]))

    expected = 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    return close(expected, found, relative=1e-9)


def cmmd_scale() -> Finding:
    """By default sigma = 10 and the factor 1000: points a apart on the sphere give 2000 (1 - exp(-a² / 200))."""
    from evaluation.metrics import cmmd

    x, y = np.tile([5.0, 0.0], (4, 1)), np.tile([3.0, 4.0], (4, 1))
    return close(2000 * -np.expm1(-0.8 / 200), cmmd(x, y), relative=1e-9)


def inception_features_have_their_own_name() -> Finding:
    """Only Inception's distance is called fid."""
    from evaluation.metrics.driver import metric_key

    keys = [metric_key("fd_{features}", name, True) for name in ("inception", "digits")]
    return same("fid, fd_digits", ", ".join(keys))


def fd_symmetry() -> Finding:
    """Real and fake may change places, and a set is at distance 0 from itself in another order."""
    from evaluation.metrics import frechet_distance

    x, y = features(200, 10, 17), features(150, 10, 18)
    scale = float(np.trace(np.cov(x.T)))
    return all_of(
        close(frechet_distance(x, y), frechet_distance(y, x), relative=1e-9),
        within(-1e-12, frechet_distance(x, x[::-1]) / scale, 1e-7),
    )


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("FD of diagonal Gaussians", fd_diagonal),
        ("FD of rotated Gaussians", fd_rotated),
        ("FD vs torch-fidelity", fd_torch_fidelity),
        ("FD by samples and by statistics", fd_two_ways),
        ("FD symmetry and zero", fd_symmetry),
        ("FD of singular covariances", fd_singular),
        ("FD statistics merge", fd_merge),
        ("FD bias at finite n", fd_bias),
        ("FD infinity without bias", fd_infinity),
        ("FD infinity is a straight line", fd_infinity_line),
        ("FD per class", fd_per_class),
        ("KD pair by pair", kd_brute_force),
        ("KD of shifted Gaussians", kd_closed_form),
        ("KID vs torch-fidelity", kid_torch_fidelity),
        ("CMMD pair by pair", cmmd_brute_force),
        ("CMMD scale", cmmd_scale),
        ("fid is Inception's alone", inception_features_have_their_own_name),
    )
)
