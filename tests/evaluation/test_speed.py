"""Sampling speed: what is counted and timed is what the sampler runs."""

from __future__ import annotations

import time

import pytest
import torch

from evaluation.speed import BATCH_SIZES, matmul_peak, measure_speed, peak_memory_mib, timed
from experiments.discovery import model_names
from models.flops import FlopCounter
from tests.models.tiny import SHAPE, random_model


@pytest.mark.parametrize("name", model_names())
def test_speed_of_every_model(name: str) -> None:
    model = random_model(name)
    speed = measure_speed(model, seed=0, repeats=1)
    assert speed.batch_size in BATCH_SIZES and speed.reason_missing is None
    assert 0 < speed.latency_ms_p50 <= speed.latency_ms_p95
    assert speed.images_per_second > 0
    assert speed.nfe == model.sample(1, generator=torch.Generator().manual_seed(0)).nfe
    assert 0 < speed.utilisation < 1.5
    assert speed.peak_memory_mib > 50
    peak = matmul_peak("cpu")
    assert speed.utilisation == pytest.approx(speed.flops_per_image * speed.images_per_second / peak)


def test_flops_per_image_are_the_evaluations_of_the_network() -> None:
    model = random_model("diffusion")
    x, labels = torch.randn(1, *SHAPE), torch.zeros(1, dtype=torch.int64)
    with FlopCounter() as counter, torch.inference_mode():
        model.denoiser(x, torch.ones(1), labels)
    speed = measure_speed(model, seed=0, repeats=1)
    assert speed.flops_per_image == pytest.approx(speed.nfe * counter.get_total_flops())


def test_the_peak_is_plausible_and_measured_once() -> None:
    peak = matmul_peak("cpu")
    assert 1e9 < peak < 1e15
    assert matmul_peak("cpu") == peak
    n = 512
    a = torch.randn(n, n)
    assert 2 * n**3 / min(timed(lambda: a @ a) for _ in range(5)) < 3 * peak


def test_a_call_is_timed() -> None:
    assert 0.02 <= timed(lambda: time.sleep(0.02)) < 0.5


def test_memory_in_mebibytes_never_falls() -> None:
    before = peak_memory_mib()
    block = torch.ones(64 * 2**20 // 4)  # 64 MiB
    assert 50 < before <= peak_memory_mib() < 1e6
    assert block.sum() > 0
