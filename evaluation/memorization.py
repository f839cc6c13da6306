"""Memorisation: do generated images lie closer to training images than unseen real ones do?

The gap compares distances to training images with those to as many held-out ones. C_T is the test of Meehan
et al. 2020 (arXiv:2004.05675), divided by its own standard deviation so that it is N(0, 1) without copying;
AuthPct is from Alaa et al. 2022 (arXiv:2102.08921). A classifier sets the images it was trained on apart from
all others, so that in its features the gap of a poor model falls below 0; pixels have no such bias, but show
only copies that are not moved. Neighbours of float32 features are searched in float32; the distance to the
one found is float64: a copy is at 0 exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.base import Exam, Features, Matrix, MetricInfo, Score, feature_set, mean_of, row_blocks
from evaluation.metrics.class_agreement import WILSON, wilson_interval
from evaluation.metrics.intervals import LEVEL
from evaluation.metrics.neighbours import squared_norms

SEED = 0
SEARCH_BLOCK = 4096  # rows: 64 MB of float32 products
LEAST_IN_CELL = 20  # tau of the paper, in generated samples
MOST_CELLS, PER_CELL = 10, 50
CLUSTERED = 10_000  # training samples that k-means looks at
LEAST_SUBSETS = 5  # for an interval of the gap
GAP_METHOD = "t over training subsets of the held-out set's size, for no copying"


class Nearest(NamedTuple):
    """Euclidean distances float64 (N,) to the nearest rows of another set, and which those are."""

    distances: Matrix
    indices: NDArray[np.intp]


def nearest_distances(x: ArrayLike, y: ArrayLike, block: int | None = None) -> Matrix:
    """Euclidean distance of each row of x (N, D) to the nearest row of y (M, D), (N,).

    ``block`` only bounds memory. Of two rows that are equally near to the resolution of the features'
    type the farther one may be taken, if they are float32.
    """
    first, second = _sets(x=x, y=y)
    return nearest(first, second, block=block).distances


def nearest(
    x: Features, y: Features, *, skip: NDArray[np.intp] | None = None, block: int | None = None
) -> Nearest:
    """The nearest row of y (M, D) to each row of x (N, D), other than row ``skip`` (N,) of y if given."""
    dtype = np.result_type(x, y)
    centre = mean_of(y)
    norms = squared_norms(y, centre)
    best, indices = np.full(len(x), np.inf, dtype), np.zeros(len(x), np.intp)
    for rows in row_blocks(len(x), block or SEARCH_BLOCK):
        count = rows.stop - rows.start
        left = np.column_stack((x[rows] - centre, np.ones(count))).astype(dtype)
        for columns in row_blocks(len(y), block or SEARCH_BLOCK):
            right = np.column_stack((-2 * (y[columns] - centre), norms[columns])).astype(dtype)
            scores = left @ right.T  # squared distances less |x|²
            if skip is not None:
                own = np.flatnonzero((skip[rows] >= columns.start) & (skip[rows] < columns.stop))
                scores[own, skip[rows][own] - columns.start] = np.inf
            found = scores.argmin(1)
            values = scores[np.arange(count), found]
            better = values < best[rows]
            best[rows][better] = values[better]
            indices[rows][better] = found[better] + columns.start
    return Nearest(_paired_distances(x, y, indices), indices)


def memorization_gap(train: ArrayLike, held_out: ArrayLike, fake: ArrayLike, *, seed: int = SEED) -> float:
    """How much closer generated samples are to training samples than to held-out ones.

    The training set (T, D) is cut at random into B subsets no larger than the held-out set (H, D), all of one
    size m, and as many held-out samples are drawn: the gap is B (1 - mean distance of the fake samples (N, D)
    to the nearest in a subset / mean distance to the nearest held-out one). Without copying subsets and
    held-out set are alike, and it is 0 in expectation for any T and H and however good the samples are. If a
    share s of the samples are exact copies, each is at distance 0 from one subset of B: the gap is s.

    Raises:
        ValueError: If the sets do not fit, or every sample is one of the held-out ones.
    """
    t, h, f = _sets(train=train, held_out=held_out, fake=fake)
    return _gap(t, h, f, seed)[0]


def ct_test(
    train: ArrayLike, held_out: ArrayLike, fake: ArrayLike, *, cells: int | None = None, seed: int = SEED
) -> float:
    """C_T of feature sets (T, D), (H, D) and (N, D): N(0, 1) without copying, strongly negative with it.

    Space is cut into the cells of k-means on the training set. In each, z compares by Mann and Whitney the
    distances of generated and of held-out samples to the training samples there; cells with
    fewer than 20 generated samples are left out, the others weighed by their held-out samples. A clearly
    positive value means that generated samples lie farther from the training set than real ones.

    Args:
        train: Features of training images.
        held_out: Features of real images that were not trained on.
        fake: Features of generated images.
        cells: Number of cells; by default as many as leave 50 samples of either set in each, from 1 to 10.
            With one cell this is the global test of the paper.
        seed: Of k-means.

    Raises:
        ValueError: If the sets do not fit or no cell is populated enough.
    """
    t, h, f = _sets(train=train, held_out=held_out, fake=fake)
    scores, weights = cell_scores(t, h, f, cells or default_cells(len(h), len(f)), seed)
    return float(weights @ scores / np.linalg.norm(weights))  # the paper's own is weights @ scores / sum(weights)


def authpct(train: ArrayLike, fake: ArrayLike) -> float:
    """Percentage, in [0, 100], of generated samples (N, D) that are authentic, as against training ones (T, D), T >= 2.

    One is authentic if it is farther from its nearest training sample than that is from its own nearest other
    training sample.
    """
    t, f = _sets(train=train, fake=fake)
    if len(t) < 2:
        raise ValueError("at least 2 training samples are needed")
    found = nearest(f, t)
    hit, place = np.unique(found.indices, return_inverse=True)  # only their neighbours are looked for
    spacing = nearest(t[hit], t, skip=hit).distances
    return float(100 * (found.distances > spacing[place]).mean())


def default_cells(n_held_out: int, n_fake: int) -> int:
    """Cells that leave 50 samples of either set in each on average, from 1 to 10."""
    return max(1, min(MOST_CELLS, n_held_out // PER_CELL, n_fake // PER_CELL))


def cell_scores(t: Features, h: Features, f: Features, cells: int, seed: int) -> tuple[Matrix, Matrix]:
    """z of each cell that is populated enough, and its share of the held-out samples."""
    centres = _centres(t, cells, seed)
    t_cell, h_cell, f_cell = (nearest(side, centres).indices for side in (t, h, f))
    scores, weights = [], []
    for cell in range(cells):
        inside = t[t_cell == cell], h[h_cell == cell], f[f_cell == cell]
        if len(inside[0]) and len(inside[1]) and len(inside[2]) >= LEAST_IN_CELL:
            scores.append(mann_whitney_z(*(nearest(side, inside[0]).distances for side in inside[1:])))
            weights.append(len(inside[1]) / len(h))
    if not scores:
        raise ValueError(f"no cell holds held-out samples and at least {LEAST_IN_CELL} generated ones")
    return np.array(scores), np.array(weights)


def mann_whitney_z(a: Matrix, b: Matrix) -> float:
    """Standardised number of pairs in which b (n,) is larger than a (m,), ties half and in the variance; N(0, 1)."""
    from scipy.stats import rankdata  # scipy is slow to import

    m, n = len(a), len(b)
    ranks = rankdata(np.concatenate((a, b)))
    u = float(ranks[m:].sum()) - n * (n + 1) / 2
    ties = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    variance = m * n / 12 * (m + n + 1 - float((ties**3 - ties).sum()) / ((m + n) * (m + n - 1)))
    return (u - m * n / 2) / variance**0.5 if variance > 0 else 0.0


def _centres(t: Features, cells: int, seed: int) -> Features:
    from sklearn.cluster import KMeans  # slow to import

    if not 1 <= cells <= len(t):
        raise ValueError(f"cells must be from 1 to {len(t)} for {len(t)} training samples, not {cells}")
    rows = np.random.default_rng(seed).permutation(len(t))[:CLUSTERED]
    return KMeans(cells, n_init=1, max_iter=50, random_state=seed).fit(t[rows]).cluster_centers_.astype(t.dtype)


def _gap(t: Features, h: Features, f: Features, seed: int) -> tuple[float, float | None]:
    """The gap and the half width of its interval, None for fewer than five subsets."""
    from scipy.special import stdtrit

    subsets = -(-len(t) // len(h))
    size = len(t) // subsets
    random = np.random.default_rng(seed)
    reference = float(nearest(f, h[random.permutation(len(h))[:size]]).distances.mean())
    if reference == 0:
        raise ValueError("every generated sample is one of the held-out ones")
    parts = random.permutation(len(t))[: subsets * size].reshape(subsets, size)
    means = np.array([nearest(f, t[rows]).distances.mean() for rows in parts])
    gap = float(subsets * (1 - means.mean() / reference))
    if subsets < LEAST_SUBSETS:
        return gap, None
    error = subsets * (means.var(ddof=1) * (1 + 1 / subsets)) ** 0.5 / reference
    return gap, float(stdtrit(subsets - 1, 0.5 + LEVEL / 2) * error)


def _paired_distances(x: Features, y: Features, indices: NDArray[np.intp]) -> Matrix:
    distances = np.empty(len(x))
    for rows in row_blocks(len(x)):
        difference = np.subtract(x[rows], y[indices[rows]], dtype=np.float64)
        distances[rows] = np.sqrt(np.einsum("nd,nd->n", difference, difference))
    return distances


def _sets(**named: ArrayLike) -> tuple[Features, ...]:
    """Feature sets of one dimension, in the order given."""
    sets = tuple(feature_set(features, side.replace("_", "-")) for side, features in named.items())
    if len({features.shape[1] for features in sets}) > 1:
        raise ValueError(f"{', '.join(named)} features have {', '.join(str(s.shape[1]) for s in sets)} dimensions")
    return sets


def _training(exam: Exam) -> tuple[Features, Features]:
    if exam.train is None or exam.held_out is None:
        raise ValueError("the training images were not looked at in this feature space")
    return exam.train, exam.held_out


def memorization_score(exam: Exam) -> tuple[Score]:
    """The gap with its interval over training subsets."""
    train, held_out = _training(exam)
    t, h, f = _sets(train=train, held_out=held_out, fake=exam.fake)
    gap, half = _gap(t, h, f, SEED)
    return (Score(gap) if half is None else Score(gap, gap - half, gap + half, GAP_METHOD),)


def ct_score(exam: Exam) -> tuple[Score]:
    """C_T; it is in units of its own standard deviation, so there is no interval."""
    return (Score(ct_test(*_training(exam), exam.fake)),)


def authpct_score(exam: Exam) -> tuple[Score]:
    """AuthPct; given the training set it is a share of independent samples."""
    percent = authpct(_training(exam)[0], exam.fake)
    low, high = wilson_interval(percent / 100, len(exam.fake))
    return (Score(percent, 100 * low, 100 * high, WILSON),)


METRICS = (
    MetricInfo(
        names=("memorization_gap_{features}",),
        higher_is_better=False,
        min_samples=50,
        paper="the held-out control of Meehan et al. 2020, arXiv:2004.05675",
        summary="how much closer to training images than to unseen ones: share of copies that would explain it",
        compute=memorization_score,
        applies=lambda features: True,
        seed=SEED,
        reference="train and test",
    ),
    MetricInfo(
        names=("ct_{features}",),
        higher_is_better=None,
        min_samples=50,
        paper="Meehan et al. 2020, arXiv:2004.05675",
        summary="test of copying: near 0 without, strongly negative with; strongly positive: far from all real images",
        compute=ct_score,
        applies=lambda features: True,
        seed=SEED,
        reference="train and test",
    ),
    MetricInfo(
        names=("authpct_{features}",),
        higher_is_better=None,
        min_samples=50,
        paper="Alaa et al. 2022, arXiv:2102.08921",
        summary="percentage of images farther from the training set than its images are from each other; low: copying",
        compute=authpct_score,
        applies=lambda features: True,
        reference="train and test",
    ),
)
