"""Bits per dimension: arithmetic, interval, parts, and the reason where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluation.likelihood.bits import bits_per_dim, missing, score_likelihood, summarise
from models.base import LikelihoodBound
from tests.models.tiny import random_model, tiny_data

pytestmark = pytest.mark.usefixtures("short_likelihoods")

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
    error = np.std([1, 3, 2], ddof=1) / math.sqrt(3)
    half = 4.302653 * error  # 97.5 % quantile of Student's t with 2 degrees of freedom
    assert found.standard_error == pytest.approx(error)
    assert (found.ci_low, found.ci_high) == pytest.approx((2 - half, 2 + half))
    assert found.parts == pytest.approx({"a": 1.3, "b": 0.7})
    assert (found.kind, found.n_images, found.reason_missing) == ("elbo", 3, None)


@pytest.mark.parametrize("n", [8, 32, 200])
@pytest.mark.parametrize("law", ["normal", "skewed"])
def test_the_interval_covers_the_mean_as_often_as_it_says(n: int, law: str) -> None:
    generator = torch.Generator().manual_seed(n)
    draws = torch.randn(3000, n, generator=generator, dtype=torch.float64)
    if law == "skewed":  # a sum of 16 squares has the skewness of bits over the images of a test split, or more
        draws = torch.randn(3000, n, 16, generator=generator, dtype=torch.float64).square().sum(-1) - 16
    found = [summarise([LikelihoodBound(row - 50, "elbo")], 1) for row in draws]
    covered = np.mean([f.ci_low <= 50 / BITS <= f.ci_high for f in found])
    assert 0.92 < covered < 0.97


@pytest.mark.parametrize("batch_size", [2, 5, 100])
def test_a_model_is_scored_over_all_images(batch_size: int) -> None:
    model, (images, _) = random_model("diffusion"), tiny_data(7)
    scored = score_likelihood(
        model, images, generator=torch.Generator().manual_seed(0), batch_size=batch_size
    )
    direct = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(0)).log_likelihood
    found = scored.likelihood
    assert found.n_images == len(scored.images) == 7 and scored.images.dtype == np.uint8
    assert scored.log_likelihood == pytest.approx(direct.numpy(), rel=1e-4)
    assert found.bits_per_dim == pytest.approx(float(-direct.mean()) / (64 * BITS), rel=1e-4)
    assert sum(found.parts.values()) == pytest.approx(found.bits_per_dim)
    assert found.self_check and found.self_check_passed is not None


def test_a_bound_that_is_not_finite_is_missing() -> None:
    model, (images, _) = random_model("vqvae"), tiny_data(4)
    with torch.no_grad():
        model.prior.transformer.head.bias.fill_(float("nan"))
    bound = model.log_likelihood_bound(images, generator=torch.Generator())
    assert summarise([bound], 64) == missing("the bound is not finite", "two-part code")
