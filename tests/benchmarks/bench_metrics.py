"""Seconds and memory of the metrics.

    python -m tests.benchmarks.bench_metrics frechet            against torch-fidelity, n = 10,000, d = 2,048
    python -m tests.benchmarks.bench_metrics exam               10,000 against 10,000, 55,000 training images
    python -m tests.benchmarks.bench_metrics memory [NAME …]    50,000 x 2,048 on both sides, a process each

NAMES are record names such as ``fd_{features}`` or ``precision``. The features are random: rectified
mixtures with a decaying spectrum. ``memory`` takes hours for all metrics; the machine should be idle.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import (
    Exam,
    FeatureStatistics,
    MetricInfo,
    all_metrics,
    frechet_from_statistics,
    score_one,
)

Result = TypeVar("Result")
SPACES = {"cmmd": "clip", "inception_score": "inception", "kd_subsets_{features}": "inception"}


def random_features(n: int, d: int, seed: int, scale: float = 1.0) -> NDArray[np.float32]:
    """Rectified, correlated features float32 (n, d), block by block."""
    mix = np.random.default_rng(0).standard_normal((d, d), np.float32)
    mix *= (np.arange(1, d + 1, dtype=np.float32) ** -0.7)[:, None]
    features, rng = np.empty((n, d), np.float32), np.random.default_rng(seed)
    for start in range(0, n, 2048):
        block = features[start : start + 2048]
        block[:] = np.maximum(rng.standard_normal(block.shape, np.float32) @ mix * scale + 0.3, 0)
    return features


def exam(n: int, d: int, space: str, train: int) -> Exam:
    """Two sets of slightly different laws, with ten classes and as many training features."""
    real, fake = random_features(n, d, 1), random_features(n, d, 2, 1.1)
    labels = np.arange(n) % 10
    logits = np.random.default_rng(3).standard_normal((n, 10), np.float32)
    training = random_features(train, d, 4) if train else None
    return Exam(space, real, fake, labels, labels, logits, training, real if train else None)


def timed(function: Callable[[], Result], calls: int = 1) -> tuple[float, Result]:
    """Seconds, the shortest of some calls, and result."""
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def bench_frechet() -> None:
    """Statistics to metric, ours and torch-fidelity's, on the same features."""
    import torch
    from torch_fidelity import metric_fid

    x, y = random_features(10_000, 2048, 1), random_features(10_000, 2048, 2, 1.1)
    seconds, ours = timed(lambda: [FeatureStatistics.of(z) for z in (x, y)])
    print(f"statistics: {seconds:.1f} s")
    seconds, value = timed(lambda: frechet_from_statistics(*ours), calls=3)
    theirs = [metric_fid.fid_features_to_statistics(torch.from_numpy(z).double()) for z in (x, y)]
    slow, found = timed(lambda: metric_fid.fid_statistics_to_metric(*theirs, verbose=False), calls=3)
    expected = found[metric_fid.KEY_METRIC_FID]
    print(f"to the metric: {seconds:.1f} s; torch-fidelity {slow:.1f} s, {slow / seconds:.1f} times as long")
    print(f"{value!r} and {expected!r}, relative difference {abs(value / expected - 1):.1e}")


def bench_exam() -> None:
    """Seconds of each metric in a small feature space and of memorisation on pixels."""
    total = 0.0
    for space, d in (("toy", 96), ("pixels", 784)):
        sat = exam(10_000, d, space, 55_000)
        for metric in all_metrics():
            if metric.applies(space):
                seconds, values = timed(partial(score_one, metric, sat))
                total += seconds
                print(f"{seconds:7.1f} s  " + "  ".join(f"{k} {v.value:.4g}" for k, v in values.items()), flush=True)
    print(f"{total:7.1f} s  in all")


def peak_of(metric: MetricInfo, n: int, d: int) -> None:
    """Score one metric and print the peak resident memory of this process."""
    train = n if metric.reference != "test" else 0
    sat = exam(n, d, SPACES.get(metric.names[0], "toy"), train)
    seconds, values = timed(partial(score_one, metric, sat))
    assert all(v.reason_missing is None for v in values.values()), values
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{gib:.2f} GiB  {seconds:7.0f} s  {', '.join(values)}", flush=True)


def bench_memory(names: list[str], n: int, d: int) -> None:
    """Each metric in a process of its own."""
    for metric in all_metrics():
        if not names or set(names) & set(metric.names):
            command = [sys.executable, "-m", __spec__.name, "peak", metric.names[0], "-n", str(n), "-d", str(d)]
            subprocess.run(command, check=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("frechet", "exam", "memory", "peak"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("-n", type=int, default=50_000)
    parser.add_argument("-d", type=int, default=2048)
    options = parser.parse_args()
    unknown = set(options.names) - {name for metric in all_metrics() for name in metric.names}
    if unknown:
        parser.error(f"unknown metric {', '.join(sorted(unknown))}")
    if options.what == "frechet":
        bench_frechet()
    elif options.what == "exam":
        bench_exam()
    elif options.what == "memory":
        bench_memory(options.names, options.n, options.d)
    else:
        peak_of(next(m for m in all_metrics() if set(options.names) & set(m.names)), options.n, options.d)


if __name__ == "__main__":
    main()
