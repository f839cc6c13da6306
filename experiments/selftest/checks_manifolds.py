"""Precision, recall, density, coverage, diversity and classes: independent code and closed forms.

Kynkäänniemi et al. 2019 (arXiv:1904.06991), Naeem et al. 2020 (arXiv:2002.09797), Salimans et al.
2016 (arXiv:1606.03498), Friedman and Dieng 2023 (arXiv:2210.02410).
"""

from __future__ import annotations

import contextlib
import io

import numpy as np

from experiments.selftest.base import Check, Finding, all_of, close, largest_deviation, mean_within_error, within
from experiments.selftest.checks_distances import Array, features

GROUP = "manifolds"


def overlapping() -> tuple[Array, Array]:
    """Real (250, 4) and narrower fake (200, 4) features: all four shares lie well inside (0, 1)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(250, 4)), rng.normal(size=(200, 4)) * 0.7 + 0.4


def precision_recall_torch_fidelity() -> Finding:
    """torch-fidelity's own precision and recall on the same features."""
    import torch
    from torch_fidelity import metric_prc

    from evaluation.metrics import precision_recall

    real, fake = overlapping()
    # theirs takes generated features first
    theirs = metric_prc.prc_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=3, verbose=False
    )
    found = precision_recall(real, fake)
    expected = [theirs[metric_prc.KEY_METRIC_PRECISION], theirs[metric_prc.KEY_METRIC_RECALL]]
    note = f"precision {found.precision:.3f}, recall {found.recall:.3f}"
    return all_of(within(0.2, min(expected), 0.98, note), largest_deviation(expected, found, absolute=1e-7, note=note))


def precision_recall_border() -> Finding:
    """The border of a ball belongs to it: 0..9 against 13 touches the ball of 9 with k = 4, not with k = 3."""
    from evaluation.metrics import precision_recall

    real = np.arange(10.0)[:, None]
    fake = np.concatenate([np.full(5, 13.0), np.full(5, 100.0)])[:, None]
    found = [precision_recall(real, fake, k=k).precision for k in (4, 3)]
    return largest_deviation([0.5, 0.0], found, absolute=0)


def density_coverage_prdc() -> Finding:
    """The authors' package prdc on the same features."""
    import prdc

    from evaluation.metrics import density_coverage

    real, fake = overlapping()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the sizes
        theirs = prdc.compute_prdc(real, fake, nearest_k=5)
    found = density_coverage(real, fake, k=5)
    expected = [theirs["density"], theirs["coverage"]]
    note = f"density {found.density:.3f}, coverage {found.coverage:.3f}"
    return all_of(
        within(0.2, found.coverage, 0.98, note), largest_deviation(expected, found, absolute=1e-12, note=note)
    )


def density_of_equal_sets() -> Finding:
    """Balls are open: a set against itself has density and coverage 1 exactly."""
    from evaluation.metrics import density_coverage

    x = features(80, 4, 8)
    return largest_deviation([1.0, 1.0], density_coverage(x, x, k=5), absolute=0)


def coverage_of_the_same_law() -> Finding:
    """Two sets of one law: coverage is 1 - prod_{i<k} (M - ...) as predicted, density 1."""
    from evaluation.metrics import density_coverage
    from evaluation.metrics.density_coverage import expected_coverage

    n_real, n_fake, k = 120, 90, 4
    rng = np.random.default_rng(2)
    draws = [density_coverage(rng.normal(size=(n_real, 3)), rng.normal(size=(n_fake, 3)), k=k) for _ in range(300)]
    return all_of(
        mean_within_error(1.0, [d.density for d in draws], largest_error=0.01),
        mean_within_error(expected_coverage(n_real, n_fake, k), [d.coverage for d in draws], largest_error=0.003),
    )


def expected_coverage_by_counting() -> Finding:
    """1 - C(n - 1, k) / C(n + m - 1, k): none of a sample's k nearest among all others is a fake one."""
    from math import comb

    from evaluation.metrics.density_coverage import expected_coverage

    cases = [(50, 70, 5), (120, 90, 4), (6, 3, 5)]
    exact = [1 - comb(n - 1, k) / comb(n + m - 1, k) for n, m, k in cases]
    return largest_deviation(exact, [expected_coverage(*case) for case in cases], relative=1e-9)


def block_invariance() -> Finding:
    """Precision, recall, density and coverage do not depend on how the work is cut."""
    from evaluation.metrics import density_coverage, precision_recall

    x, y = features(150, 7, 3), features(130, 7, 4)
    y[:40] = x[:40]
    results = [(*precision_recall(x, y, block=b), *density_coverage(x, y, block=b)) for b in (None, 1, 13, 1000)]
    return largest_deviation([results[0]] * 3, results[1:], absolute=0)


def inception_score_of_one_hots() -> Finding:
    """Balanced one-hot rows with C classes give C."""
    from evaluation.metrics import inception_score

    return close(7, inception_score(np.tile(np.eye(7), (30, 1))).mean, absolute=1e-12)


def inception_score_torch_fidelity() -> Finding:
    """torch-fidelity's own score on the same logits: ten splits, shuffled with its seed."""
    import torch
    from torch_fidelity import metric_isc

    from evaluation.metrics import inception_score

    logits = np.random.default_rng(5).normal(size=(503, 12)) * 3
    theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=True, rng_seed=2020)
    found = inception_score(logits, splits=10, seed=2020)
    return all_of(
        close(theirs[metric_isc.KEY_METRIC_ISC_STD], found.std, relative=1e-9),
        close(theirs[metric_isc.KEY_METRIC_ISC_MEAN], found.mean, relative=1e-10),
    )


def vendi_of_orthogonal_rows() -> Finding:
    """n orthogonal rows count as n, whatever their lengths; equal rows count as one."""
    from evaluation.metrics import vendi_score

    orthogonal = np.diag(np.linspace(1, 5, 9))
    return all_of(
        close(1, vendi_score(np.tile([1.0, 2.0, 3.0], (20, 1))), relative=1e-9),
        close(9, vendi_score(np.hstack([orthogonal, np.zeros((9, 20))])), relative=1e-9),
        close(9, vendi_score(np.tile(orthogonal, (6, 1))), relative=1e-9),
    )


def vendi_by_entropy() -> Finding:
    """exp of the entropy of the kernel's eigenvalues, more rows than columns and fewer."""
    from scipy.linalg import eigvalsh

    from evaluation.metrics import vendi_score

    def brute_force(x: Array) -> float:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        values = eigvalsh(unit @ unit.T / len(x))
        values = values[values > 1e-12]
        return float(np.exp(-(values * np.log(values)).sum()))

    tall, wide = features(60, 8, 6) - 1, features(9, 40, 7) - 1
    return largest_deviation(
        [brute_force(tall), brute_force(wide)], [vendi_score(tall), vendi_score(wide)], relative=1e-8
    )


def vendi_of_orders() -> Finding:
    """Order 2: 1 over the mean squared cosine; 0: the rank; infinity: 1 over the largest eigenvalue; 1/2 by hand."""
    from evaluation.metrics import vendi_score

    x = features(50, 6, 9) - 1
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    singular = np.linalg.svd(unit, compute_uv=False) ** 2 / len(x)
    expected = [6, np.sqrt(singular).sum() ** 2, 1 / ((unit @ unit.T) ** 2).mean(), 1 / singular[0]]
    return largest_deviation(expected, [vendi_score(x, q=q) for q in (0, 0.5, 2, np.inf)], relative=1e-9)


def agreement_of_classes() -> Finding:
    """The share of equal labels."""
    from evaluation.metrics import class_agreement

    predictions, labels = np.array([0, 1, 2, 3, 4, 4, 0, 1]), np.array([0, 1, 2, 3, 0, 4, 1, 1])
    return close(6 / 8, class_agreement(predictions, labels), absolute=0)


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("precision, recall vs torch-fidelity", precision_recall_torch_fidelity),
        ("precision at the border of a ball", precision_recall_border),
        ("density, coverage vs prdc", density_coverage_prdc),
        ("density of a set against itself", density_of_equal_sets),
        ("coverage of two sets of one law", coverage_of_the_same_law),
        ("expected coverage by counting", expected_coverage_by_counting),
        ("neighbours in blocks", block_invariance),
        ("IS of balanced one-hots", inception_score_of_one_hots),
        ("IS vs torch-fidelity", inception_score_torch_fidelity),
        ("Vendi score of orthogonal rows", vendi_of_orthogonal_rows),
        ("Vendi score by eigenvalues", vendi_by_entropy),
        ("Vendi score of other orders", vendi_of_orders),
        ("class agreement", agreement_of_classes),
    )
)
