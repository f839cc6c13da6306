"""95 % intervals from a delete-a-group jackknife over both sides of a two-sample statistic.

Each side is cut at random into groups; the statistic without one group varies between groups as much as
resampling that side would move it (Kott 2001, "The delete-a-group jackknife"). What pairs of groups do
together it counts twice: leaving out pairs measures that (Efron and Stein 1981, "The jackknife estimate of
variance"). Near equality a squared distance is a quadratic form, whose variance grows with its expected
value: the interval holds the values that are within t standard errors *of their own* (as Wilson's does).
It is for the expected value at this sample size, bias included; its coverage is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.base import Matrix, Score

GROUPS = 20
GROUP_SEED = 0
LEVEL = 0.95
METHOD = f"delete-a-group jackknife, {GROUPS} groups a side, t"
SECOND_ORDER = f"{METHOD}, second-order score interval"
Masks = NDArray[np.bool_]  # (R, groups): which groups stay
GroupStatistic = Callable[[Masks, Masks], Matrix]  # of the real and the fake groups that stay -> (R,)


class Replicates(NamedTuple):
    """The statistic without each group of one side (groups,), and how much pairs of groups do together."""

    real: Matrix
    fake: Matrix
    second_order: float | None


def random_groups(n: int, groups: int = GROUPS) -> list[NDArray[np.intp]]:
    """Cut ``range(n)`` into groups of nearly equal size.

    The order is shuffled first (always alike): samples may be sorted or cycle through the classes,
    and then neither consecutive nor interleaved groups are samples of the same thing.
    """
    order = np.argsort(np.random.Generator(np.random.PCG64(GROUP_SEED)).random(n), kind="stable")
    return np.array_split(order, groups)


def enough_for_interval(n_real: int, n_fake: int, groups: int = GROUPS) -> bool:
    """Whether each group of either side has at least two samples."""
    return min(n_real, n_fake) >= 2 * groups


def whole(groups: int = GROUPS) -> Masks:
    """The mask (1, groups) that leaves nothing out."""
    return np.ones((1, groups), bool)


def without_one(groups: int = GROUPS) -> Masks:
    """Masks (groups, groups), each without one group."""
    return ~np.eye(groups, dtype=bool)


def replicate(statistic: GroupStatistic, *, second_order: bool = True, groups: int = GROUPS) -> Replicates:
    """Evaluate a statistic of groups without one group and, for the second order, without two."""
    everything, one = whole(groups), without_one(groups)
    real, fake = statistic(one, everything), statistic(everything, one)
    if not second_order:
        return Replicates(real, fake, None)
    value = float(statistic(everything, everything)[0])
    first, second = np.triu_indices(groups, 1)
    pairs = one[first] & one[second]
    within = sum(
        _within(value, singles[first] + singles[second], without_two)
        for singles, without_two in ((real, statistic(pairs, everything)), (fake, statistic(everything, pairs)))
    )
    both = np.array([statistic(one[k : k + 1], one) for k in range(groups)])
    across = value - real[:, None] - fake + both
    return Replicates(real, fake, within + float(across.var() * across.size / (1 + 2 / (groups - 1))))


def _within(value: float, without_each: Matrix, without_both: Matrix, groups: int = GROUPS) -> float:
    """Variance from pairs of groups of one side; what is linear in the groups cancels in ``joint``.

    Counted as often as the jackknife's own variance counts it beyond once: for a sum over pairs that
    ratio is 2 (g-2) g² / (g-1)³ - 1, about 1.1 for 20 groups.
    """
    g = groups
    joint = g * value - (g - 1) * without_each + (g - 2) * without_both
    return float(joint.var() * joint.size / (g * (g + 2)))


def jackknife_interval(estimate: float, real: ArrayLike, fake: ArrayLike) -> tuple[float, float]:
    """The first-order interval around an estimate.

    Args:
        estimate: The statistic on all samples.
        real: The statistic without each group of real samples, (groups,).
        fake: The statistic without each group of fake samples, (groups,).

    Returns:
        Lower and upper end; equal to the estimate if no replicate differs. Too wide, by 40 % of its
        width in the limit, where the two laws agree.
    """
    variance, t = _jackknife_variance(real, fake)
    return estimate - t * variance**0.5, estimate + t * variance**0.5


def score_interval(estimate: float, offset: float, replicates: Replicates) -> tuple[float, float]:
    """The interval of a squared distance with its second order, right near equality too.

    For T + b = |z|² with z ~ N(delta, s² I_k) the jackknife's variance is 4 s² (T + b), that from pairs
    2 k s⁴ =: Q, and Var T = 4 s² (E T + b) - Q: hence V(u) = max(J (u + b) / (T + b) - Q, Q) where the
    expected value is u, and the interval is (T - u)² <= t² V(u).

    Args:
        estimate: T, the statistic on all samples.
        offset: b, what makes it a square: the bias that was taken off, 0 if none was.
        replicates: With their second order, Q.
    """
    if replicates.second_order is None:
        raise ValueError("a score interval needs the second order of the replicates")
    variance, t = _jackknife_variance(replicates.real, replicates.fake)
    low, high = (estimate + sign * t * replicates.second_order**0.5 for sign in (-1, 1))
    if variance == 0 or estimate + offset <= 0:
        return low, high
    slope = t * t * variance / (estimate + offset)
    middle = estimate + slope / 2  # of (T - u)² = slope (u + b) - t² Q, a quadratic equation in u
    square = middle**2 - estimate**2 + slope * offset - t * t * replicates.second_order
    if square <= 0:
        return low, high
    return min(low, middle - square**0.5), max(high, middle + square**0.5)


def interval_score(value: float, replicates: Replicates, offset: float = 0.0, least: float = -np.inf) -> Score:
    """A value with its interval, cut off below the ``least`` value that is possible, and its method."""
    if replicates.second_order is None:
        low, high = jackknife_interval(value, replicates.real, replicates.fake)
        return Score(value, max(low, least), high, METHOD)
    low, high = score_interval(value, offset, replicates)
    return Score(value, max(low, least), high, SECOND_ORDER)


def _jackknife_variance(real: ArrayLike, fake: ArrayLike) -> tuple[float, float]:
    """The first-order variance and the t quantile that goes with it."""
    from scipy.special import stdtrit  # scipy is slow to import

    replicates = (np.asarray(real, np.float64), np.asarray(fake, np.float64))
    variances = [float((len(r) - 1) * r.var()) for r in replicates]
    total = sum(variances)
    if total == 0:
        return 0.0, 0.0
    freedom = total**2 / sum(v**2 / (len(r) - 1) for v, r in zip(variances, replicates, strict=True))
    return total, float(stdtrit(freedom, 0.5 + LEVEL / 2))
