"""Guidance, thresholds and views: the algebra, where it acts, and what it costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluation.speed import NetworkCalls
from models.base import to_uint8
from models.diffusion.guidance import (
    PERCENTILE,
    Guidance,
    GuidedDenoiser,
    dynamic_threshold,
    knowing,
    static_threshold,
)
from models.diffusion.samplers import SAMPLERS, evaluations, heun, karras_sigmas
from tests.models.tiny import random_model

NULL = 9
LABELS = torch.tensor([2, 5, NULL])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


class Recorder:
    """A denoiser that says 10 x label + x, and remembers the labels it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.asked.append(labels.tolist())
        return x + 10 * labels[:, None, None, None]


def guided(scale: float, sigma: float = 1.0, labels: torch.Tensor = LABELS, **options: float) -> tuple:
    """Estimate at x = 0, first pixel of every image; the labels asked for; the cost."""
    recorder = Recorder()
    denoise = GuidedDenoiser(recorder, labels, NULL, Guidance(scale, **options))
    found = denoise(torch.zeros(len(labels), 1, 2, 2), torch.full((len(labels),), sigma))
    return found[:, 0, 0, 0].tolist(), recorder.asked, denoise.evaluations


@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0])
def test_uncond_plus_scale_times_the_difference(scale: float) -> None:
    found, asked, cost = guided(scale)
    assert found == pytest.approx([90 + scale * (label * 10 - 90) for label in LABELS.tolist()])
    assert sorted(asked) == sorted([LABELS.tolist(), [NULL] * 3]) and cost == 2


def test_scales_0_and_1_are_one_of_the_two_and_cost_one() -> None:
    assert guided(1.0) == ([20, 50, 90], [LABELS.tolist()], 1)
    assert guided(0.0) == ([90, 90, 90], [[NULL] * 3], 1)


def test_without_labels_there_is_nothing_to_guide() -> None:
    assert guided(3.0, labels=torch.full((2,), NULL)) == ([90, 90], [[NULL] * 2], 1)


@pytest.mark.parametrize(("sigma", "inside"), [(0.1, False), (0.5, True), (2.0, True), (3.0, True), (3.1, False)])
def test_guidance_in_an_interval(sigma: float, inside: bool) -> None:
    """Kynkäänniemi et al. 2024: outside of [low, high] the conditional estimate as it is, at the cost of one."""
    found, _, cost = guided(2.0, sigma, low=0.5, high=3.0)
    assert (found, cost) == (([-50, 10, 90], 2) if inside else ([20, 50, 90], 1))
    found, _, cost = guided(0.0, sigma, low=0.5, high=3.0)
    assert (found, cost) == ([90, 90, 90] if inside else [20, 50, 90], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": -0.1}, r"guidance_scale must be a number from 0 on, not -0\.1"),
        ({"scale": math.nan}, "guidance_scale must be a number from 0 on, not nan"),
        ({"scale": math.inf}, "guidance_scale must be a number from 0 on, not inf"),
        ({"low": 2.0, "high": 1.0}, r"guidance_interval needs 0 <= low < high, not 2\.0 and 1\.0"),
        ({"low": -1.0}, "guidance_interval needs 0 <= low < high"),
        ({"low": math.nan}, "guidance_interval needs 0 <= low < high"),
        ({"threshold": "clip"}, "threshold must be one of none, static, dynamic, not 'clip'"),
    ],
)
def test_guidance_that_means_nothing_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Guidance(**options)


# In a model.


def drawn(name: str, n: int = 4, **options: object) -> tuple[torch.Tensor, int, int]:
    """Images, what the model says they cost each, and calls of the network counted by hooks."""
    model = random_model(name)
    with NetworkCalls(model) as calls:
        samples = model.sample(n, condition=torch.arange(n) % 3, generator=generator(0), **options)
    assert calls.evaluations % n == 0
    return samples.images, samples.nfe, calls.evaluations // n


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_doubles_the_evaluations_of_every_sampler(sampler: str) -> None:
    plain = evaluations(sampler, 5)
    for scale, cost in ((0.0, plain), (1.0, plain), (0.7, 2 * plain), (3.0, 2 * plain)):
        _, said, counted = drawn("diffusion", sampler=sampler, num_steps=5, guidance_scale=scale)
        assert (said, counted) == (cost, cost)


@pytest.mark.parametrize("name", ["diffusion", "ddpm", "flow_matching", "consistency"])
def test_every_member_of_the_family_is_guided_and_counted(name: str) -> None:
    _, plain, counted = drawn(name)
    assert plain == counted
    images, said, counted = drawn(name, guidance_scale=4.0)
    assert said == counted == 2 * plain
    assert not torch.equal(images, drawn(name)[0])


def test_an_interval_costs_what_lies_in_it() -> None:
    low, high = 0.2, 10.0
    levels = random_model("diffusion").noise_levels(9)[:-1]
    inside = int(((levels >= low) & (levels <= high)).sum())
    assert 0 < inside < 9
    options = {"sampler": "dpmpp_2m", "num_steps": 9, "guidance_scale": 2.0}
    _, said, counted = drawn("diffusion", guidance_interval=(low, high), **options)
    assert said == counted == 9 + inside
    whole, nothing = drawn("diffusion", **options)[0], drawn("diffusion", guidance_interval=(100.0, 200.0), **options)
    assert not torch.equal(whole, nothing[0]) and nothing[1] == 9
    assert torch.equal(nothing[0], drawn("diffusion", **options | {"guidance_scale": 1.0})[0])


def test_the_scales_0_and_1_are_the_two_ends() -> None:
    model, options = random_model("diffusion"), {"num_steps": 4}
    unlabelled = model.sample(4, generator=generator(0), **options).images
    assert torch.equal(drawn("diffusion", guidance_scale=0.0, **options)[0], unlabelled)
    labelled = model.sample(4, condition=torch.arange(4) % 3, generator=generator(0), **options).images
    assert torch.equal(drawn("diffusion", guidance_scale=1.0, **options)[0], labelled)
    assert not torch.equal(labelled, unlabelled)
    assert model.sample(4, generator=generator(0), guidance_scale=3.0, **options).nfe == 4, "no label, no guidance"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": -1.0}, "guidance_scale must be a number from 0 on"),
        ({"guidance_interval": (3.0, 2.0)}, "guidance_interval needs"),
        ({"threshold": "hard"}, "threshold must be one of"),
    ],
)
def test_a_model_refuses_them_too(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drawn("diffusion", **options)


# Thresholds.


def test_thresholds_against_numpy() -> None:
    x_0 = normal(0, 5, 3, 8, 8) * torch.tensor([0.1, 0.3, 1.0, 3.0, 50.0])[:, None, None, None]
    assert torch.equal(static_threshold(x_0), torch.from_numpy(np.clip(x_0.numpy(), -1, 1)))
    limits = np.maximum(np.quantile(np.abs(x_0.numpy()).reshape(5, -1), PERCENTILE, axis=1), 1)
    assert limits[0] == limits[1] == 1 and limits[4] > 50
    limits = limits.astype(np.float32)[:, None, None, None]
    expected = np.clip(x_0.numpy(), -limits, limits) / limits
    np.testing.assert_allclose(dynamic_threshold(x_0), expected, rtol=1e-5, atol=1e-6)
    assert float(dynamic_threshold(x_0).abs().max()) <= 1
    assert torch.equal(dynamic_threshold(x_0)[:1], x_0[:1]), "what is in range stays as it is"


@pytest.mark.parametrize("threshold", ["none", "static", "dynamic"])
def test_the_threshold_is_that_of_the_guided_estimate(threshold: str) -> None:
    x = 3 * normal(0, 3, 1, 4, 4)
    denoise = GuidedDenoiser(Recorder(), LABELS, NULL, Guidance(2.0, threshold=threshold))
    raw = x + torch.tensor([-50.0, 10.0, 90.0])[:, None, None, None]
    expected = {"none": raw, "static": static_threshold(raw), "dynamic": dynamic_threshold(raw)}[threshold]
    torch.testing.assert_close(denoise(x, torch.ones(3)), expected)


def test_ddpm_clips_and_the_others_do_not() -> None:
    for name, own in (("ddpm", "static"), ("diffusion", "none"), ("flow_matching", "none")):
        images = {t: drawn(name, threshold=t, num_steps=9)[0] for t in ("none", "static", "dynamic")}
        assert torch.equal(drawn(name, num_steps=9)[0], images[own])
        assert not torch.equal(images["none"], images["static"])


# Views.


def test_what_is_known_is_the_truth_and_the_rest_the_network() -> None:
    known, x = normal(0, 2, 1, 2, 2), normal(1, 2, 1, 2, 2)
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = knowing(lambda x, sigma: 2 * x * sigma[:, None, None, None], known, mask)(x, torch.full((2,), 3.0))
    torch.testing.assert_close(found, torch.where(mask.bool(), known, 6 * x))


def test_the_known_part_stays_on_its_line() -> None:
    """Heun's method is exact on known + sigma eps: after every step the state is there."""
    known, eps, states = normal(0, 1, 1, 2, 2).double(), normal(1, 1, 1, 2, 2).double(), []
    sigmas, mask = karras_sigmas(6), torch.ones(1, 1, 2, 2, dtype=torch.float64)
    heun(knowing(lambda x, sigma: 0 * x, known, mask), known + sigmas[0] * eps, sigmas, on_step=states.append)
    for state, sigma in zip(states, sigmas[1:], strict=True):
        torch.testing.assert_close(state, known + sigma * eps, rtol=1e-9, atol=1e-9)
    assert torch.equal(to_uint8(states[-1]), to_uint8(known))
