"""Sampling speed: what is counted and timed is what the sampler runs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation import speed as measured
from evaluation.record import Speed
from evaluation.speed import (
    BATCH_SIZES,
    NetworkCalls,
    matmul_peak,
    measure_speed,
    median_interval,
    peak_during_mib,
    peak_memory_mib,
    timed,
)
from experiments.discovery import model_names
from models.base import Samples
from models.diffusion.model import Diffusion
from models.flops import FlopCounter
from models.gan.model import GAN
from tests.models.tiny import INFO, SHAPE, SMALL, random_model, tiny_config

STAGES = {"diffusion": {"denoiser"}, "gan": {"generator"}, "vqvae": {"prior", "autoencoder.decoder"}}


@pytest.fixture(autouse=True)
def short_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models keep growing faster up to the largest batch: leave that one out."""
    monkeypatch.setattr(measured, "BATCH_SIZES", BATCH_SIZES[:-2])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def speeds() -> dict[str, Speed]:
    """Every model measured once."""
    return {name: measure_speed(random_model(name), seed=0, repeats=3) for name in model_names()}


@pytest.mark.parametrize("name", model_names())
def test_speed_of_every_model(name: str, speeds: dict[str, Speed]) -> None:
    speed = speeds[name]
    assert speed.batch_size in BATCH_SIZES and speed.reason_missing is None
    assert 0 < speed.latency_ms_p50 <= speed.latency_ms_p90 <= speed.latency_ms_p95
    assert 0 < speed.ci_low <= speed.images_per_second <= speed.ci_high
    assert speed.warm_up_seconds > 0
    assert 0 < speed.utilisation < 1.5
    assert speed.peak_memory_mib > 50
    assert speed.matmul_peak_flops == matmul_peak("cpu")
    assert speed.utilisation == pytest.approx(
        speed.flops_per_image * speed.images_per_second / speed.matmul_peak_flops
    )


@pytest.mark.parametrize("name", model_names())
def test_the_sweep_ends_where_throughput_no_longer_grows(name: str, speeds: dict[str, Speed]) -> None:
    sweep = speeds[name].sweep
    assert list(sweep) == [str(b) for b in BATCH_SIZES[: len(sweep)]] and len(sweep) > 1
    assert sweep[str(speeds[name].batch_size)] == speeds[name].images_per_second
    assert sweep["1"] == pytest.approx(1000 / speeds[name].latency_ms_p50)


@pytest.mark.parametrize("name", model_names())
def test_the_stages_are_the_networks_by_name(name: str, speeds: dict[str, Speed]) -> None:
    stages = speeds[name].stage_seconds
    if name in STAGES:
        assert set(stages) == {*STAGES[name], "other"}
    assert all(seconds > 0 for seconds in stages.values())
    assert set(speeds[name].stage_latency_ms) == set(stages)
    assert all(milliseconds > 0 for milliseconds in speeds[name].stage_latency_ms.values())


@pytest.mark.parametrize("name", model_names())
def test_hooks_count_what_the_sampler_declares(name: str, speeds: dict[str, Speed]) -> None:
    model = random_model(name)
    declared = model.sample(2, generator=generator()).nfe
    assert speeds[name].nfe == declared
    with NetworkCalls(model) as calls:
        model.sample(2, generator=generator())
    assert calls.evaluations == 2 * declared
    model.sample(2, generator=generator())
    assert calls.evaluations == 2 * declared  # the hooks are gone


def test_known_numbers_of_evaluations(speeds: dict[str, Speed]) -> None:
    codes = random_model("vqvae").prior.num_codes
    found = {name: speeds[name].nfe for name in ("diffusion", "gan", "vqvae")}
    assert found == {"diffusion": SMALL["num_steps"], "gan": 1, "vqvae": codes + 1}


def test_counting_survives_the_cache_being_off() -> None:
    model = random_model("vqvae")
    with NetworkCalls(model) as calls:
        model.sample(2, generator=generator(), cached=False)
    assert calls.evaluations == 2 * (model.prior.num_codes + 1)


class Twice(Diffusion):
    """Samples twice and says so nowhere."""

    def sample(self, n: int, **options: Any) -> Samples:
        super().sample(n, **options)
        return super().sample(n, **options)


class Guided(GAN):
    """Runs the generator on a doubled batch, as guidance does."""

    def sample(self, n: int, *, condition: torch.Tensor | None = None, generator: torch.Generator) -> Samples:
        double = torch.cat([condition, condition])
        both = super().sample(2 * n, condition=double, generator=generator)
        return Samples(both.images[:n], nfe=1)


def built(kind: type, name: str) -> Any:
    torch.manual_seed(0)
    return kind(image_shape=SHAPE, num_classes=INFO.num_classes, **vars(tiny_config(name))).eval()


@pytest.mark.parametrize(("kind", "name", "times"), [(Twice, "diffusion", 2), (Guided, "gan", 2)])
def test_what_is_run_is_counted_not_what_is_declared(kind: type, name: str, times: int) -> None:
    model = built(kind, name)
    declared = model.sample(2, condition=torch.zeros(2, dtype=torch.int64), generator=generator()).nfe
    assert measure_speed(model, seed=0, repeats=1).nfe == times * declared


class Whole(GAN):
    """Names no networks: the model itself is its sampling module."""

    def sampling_modules(self) -> list[torch.nn.Module]:
        return [self]


def test_a_model_that_names_no_networks_is_counted_by_its_outermost_calls() -> None:
    model = built(Whole, "gan")
    with NetworkCalls(model) as calls:
        model.sample(3, generator=generator())
    assert calls.evaluations == 3 and set(calls.seconds) == {"generator"}


def test_a_failing_network_leaves_the_count_usable() -> None:
    model = built(GAN, "gan")
    with NetworkCalls(model) as calls:
        with pytest.raises(RuntimeError):
            model.generator(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))
        before = calls.evaluations
        model.sample(3, generator=generator())
    assert calls.evaluations == before + 3


def test_flops_per_image_are_the_evaluations_of_the_network(speeds: dict[str, Speed]) -> None:
    model = random_model("diffusion")
    x, labels = torch.randn(1, *SHAPE), torch.zeros(1, dtype=torch.int64)
    with FlopCounter() as counter, torch.inference_mode():
        model.denoiser(x, torch.ones(1), labels)
    speed = speeds["diffusion"]
    assert speed.flops_per_image == pytest.approx(speed.nfe * counter.get_total_flops())


class Sleepy(GAN):
    """Takes 2 ms an image in the network and 6 ms a batch outside of it."""

    def sample(self, n: int, **options: Any) -> Samples:
        hook = self.generator.body[0].register_forward_pre_hook(lambda *_: time.sleep(0.002 * n))
        time.sleep(0.006)
        try:
            return super().sample(n, **options)
        finally:
            hook.remove()


def test_time_is_split_between_network_and_the_rest() -> None:
    model = built(Sleepy, "gan")
    stages = measured.stage_seconds(
        model, lambda: model.sample(4, condition=torch.zeros(4, dtype=torch.int64), generator=generator()), 4
    )
    assert stages["generator"] >= 0.002 and stages["other"] >= 0.0015
    speed = measure_speed(model, seed=0, repeats=1)
    assert speed.images_per_second < 500  # 2 ms an image


def test_a_batch_that_would_take_too_long_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "LONGEST_BATCH", 0.02)
    speed = measure_speed(built(Sleepy, "gan"), seed=0, repeats=1)
    assert "16" not in speed.sweep and speed.batch_size <= 4


def test_the_interval_of_the_median_holds_its_coverage() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        low, high = median_interval(list(rng.lognormal(size=10)))
        hits.append(low <= 1 <= high)
    exact = 1 - 2 * stats.binom.cdf(1, 10, 0.5)  # 0.979
    assert np.mean(hits) == pytest.approx(exact, abs=0.03)
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == (None, None)
    assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)


def test_no_repetition_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        measure_speed(random_model("gan"), seed=0, repeats=0)


def test_the_peak_is_plausible_and_measured_once() -> None:
    peak = matmul_peak("cpu")
    assert 1e9 < peak < 1e15
    assert matmul_peak("cpu") == peak
    n = 512
    a = torch.randn(n, n)
    seen = 2 * n**3 / min(timed(lambda: a @ a) for _ in range(5))
    assert seen < 10 * peak  # of the right order; the peak may have been measured while others were at work


def test_a_call_is_timed() -> None:
    assert 0.02 <= timed(lambda: time.sleep(0.02)) < 0.5


def test_memory_in_mebibytes_never_falls() -> None:
    before = peak_memory_mib()
    block = torch.ones(64 * 2**20 // 4)  # 64 MiB
    assert 50 < before <= peak_memory_mib() < 1e6
    assert block.sum() > 0


def hold(mebibytes: int) -> None:
    block = torch.ones(mebibytes * 2**20 // 4)
    time.sleep(0.05)
    assert block[-1] == 1


@pytest.mark.parametrize("permitted", [True, False])
def test_the_peak_of_a_call_is_its_own(permitted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not permitted:
        monkeypatch.setattr(measured, "_reset_high_water_mark", lambda: False)
    hold(400)  # an earlier peak must not be counted
    whole = peak_memory_mib()
    small, large = (peak_during_mib(lambda size=size: hold(size)) for size in (1, 200))
    assert 150 < large - small < 250
    assert small < whole - 100
    assert peak_memory_mib() >= whole
