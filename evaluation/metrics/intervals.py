"""95 % intervals from a delete-a-group jackknife over both sides of a two-sample statistic.

Each side is cut at random into groups; the statistic without one group varies between groups as
much as resampling that side would move it (Kott 2001, "The delete-a-group jackknife"). The
variances of the sides add; the t quantile has Welch and Satterthwaite's degrees of freedom. The
interval is for the expected value at this sample size, bias included; its coverage is tested.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

GROUPS = 20
GROUP_SEED = 0
LEVEL = 0.95


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


def jackknife_interval(estimate: float, real: ArrayLike, fake: ArrayLike) -> tuple[float, float]:
    """The interval around an estimate.

    Args:
        estimate: The statistic on all samples.
        real: The statistic without each group of real samples, (groups,).
        fake: The statistic without each group of fake samples, (groups,).

    Returns:
        Lower and upper end; equal to the estimate if no replicate differs.
    """
    from scipy.special import stdtrit  # scipy is slow to import

    replicates = (np.asarray(real, np.float64), np.asarray(fake, np.float64))
    variances = [float((len(r) - 1) * r.var()) for r in replicates]
    total = sum(variances)
    if total == 0:
        return estimate, estimate
    freedom = total**2 / sum(v**2 / (len(r) - 1) for v, r in zip(variances, replicates, strict=True))
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * total**0.5
    return estimate - half, estimate + half
