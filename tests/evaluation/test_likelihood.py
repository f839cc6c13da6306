"""Bits per dimension: arithmetic, interval, parts, and the reason where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluation.likelihood.bits import bits_per_dim, missing, score_likelihood, summarise
from models.base import LikelihoodBound
from tests.models.tiny import random_model, tiny_data

BITS = math.log(2)


def bound(values: list[float], **parts: list[float]) -> LikelihoodBound:
    tensors = {name: torch.tensor(part, dtype=torch.float64) for name, part in parts.items()}
    return LikelihoodBound(torch.tensor(values, dtype=torch.float64), "elbo", tensors)


def test_a_uniform_source_has_eight_bits() -> None:
    log_p = torch.full((3,), -64 * math.log(256), dtype=torch.float32)
    assert bits_per_dim(log_p, 64).tolist() == pytest.approx([8, 8, 8])
    assert bits_per_dim(log_p, 64).dtype == torch.float64


def test_mean_interval_and_parts() -> None:
    one = bound([-10 * BITS, -30 * BITS], a=[-4 * BITS, -20 * BITS], b=[-6 * BITS, -10 * BITS])
    two = bound([-20 * BITS], a=[-15 * BITS], b=[-5 * BITS])
    found = summarise([one, two], 10)
    assert found.bits_per_dim == pytest.approx(2)
    half = 1.959964 * np.std([1, 3, 2], ddof=1) / math.sqrt(3)
    assert (found.ci_low, found.ci_high) == pytest.approx((2 - half, 2 + half))
    assert found.parts == pytest.approx({"a": 1.3, "b": 0.7})
    assert (found.kind, found.n_images, found.reason_missing) == ("elbo", 3, None)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2000, 200, generator=generator, dtype=torch.float64) - 5
    found = [summarise([LikelihoodBound(row, "elbo")], 1) for row in draws]
    covered = np.mean([f.ci_low <= 5 / BITS <= f.ci_high for f in found])
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize("batch_size", [2, 5, 100])
def test_a_model_is_scored_over_all_images(batch_size: int) -> None:
    model, (images, _) = random_model("diffusion"), tiny_data(7)
    found = score_likelihood(
        model, images, generator=torch.Generator().manual_seed(0), batch_size=batch_size
    )
    direct = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(0)).log_likelihood
    assert found.n_images == 7
    assert found.bits_per_dim == pytest.approx(float(-direct.mean()) / (64 * BITS), rel=1e-4)
    assert sum(found.parts.values()) == pytest.approx(found.bits_per_dim)


def test_without_a_likelihood_there_is_the_reason() -> None:
    model, (images, _) = random_model("gan"), tiny_data(4)
    found = score_likelihood(model, images, generator=torch.Generator(), batch_size=2)
    assert found == missing(model.likelihood_missing)
    assert found.bits_per_dim is None and "density" in found.reason_missing


def test_a_bound_that_is_not_finite_is_missing() -> None:
    model, (images, _) = random_model("vqvae"), tiny_data(4)
    with torch.no_grad():
        model.prior.transformer.head.bias.fill_(float("nan"))
    found = score_likelihood(model, images, generator=torch.Generator(), batch_size=4)
    assert found == missing("the bound is not finite")
