"""Kernel distance by the published protocol: mean and spread over random subsets.

Bińkowski et al. 2018 (arXiv:1801.01401), section 4.1, with the draws of torch-fidelity 0.4.0: subset i
takes ``size`` real rows, then ``size`` fake ones, without replacement from one ``RandomState(seed)``.
The same expected value as ``kernel_distance`` with more noise; it is here to be compared with
published numbers. Kernels are float64, torch-fidelity's have the features' type.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.base import MetricInfo, Score, feature_pair
from evaluation.metrics.kernel import kernel_sums, unbiased_mmd

SUBSETS, SIZE, SEED = 100, 1000, 2020


class KernelDistanceSubsets(NamedTuple):
    """Mean and (population) standard deviation of the unbiased MMD² over subsets."""

    mean: float
    std: float


def kernel_distance_subsets(
    real: ArrayLike, fake: ArrayLike, *, subsets: int = SUBSETS, size: int = SIZE, seed: int = SEED
) -> KernelDistanceSubsets:
    """MMD² of subsets of feature sets (N, D) and (M, D), N, M >= size >= 2.

    Raises:
        ValueError: If there are fewer samples than ``size`` on a side.
    """
    if subsets < 1 or size < 2:
        raise ValueError(f"at least 1 subset of 2 samples is needed, not {subsets} of {size}")
    x, y = feature_pair(real, fake, least=size)
    random = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        first = x[random.choice(len(x), size, replace=False)]
        second = y[random.choice(len(y), size, replace=False)]
        values[i] = unbiased_mmd(kernel_sums([first], [second]))[0]
    return KernelDistanceSubsets(float(values.mean()), float(values.std()))


METRIC = MetricInfo(
    names=("kd_subsets_{features}",),
    higher_is_better=False,
    min_samples=SIZE,
    paper="Bińkowski et al. 2018, arXiv:1801.01401",
    summary="kernel distance, mean over 100 random subsets of 1,000 samples",
    compute=lambda exam: (Score(kernel_distance_subsets(exam.real, exam.fake).mean),),
    applies=lambda features: features == "inception",
    seed=SEED,
)
