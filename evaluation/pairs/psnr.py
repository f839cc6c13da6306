"""Peak signal-to-noise ratio: how small the squared error is beside the largest level, in decibels.

10 log10(255² / mean squared error), the mean taken over all pixels of all images, as torchmetrics has it by
default: the mean of ratios image by image would be infinite as soon as one image came back exactly. The interval
is that of the mean squared error, carried through the logarithm.
"""

from __future__ import annotations

import math

from evaluation.metrics.base import Score
from evaluation.pairs.base import DATA_RANGE, OVER_IMAGES, Images, PairMetric, Pairs, mean_interval, squared_errors

BATCH = 500  # images that are in float64 at one time


def psnr(real: Images, fake: Images) -> float:
    """Ratio in decibels of uint8 images (N, C, H, W), through torchmetrics; infinite if both sides are equal."""
    import torch
    from torchmetrics.image import PeakSignalNoiseRatio

    # One process of several computes metrics: told of the others, it would wait for them for ever.
    ratio = PeakSignalNoiseRatio(data_range=DATA_RANGE, distributed_available_fn=lambda: False)
    ratio.set_dtype(torch.float64)
    for start in range(0, len(real), BATCH):
        one, other = (torch.from_numpy(side[start : start + BATCH]).double() for side in (fake, real))
        ratio.update(one, other)
    return float(ratio.compute())


def decibels(mean_squared_error: float) -> float:
    """10 log10(255² / error) of an error in squared grey levels, above 0."""
    return 10 * math.log10(DATA_RANGE**2 / mean_squared_error)


def psnr_score(pairs: Pairs) -> tuple[Score]:
    """The ratio with its interval; ``ValueError`` where all images came back exactly."""
    errors = squared_errors(pairs.real, pairs.fake)
    if not errors.any():
        raise ValueError("every image came back exactly, for which the ratio is infinite")
    low, high = mean_interval(errors)
    value = psnr(pairs.real, pairs.fake)
    if low <= 0:  # a few images hold all of the error: the upper end would be infinite
        return (Score(value),)
    return (Score(value, decibels(high), decibels(low), OVER_IMAGES),)


METRIC = PairMetric(
    names=("psnr",),
    higher_is_better=True,
    min_samples=2,
    paper="Wang et al. 2004, doi:10.1109/TIP.2003.819861",
    summary="peak signal-to-noise ratio of reconstructions in dB, of the mean squared error over all images",
    compute=psnr_score,
    conditions=lambda pairs: "pixels, data range 255, one mean over all images",
)
