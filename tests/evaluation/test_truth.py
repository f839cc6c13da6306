"""What the known density says: of true draws, of lost modes, of blurred samples, of honest bounds and of cheats."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import known_density
from datamodules.base import ImageDataset
from evaluation.likelihood.bits import ScoredBound, missing, score_likelihood, summarise
from evaluation.modes import coverage_floor, mode_coverage
from evaluation.record import BoundGap, Likelihood
from evaluation.truth import CHANCE_NATS, bound_gap, caught, measure_truth
from models.base import GenerativeModel, LikelihoodBound, Samples, Stage
from models.vqvae.model import VQVAE
from tests.models.tiny import tiny_model

NATS_PER_BIT = 64 * math.log(2)
N = 400


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    return known_density.load(known_density.Config())


@pytest.fixture(scope="module")
def density(data: ImageDataset) -> known_density.TemplateMixture:
    assert isinstance(data.density, known_density.TemplateMixture)
    return data.density


class OnlyLikelihood(GenerativeModel):
    """A model that has nothing but a likelihood, given as a function of uint8 images."""

    likelihood_kinds = ("exact",)
    image_shape = (1, 8, 8)
    num_classes = 10

    def __init__(self, log_likelihood: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.log_likelihood = log_likelihood

    def stages(self) -> list[Stage]:
        return []

    def sample(self, n: int, *, condition: Any = None, generator: Any, **sampler_options: Any) -> Samples:
        return Samples(torch.zeros(n, *self.image_shape, dtype=torch.uint8), 0)

    def log_likelihood_bound(
        self, images: Tensor, *, generator: torch.Generator, kind: str | None = None
    ) -> LikelihoodBound:
        return LikelihoodBound(self.log_likelihood(images), self.likelihood_kind(kind))


def gap_of(log_likelihood: Callable[[Tensor], Tensor], data: ImageDataset) -> BoundGap:
    """The gap on the first test images, through the exam's own scoring."""
    images = torch.from_numpy(data.test.images[:N])
    model = OnlyLikelihood(log_likelihood)
    bound = score_likelihood(model, images, generator=torch.Generator().manual_seed(0), batch_size=150)
    (gap,) = measure_truth(data.density, data.test.images[:50], [bound]).gaps
    assert gap == bound_gap(data.density, bound)
    return gap


def pixel_logistics(data: ImageDataset) -> tuple[Tensor, Tensor]:
    """Mean and scale of a logistic distribution per pixel, by moments, grey levels, (1, 8, 8)."""
    pixels = torch.from_numpy(data.train.images).double()
    return pixels.mean(0), pixels.std(0) * math.sqrt(3) / math.pi


def test_true_draws_cost_the_entropy_and_reach_what_can_be_reached(density: known_density.TemplateMixture) -> None:
    truth = measure_truth(density, density.sample(2_000, seed=99), [])
    assert truth.entropy == pytest.approx(density.entropy()[0] / NATS_PER_BIT)
    assert abs(truth.cross_entropy - truth.entropy) < 4 * truth.cross_entropy_error
    assert truth.modes == 1_000 and truth.gaps == ()
    assert abs(truth.modes_reached - truth.modes_reached_floor) < 40
    assert truth.mode_distance == pytest.approx(truth.mode_distance_floor, abs=0.03)


@pytest.mark.parametrize("n", [100, 2_000])
def test_the_floor_is_that_of_balls_in_bins(density: known_density.TemplateMixture, n: int) -> None:
    reached, distance, _ = coverage_floor(density, n)
    k = density.num_modes
    expected = k * (1 - (1 - 1 / k) ** n)
    # E|X/n - 1/k| for X ~ Binomial(n, 1/k), by de Moivre's formula for the mean absolute deviation.
    m = math.floor(n / k) + 1
    deviation = 2 * m * math.comb(n, m) * (1 / k) ** m * (1 - 1 / k) ** (n - m + 1)
    spread = math.sqrt(k * n / k * math.exp(-n / k))  # above the deviation of the number reached
    assert abs(reached - expected) < 4 * spread / math.sqrt(10)
    assert distance == pytest.approx(k * deviation / n / 2, abs=0.01)


def test_lost_modes_show_in_the_histogram_and_not_in_the_cross_entropy(
    density: known_density.TemplateMixture,
) -> None:
    rng = np.random.Generator(np.random.PCG64(4))
    narrow = density.draw(rng.integers(0, 250, 2_000), rng)
    truth = measure_truth(density, narrow, [])
    assert truth.modes_reached <= 250 and truth.modes_reached_floor > 800
    assert truth.mode_distance > 0.74 > truth.mode_distance_floor  # three quarters of the weight are missing
    assert abs(truth.cross_entropy - truth.entropy) < 0.1


def test_unlikely_samples_show_in_the_cross_entropy(density: known_density.TemplateMixture) -> None:
    drawn = density.sample(500, seed=1)
    noisy = (drawn + np.random.default_rng(0).normal(0, 40, drawn.shape)).clip(0, 255).astype(np.uint8)
    truth = measure_truth(density, noisy, [])
    assert truth.cross_entropy > truth.entropy + 50 * truth.cross_entropy_error
    # The centres of the modes are likelier than any draw: below the entropy, the lack of noise shows.
    centres = known_density.LEVELS[density.templates].astype(np.uint8).reshape(-1, 1, 8, 8)
    assert measure_truth(density, centres, []).cross_entropy < truth.entropy - 0.5


def test_mode_histogram_by_hand(density: known_density.TemplateMixture) -> None:
    rng = np.random.Generator(np.random.PCG64(4))
    images = density.draw(np.array([3, 3, 3, 8]), rng)
    reached, distance, _ = mode_coverage(density, images)
    assert reached == 2
    assert distance == pytest.approx((0.75 - 0.001) + (0.25 - 0.001))


def test_the_truth_itself_is_not_caught(data: ImageDataset) -> None:
    gap = gap_of(lambda x: torch.from_numpy(data.density.log_prob(x.numpy())), data)
    assert gap.kind == "exact" and gap.n_images == N
    assert gap.gap == pytest.approx(0, abs=1e-12)
    assert caught(gap) is None


def test_a_normalised_model_of_independent_pixels_is_not_caught(data: ImageDataset) -> None:
    counts = np.stack([np.bincount(p, minlength=256) for p in data.train.images.reshape(-1, 64).T]) + 1
    log_pmf = torch.from_numpy(np.log(counts / counts.sum(1, keepdims=True)))

    def log_likelihood(images: Tensor) -> Tensor:
        return log_pmf[torch.arange(64), images.flatten(1).long()].sum(1)

    gap = gap_of(log_likelihood, data)
    assert gap.gap > 1 and gap.gap > 50 * gap.standard_error  # 5.9 bits/dim against 4.5
    assert caught(gap) is None


def test_densities_given_out_as_probabilities_are_caught(data: ImageDataset) -> None:
    """Densities over [-1, 1] instead of over bins of 2/255, and a distribution that was never normalised."""
    mean, scale = pixel_logistics(data)

    def density_not_mass(images: Tensor) -> Tensor:
        z = (images.double() - mean) / scale
        log_density = -z - torch.log(scale / 127.5) - 2 * torch.nn.functional.softplus(-z)
        return log_density.flatten(1).sum(1)

    def unnormalised(images: Tensor) -> Tensor:
        return -((images.double() - mean) / scale).square().flatten(1).sum(1) / 2

    for cheat in (density_not_mass, unnormalised):
        gap = gap_of(cheat, data)
        sentence = caught(gap)
        assert gap.gap < -1 and sentence is not None
        assert f"{-gap.gap:.4f}" in sentence and "no valid bound" in sentence and "\n" not in sentence

    def mass(images: Tensor) -> Tensor:  # the same law, the bins' widths heeded
        return density_not_mass(images) - 64 * math.log(127.5)

    assert caught(gap_of(mass, data)) is None


@pytest.mark.parametrize("excess", [0.001, 0.01])
def test_a_slight_cheat_of_the_truth_is_caught(data: ImageDataset, excess: float) -> None:
    def a_little_more(images: Tensor) -> Tensor:
        return torch.from_numpy(data.density.log_prob(images.numpy())) + excess * NATS_PER_BIT

    gap = gap_of(a_little_more, data)
    assert gap.gap == pytest.approx(-excess)
    assert caught(gap) is not None


def test_a_valid_model_that_leaves_out_what_was_not_seen_is_not_caught(
    data: ImageDataset, density: known_density.TemplateMixture
) -> None:
    """Without one of 1,000 components a model is normalised, better on all images that are not of it, and steady."""
    images = data.test.images[:N]
    unseen = int(np.setdiff1d(np.arange(density.num_modes), density.mode(images))[0])
    others = known_density.TemplateMixture(
        np.delete(density.templates, unseen, axis=0).reshape(-1, 1, 8, 8), density.log_pmf
    )
    bound = ScoredBound(Likelihood(4.5, 4.4, 4.6, "exact"), images, others.log_prob(images))
    gap = bound_gap(density, bound)
    differences = density.log_prob(images) - bound.log_likelihood
    assert gap.gap < 0 and differences.std() / math.sqrt(N) < 1e-3 * abs(differences.mean()), "3 errors would tell"
    assert gap.standard_error == pytest.approx(CHANCE_NATS / (3 * N * NATS_PER_BIT))
    assert caught(gap) is None


def test_paired_error_by_hand(density: known_density.TemplateMixture) -> None:
    images = density.sample(3, seed=8)
    log_p = density.log_prob(images)
    bound = ScoredBound(Likelihood(5, 4, 6, "elbo"), images, log_p - np.array([1.0, 2.0, 6.0]) * NATS_PER_BIT)
    gap = bound_gap(density, bound)
    assert (gap.kind, gap.n_images) == ("elbo", 3)
    assert gap.gap == pytest.approx(3)
    assert gap.standard_error == pytest.approx(math.sqrt(7 / 3))


def test_the_rule_is_three_errors() -> None:
    assert caught(BoundGap("elbo", -0.299, 0.1, 100)) is None
    assert caught(BoundGap("elbo", 0.5, 0.1, 100)) is None
    sentence = caught(BoundGap("elbo", -0.301, 0.1, 1_234))
    assert sentence is not None and "'elbo'" in sentence and "0.3010 ± 0.1000 bits/dim" in sentence
    assert "1,234 images" in sentence


def test_a_bound_that_is_not_there_has_no_gap(density: known_density.TemplateMixture) -> None:
    images = density.sample(4, seed=0)
    bound = ScoredBound(missing("the bound is not finite", "elbo"), images, np.full(4, -np.inf))
    assert measure_truth(density, images, [bound]).gaps == ()
    with pytest.raises(ValueError, match="at least 2"):
        measure_truth(density, images[:1], [])


class DensityDecoder(VQVAE):
    """A VQ-VAE whose decoder gives the density over [-1, 1] for the probability of a level, 2/255 wide."""

    def log_likelihood_bound(self, images: Tensor, **options: Any) -> LikelihoodBound | None:
        bound = super().log_likelihood_bound(images, **options)
        assert bound is not None
        return replace(bound, log_likelihood=bound.log_likelihood + 64 * math.log(255 / 2))


def test_a_vqvae_with_an_unnormalised_decoder_is_caught_and_the_honest_one_is_not(data: ImageDataset) -> None:
    options = dict(tiny_model("vqvae").hparams)
    images = data.test.images[:N]
    sentences = []
    for kind in (VQVAE, DensityDecoder):
        torch.manual_seed(0)
        model = kind(**options).eval()
        bound = model.log_likelihood_bound(torch.from_numpy(images), generator=torch.Generator().manual_seed(0))
        scored = ScoredBound(summarise([bound], 64), images, bound.log_likelihood.detach().double().numpy())
        (gap,) = measure_truth(data.density, images, [scored]).gaps
        assert gap.kind == bound.kind
        sentences.append(caught(gap))
    assert sentences[0] is None
    assert sentences[1] is not None and f"the bound {gap.kind!r} claims" in sentences[1]
