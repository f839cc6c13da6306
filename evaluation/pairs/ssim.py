"""Structural similarity: do local means, contrasts and patterns agree? 1 for equal images.

Wang et al. 2004 (doi:10.1109/TIP.2003.819861) through torchmetrics: K1 = 0.01, K2 = 0.03, a Gaussian window of
standard deviation 1.5 (11 x 11 pixels), mirrored borders, channels averaged. Deviation: below 16 pixels a side that
window would be larger than the image, and one of standard deviation 0.5 (5 x 5) is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import Score
from evaluation.pairs.base import DATA_RANGE, OVER_IMAGES, Images, PairMetric, Pairs, checked, mean_interval

SIGMA, SMALL_SIGMA, SMALL_SIDE = 1.5, 0.5, 16
LEAST_SIDE = 3  # torchmetrics mirrors two pixels at the borders
BATCH = 500


def window_sigma(height: int, width: int) -> float:
    """Standard deviation in pixels of the Gaussian window for images of that size."""
    return SIGMA if min(height, width) >= SMALL_SIDE else SMALL_SIGMA


def window_side(sigma: float) -> int:
    """Pixels along each axis of a Gaussian window, cut off at 3.5 standard deviations."""
    return 2 * int(3.5 * sigma + 0.5) + 1


def ssim(real: Images, fake: Images) -> NDArray[np.float64]:
    """Similarity of every pair of uint8 images (N, C, H, W), in [-1, 1], float64 (N,)."""
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    checked(real, fake)
    if min(real.shape[2:]) < LEAST_SIDE:
        raise ValueError(f"images must have at least {LEAST_SIDE} pixels a side, not {real.shape[2:]}")
    sigma, found = window_sigma(*real.shape[2:]), []
    for start in range(0, len(real), BATCH):
        one, other = (torch.from_numpy(side[start : start + BATCH]).double() for side in (fake, real))
        each = structural_similarity_index_measure(one, other, sigma=sigma, data_range=DATA_RANGE, reduction="none")
        found.append(torch.as_tensor(each).reshape(-1).numpy())
    return np.concatenate(found)


def ssim_score(pairs: Pairs) -> tuple[Score]:
    """The mean over images with its interval, cut off at 1."""
    each = ssim(pairs.real, pairs.fake)
    low, high = mean_interval(each)
    return (Score(float(each.mean()), low, min(high, max(1.0, float(each.mean()))), OVER_IMAGES),)


def conditions(pairs: Pairs) -> str:
    """Data range and window in words."""
    sigma = window_sigma(*pairs.real.shape[2:])
    side = window_side(sigma)
    return f"pixels, data range 255, Gaussian window {side} x {side}, sigma {sigma}"


METRIC = PairMetric(
    names=("ssim",),
    higher_is_better=True,
    min_samples=2,
    paper="Wang et al. 2004, doi:10.1109/TIP.2003.819861",
    summary="structural similarity of reconstructions, 1 if they are equal; the window is smaller for small images",
    compute=ssim_score,
    conditions=conditions,
)
