"""Sampling speed: latency of one image, best throughput, and how busy the machine was.

Every stage of a model is inside the timed call. FLOPs are counted, the machine's peak is measured
with a matrix product in the same process, and the number of threads is whatever torch was given.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from evaluation.record import Speed
from models.base import GenerativeModel
from models.flops import FlopCounter

BATCH_SIZES = (16, 64, 256)
LATENCY_REPEATS = 4  # latency is timed this many times as often as throughput
COUNTED = 4  # images whose FLOPs are counted


def synchronise() -> None:
    """Wait for the device, so that a clock read afterwards is honest."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call, device synchronised."""
    synchronise()
    start = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - start


@lru_cache(maxsize=2)
def matmul_peak(device: str = "cpu", size: int = 2048, repeats: int = 5) -> float:
    """FLOPs per second of the fastest of a few float32 matrix products: the machine's usable peak."""
    a = torch.randn(size, size, device=device)
    timed(lambda: a @ a)
    return 2 * size**3 / min(timed(lambda: a @ a) for _ in range(repeats))


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure_speed(model: GenerativeModel, *, seed: int, repeats: int) -> Speed:
    """Time ``model.sample`` at batch 1 (median and 95th percentile) and at the best batch size.

    Args:
        model: Any generative model; it is asked for samples of every class in turn.
        seed: Seed of the sampling noise.
        repeats: Timed repetitions per batch size, after one warm-up.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> Callable[[], object]:
        labels = torch.arange(n) % model.num_classes
        return lambda: model.sample(n, condition=labels, generator=generator)

    with FlopCounter() as counter:
        nfe = model.sample(COUNTED, condition=torch.zeros(COUNTED, dtype=torch.int64), generator=generator).nfe
    flops = counter.get_total_flops() / COUNTED
    draw(1)()
    latencies = [1000 * timed(draw(1)) for _ in range(LATENCY_REPEATS * repeats)]
    rates: dict[int, float] = {}
    for batch in BATCH_SIZES:
        draw(batch)()
        rates[batch] = batch / float(np.median([timed(draw(batch)) for _ in range(repeats)]))
        if batch > BATCH_SIZES[0] and rates[batch] < 1.05 * max(r for b, r in rates.items() if b < batch):
            break  # larger batches no longer pay
    best = max(rates, key=lambda b: rates[b])
    return Speed(
        images_per_second=rates[best],
        latency_ms_p50=float(np.percentile(latencies, 50)),
        latency_ms_p95=float(np.percentile(latencies, 95)),
        nfe=nfe,
        batch_size=best,
        peak_memory_mib=peak_memory_mib(),
        flops_per_image=flops,
        utilisation=flops * rates[best] / matmul_peak(model.device.type),
    )
