"""Sampling speed: latency of one image, best throughput, and how busy the machine was.

Every stage of a model is inside the timed call. Network evaluations are counted by hooks on the calls
of the networks, FLOPs by ``FlopCounter``; the machine's peak is measured with a matrix product in the
same process, and the number of threads is whatever torch was given. What disturbs the clock (hooks,
counters, the memory reading) runs apart from what is timed.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from evaluation.record import Speed
from models.base import GenerativeModel
from models.flops import FlopCounter

BATCH_SIZES = (1, 4, 16, 64, 256, 1024)
LONGEST_BATCH = 20.0  # seconds: a batch size expected to take longer is not tried
WORTHWHILE = 1.05  # a larger batch size must be this much faster, or it counts as no gain
NO_GAINS = 2  # in a row, and the sweep ends: one may be a moment's disturbance
LATENCY_REPEATS = 4  # latency is timed this many times as often as a step of the sweep
COUNTED = 4  # images whose FLOPs and network evaluations are counted
OTHER = "other"  # the part of the time that is spent outside the networks

Draw = Callable[[int], Callable[[], Any]]
_peaks_before_reset: list[float] = []


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
    """FLOPs per second of the fastest float32 matrix product seen: the machine's usable peak.

    The product of two (size, size) matrices is tried as such and as a convolution of 1 x 1 pixels, for the two
    come from different libraries: on an AMD processor the second was seen to be 2.4 times as fast.
    """
    a = torch.randn(size, size, device=device)
    pixels = a.reshape(-1, 16, 16, size).permute(0, 3, 1, 2)  # (size / 256, size, 16, 16), channels last
    kernel = a[:, :, None, None].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        products = (lambda: a @ a, lambda: torch.conv2d(pixels, kernel))
        for product in products:
            timed(product)
        return 2 * size**3 / min(timed(product) for product in products for _ in range(repeats))


# Memory.


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return max([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, *_peaks_before_reset])


def _reset_high_water_mark() -> bool:
    """Let Linux count the largest resident memory anew (proc(5), clear_refs 5); False where that is not allowed."""
    before = peak_memory_mib()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    _peaks_before_reset[:] = [before]  # the reset also lowers what getrusage tells
    return True


def forget_peak_memory() -> None:
    """Let ``peak_memory_mib`` begin anew: the process has other work from now on."""
    if _reset_high_water_mark():
        _peaks_before_reset.clear()


def _high_water_mark_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _watched_resident_mib(call: Callable[[], object], interval: float = 0.002) -> float:
    """Largest resident memory seen every few milliseconds during a call, in MiB."""
    process, over = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not over.wait(interval):
            seen.append(process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        call()
        seen.append(process.memory_info().rss)
    finally:
        over.set()
        thread.join()
    return max(seen) / 2**20


def peak_during_mib(call: Callable[[], object], device: str = "cpu") -> float:
    """Peak memory while a call runs, in MiB: allocated on a CUDA device, otherwise resident."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() / 2**20
    if not _reset_high_water_mark():
        return _watched_resident_mib(call)
    call()
    return _high_water_mark_mib()


# Network evaluations.


def _rows(values: tuple[Any, ...]) -> int:
    """Size of the batch: the leading dimension of the first tensor that has one."""
    return next((value.shape[0] for value in values if isinstance(value, Tensor) and value.ndim), 1)


def _parametrised(module: nn.Module) -> int:
    """Number of modules, itself included, with parameters of their own."""
    return sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())


class NetworkCalls:
    """Context manager that counts and times evaluations of the networks a model samples with.

    A network is each of ``model.sampling_modules()`` itself and each module inside one that holds more
    than one module with parameters; embedding tables and single layers called alone are none. A call
    counts if it is not made from within another that counts, once for every row of its batch, so that
    guidance by a doubled batch counts twice; what goes in tells the rows, as what comes out may be a choice of places.
    Networks must be called as modules, not through ``forward``.
    """

    def __init__(self, model: GenerativeModel) -> None:
        paths = {module: path for path, module in model.named_modules()}
        self._names: dict[nn.Module, str] = {}
        for network in model.sampling_modules():
            name = paths.get(network, type(network).__name__)  # "" for the model itself
            for part in network.modules():
                if part is network or _parametrised(part) > 1:
                    self._names.setdefault(part, name or paths[part])
        self._handles: list[RemovableHandle] = []
        self._depth = 0
        self._start = 0.0
        self.evaluations = 0
        self.seconds: dict[str, float] = defaultdict(float)

    def __enter__(self) -> NetworkCalls:
        for module in self._names:
            self._handles += [
                module.register_forward_pre_hook(self._enter),
                module.register_forward_hook(self._leave, with_kwargs=True, always_call=True),
            ]
        return self

    def __exit__(self, *args: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._depth == 0:
            synchronise()
            self._start = time.perf_counter()
        self._depth += 1

    def _leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            synchronise()
            self.seconds[self._names[module]] += time.perf_counter() - self._start
            outputs = output if isinstance(output, tuple) else (output,)
            self.evaluations += _rows((*args, *kwargs.values(), *outputs))


# The measurement.


def _sweep(draw: Draw, rate_of_one: float, repeats: int) -> dict[int, list[float]]:
    """Seconds of repeated batches of growing size, until that no longer pays or would take too long."""
    seconds: dict[int, list[float]] = {}
    best, without_gain = rate_of_one, 0
    for batch in BATCH_SIZES[1:]:
        if batch / best > LONGEST_BATCH:
            break
        draw(batch)()
        seconds[batch] = [timed(draw(batch)) for _ in range(repeats)]
        rate = batch / float(np.median(seconds[batch]))
        without_gain = 0 if rate >= WORTHWHILE * best else without_gain + 1
        if without_gain == NO_GAINS:
            break
        best = max(best, rate)
    return seconds


def median_interval(values: list[float]) -> tuple[float | None, float | None]:
    """95 % interval of the median from order statistics (Conover 1999, Sec. 3.2); None below 6 values."""
    interval = stats.quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
    low, high = float(interval.low), float(interval.high)
    return (low, high) if np.isfinite([low, high]).all() else (None, None)


def stage_seconds(model: GenerativeModel, draw: Callable[[], object], n: int) -> dict[str, float]:
    """Seconds per image inside each network by its name in the model, and the rest under "other"."""
    with NetworkCalls(model) as calls:
        total = timed(draw)
    return {**{name: s / n for name, s in calls.seconds.items()}, OTHER: (total - sum(calls.seconds.values())) / n}


def stage_latencies(model: GenerativeModel, draw: Draw, repeats: int) -> dict[str, float]:
    """Median milliseconds of one image inside each network by its name in the model, and the rest under "other"."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, seconds in stage_seconds(model, draw(1), 1).items():
            found[name].append(1000 * seconds)
    return {name: float(np.median(values)) for name, values in found.items()}


def count_work(model: GenerativeModel, draw: Draw) -> tuple[float, float]:
    """FLOPs and network evaluations per image."""
    with FlopCounter() as counter, NetworkCalls(model) as calls:
        draw(COUNTED)()
    return counter.get_total_flops() / COUNTED, calls.evaluations / COUNTED


def measure_speed(model: GenerativeModel, *, seed: int, repeats: int) -> Speed:
    """Time ``model.sample`` at batch 1 and at the batch size with the highest throughput.

    The sweep over ``BATCH_SIZES`` ends with the second step in a row that is not 5 % faster than the best before.
    FLOPs are nominal: kernels skip products with zero padding, a third of all at 4x4 pixels.
    Throughput is the median of twice ``repeats`` batches of the best size, with an interval from order
    statistics (95 %; from three repeats on). The very first call is timed apart and excluded.

    Args:
        model: Any generative model; it is asked for samples of every class in turn.
        seed: Seed of the sampling noise.
        repeats: Timed repetitions per batch size, after one warm-up; at least 1.
    """
    if repeats < 1:
        raise ValueError(f"the number of timed repetitions must be at least 1, not {repeats}")
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> Callable[[], object]:
        labels = torch.arange(n) % model.num_classes
        return lambda: model.sample(n, condition=labels, generator=generator)

    warm_up = timed(draw(1))
    flops, nfe = count_work(model, draw)
    latencies = [timed(draw(1)) for _ in range(LATENCY_REPEATS * repeats)]
    seconds = {1: latencies} | _sweep(draw, 1 / float(np.median(latencies)), repeats)
    best = min(seconds, key=lambda batch: float(np.median(seconds[batch])) / batch)
    seconds[best] += [timed(draw(best)) for _ in range(repeats if best > 1 else 0)]
    rates = {batch: batch / float(np.median(values)) for batch, values in seconds.items()}
    low, high = median_interval([best / s for s in seconds[best]])
    p50, p90, p95 = (1000 * float(np.percentile(latencies, p)) for p in (50, 90, 95))
    peak = matmul_peak(model.device.type)
    return Speed(
        images_per_second=rates[best],
        latency_ms_p50=p50,
        latency_ms_p95=p95,
        nfe=nfe,
        batch_size=best,
        peak_memory_mib=peak_during_mib(draw(best), model.device.type),
        flops_per_image=flops,
        utilisation=flops * rates[best] / peak,
        ci_low=low,
        ci_high=high,
        latency_ms_p90=p90,
        warm_up_seconds=warm_up,
        matmul_peak_flops=peak,
        sweep={str(batch): rate for batch, rate in rates.items()},
        stage_seconds=stage_seconds(model, draw(best), best),
        stage_latency_ms=stage_latencies(model, draw, repeats),
    )
