"""The dataset whose density is known: it is normalised, its entropy is right, its draws follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.selftest.base import Check, Finding, all_of, close, largest_deviation, mean_within_error, within

if TYPE_CHECKING:
    from datamodules.known_density import TemplateMixture

GROUP = "density"
MEANS, SCALE = np.array([0.0, 90.0, 251.0]), 7.0
TEMPLATES = np.array([[0, 1], [1, 1], [2, 0], [1, 2]])  # rows of MEANS at two pixels


def tiny() -> TemplateMixture:
    """Four templates of two pixels, two of them near each other."""
    from datamodules.known_density import TemplateMixture, discretised_logistic

    return TemplateMixture(TEMPLATES[:, None, None, :].astype(np.intp), discretised_logistic(MEANS, SCALE))


def every_image() -> NDArray[np.uint8]:
    """All 65,536 images of two pixels, (65536, 1, 1, 2)."""
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), -1)
    return grid.reshape(-1, 1, 1, 2).astype(np.uint8)


def masses() -> NDArray[np.float64]:
    """Logistic masses of the levels by SciPy's distribution function, (len(MEANS), 256)."""
    from scipy.stats import logistic

    edges = np.concatenate([[-np.inf], np.arange(255) + 0.5, [np.inf]])
    return np.diff(logistic.cdf(edges, MEANS[:, None], SCALE), axis=1)


def noise_vs_scipy() -> Finding:
    """The noise of a pixel: differences of SciPy's logistic distribution function."""
    from datamodules.known_density import discretised_logistic

    found = np.exp(discretised_logistic(MEANS, SCALE))
    return largest_deviation(masses(), found, absolute=1e-13)


def sums_to_one() -> Finding:
    """The probabilities of all 65,536 images of two pixels."""
    return close(1, np.exp(tiny().log_prob(every_image())).sum(), absolute=1e-10)


def by_hand() -> Finding:
    """The mean over templates of the product over pixels, for every image."""
    table = masses()
    first, second = (table[TEMPLATES[:, pixel]] for pixel in (0, 1))
    expected = np.einsum("ka,kb->ab", first, second).ravel() / len(TEMPLATES)
    return largest_deviation(expected, np.exp(tiny().log_prob(every_image())), absolute=1e-12)


def entropy_by_enumeration() -> Finding:
    """-sum p log p over all images of two pixels."""
    log_p = tiny().log_prob(every_image())
    exact = -(np.exp(log_p) * log_p).sum()
    found, error = tiny().entropy()
    note = f"standard error {error:.2g} nats"
    return all_of(within(0, error, 0.01), close(exact, found, absolute=4 * error + 1e-9, note=note))


def draws_follow() -> Finding:
    """Frequencies of draws against probabilities: Pearson's chi² over a coarse grid of images."""
    from scipy.stats import chi2

    source, n = tiny(), 40_000
    cells = (every_image()[:, 0, 0] // 32) @ [8, 1]
    expected = n * np.bincount(cells, np.exp(source.log_prob(every_image())), minlength=64)
    seen = np.bincount((source.sample(n, seed=5)[:, 0, 0] // 32) @ [8, 1], minlength=64)
    kept = expected > 5
    statistic = ((seen - expected)[kept] ** 2 / expected[kept]).sum()
    low, high = chi2.ppf([1e-4, 1 - 1e-4], kept.sum() - 1)
    return within(float(low), statistic, float(high))


def test_cross_entropy() -> Finding:
    """known_density: the mean of -log p over the test images is the entropy, in bits per dimension."""
    from datamodules import known_density

    data = known_density.load(known_density.Config())
    if data.density is None:
        raise ValueError("the dataset has no density")
    nats, error = data.density.entropy()
    unit = data.test.images[0].size * np.log(2)
    bits = -data.density.log_prob(data.test.images) / unit
    return mean_within_error(nats / unit, bits, largest_error=0.01, note=f"error of the entropy {error / unit:.2g}")


def modes_of_draws() -> Finding:
    """known_density: a noiseless template is most probable under its own component."""
    from datamodules import known_density

    data = known_density.load(known_density.Config())
    source = data.density
    if not isinstance(source, known_density.TemplateMixture):
        raise ValueError("the dataset is no mixture")
    clean = known_density.LEVELS[source.templates].astype(np.uint8).reshape(-1, *source.image_shape)
    return largest_deviation(np.arange(source.num_modes), source.mode(clean), absolute=0)


def templates_are_moved_digits() -> Finding:
    """known_density: five templates in a row are a training digit of their class and SciPy's shifts of it."""
    from scipy.ndimage import shift

    from datamodules import digits, known_density

    source = known_density.load(known_density.Config()).density
    if not isinstance(source, known_density.TemplateMixture):
        raise ValueError("the dataset is no mixture")
    images = known_density.LEVELS[source.templates].reshape(200, 5, 8, 8)
    moves = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    expected = [[shift(own[0], move, order=0) for move in moves] for own in images]
    train = digits.load(digits.Config()).train
    known = {(int(label), image.tobytes()) for image, label in zip(train.images, train.labels, strict=True)}
    met = [(k // 20, own[0].astype(np.uint8).tobytes()) in known for k, own in enumerate(images)]
    return all_of(close(200, sum(met), absolute=0), largest_deviation(expected, images, absolute=0))


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("known source: noise vs SciPy", noise_vs_scipy),
        ("known source sums to 1", sums_to_one),
        ("known source by hand", by_hand),
        ("known source: entropy by enumeration", entropy_by_enumeration),
        ("known source: draws follow it", draws_follow),
        ("known_density: test images cost the entropy", test_cross_entropy),
        ("known_density: modes of its templates", modes_of_draws),
        ("known_density: templates are moved digits", templates_are_moved_digits),
    )
)
