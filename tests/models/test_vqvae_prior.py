"""The autoregressive prior: causal, normalised, and the same with and without its cache."""

from __future__ import annotations

import itertools

import pytest
import torch

from models.nets.transformer import Transformer
from models.vqvae.autoencoder import Autoencoder
from models.vqvae.fsq import FSQ
from models.vqvae.prior import AutoregressivePrior
from tests.models.tiny import random_model, randomised, tiny_data, tiny_model

T, CODES, CLASSES = 5, 6, 3


@pytest.fixture
def prior() -> AutoregressivePrior:
    torch.manual_seed(0)
    network = AutoregressivePrior(codebook_size=CODES, num_codes=T, num_classes=CLASSES, dim=64, depth=2)
    return randomised(network, 0.3).requires_grad_(False)


def codes(n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(CODES, (n, T), generator=generator)
    return indices, torch.arange(n) % (CLASSES + 1)


@pytest.mark.parametrize("position", range(T))
def test_a_later_index_does_not_change_earlier_logits(prior: AutoregressivePrior, position: int) -> None:
    indices, labels = codes()
    changed = indices.clone()
    changed[:, position] = (changed[:, position] + 1) % CODES
    before, after = prior.logits(indices, labels), prior.logits(changed, labels)
    torch.testing.assert_close(before[:, : position + 1], after[:, : position + 1])
    if position < T - 1:
        assert ((before - after)[:, position + 1 :].abs().amax((1, 2)) > 1e-3).all()


def test_the_label_reaches_every_position(prior: AutoregressivePrior) -> None:
    indices, labels = codes()
    difference = prior.logits(indices, labels) - prior.logits(indices, (labels + 1) % CLASSES)
    assert (difference.abs().amax(-1) > 1e-5).all()


def test_log_prob_is_the_sum_over_steps(prior: AutoregressivePrior) -> None:
    indices, labels = codes()
    total = torch.zeros(len(indices))
    for t in range(T):  # what comes after t is replaced by anything
        prefix = torch.cat([indices[:, :t], torch.zeros_like(indices[:, t:])], dim=1)
        step = prior.logits(prefix, labels)[:, t].log_softmax(-1)
        total += step.gather(1, indices[:, t : t + 1]).squeeze(1)
    torch.testing.assert_close(prior.log_prob(indices, labels), total)


def test_it_is_normalised_over_all_grids() -> None:
    torch.manual_seed(0)
    small = randomised(AutoregressivePrior(codebook_size=3, num_codes=4, num_classes=2, dim=32, depth=1), 0.3)
    everything = torch.tensor(list(itertools.product(range(3), repeat=4)))
    with torch.no_grad():
        total = small.log_prob(everything, torch.zeros(81, dtype=torch.int64)).double().exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-6)


def test_the_cache_changes_nothing(prior: AutoregressivePrior) -> None:
    labels = torch.arange(64) % (CLASSES + 1)
    uniform = torch.rand(64, T, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(prior.sample(labels, uniform), prior.sample(labels, uniform, cached=False))


def test_the_models_option_for_the_cache_changes_nothing() -> None:
    model = random_model("vqvae")
    images = [
        model.sample(6, generator=torch.Generator().manual_seed(0), cached=cached).images for cached in (True, False)
    ]
    assert (images[0].int() - images[1].int()).abs().max() <= 1


def test_samples_follow_the_distribution(prior: AutoregressivePrior) -> None:
    """First two indices of 20,000 draws against their exact probabilities, by a chi-squared statistic."""
    n = 20_000
    small = AutoregressivePrior(codebook_size=3, num_codes=2, num_classes=1, dim=32, depth=1)
    small = randomised(small, 0.3).requires_grad_(False)
    uniform = torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = small.sample(torch.zeros(n, dtype=torch.int64), uniform)
    seen = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9)
    grid = torch.tensor(list(itertools.product(range(3), repeat=2)))
    expected = n * small.log_prob(grid, torch.zeros(9, dtype=torch.int64)).exp()
    assert float(((seen - expected) ** 2 / expected).sum()) < 26.1  # 99.9 % quantile with 8 degrees of freedom


def test_noise_at_its_ends_gives_valid_indices(prior: AutoregressivePrior) -> None:
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)[:, None].expand(2, T)
    drawn = prior.sample(torch.zeros(2, dtype=torch.int64), ends)
    assert drawn.min() >= 0 and drawn.max() < CODES


def test_transformer_starts_without_mixing_positions_and_refuses_odd_widths() -> None:
    torch.manual_seed(0)
    network = Transformer(dim=32, depth=2, length=7, head=torch.nn.Linear(32, 3))
    x = torch.randn(2, 7, 32)
    assert network(x).shape == (2, 7, 3)
    other = x.clone()
    other[:, 2] += 1
    changed = (network(x) != network(other)).any(-1)
    assert changed[:, 2].all() and changed.sum() == 2
    with pytest.raises(ValueError, match="divisible by 32, not 48"):
        Transformer(dim=48, depth=1, length=7, head=torch.nn.Linear(48, 3))


@pytest.mark.parametrize("downsample", [2, 4, 8])
def test_the_autoencoder_has_one_code_per_patch(downsample: int) -> None:
    network = Autoencoder((3, 16, 8), width=8, downsample=downsample, quantizer=FSQ((3, 3)))
    z_e = network.encode(torch.randn(2, 3, 16, 8))
    assert z_e.shape == (2, 2, 16 // downsample, 8 // downsample)
    assert network.decode(network.quantizer.quantize(z_e).z_q).shape == (2, 3 * 4 * 3, 16, 8)


@pytest.mark.parametrize("downsample", [0, 1, 3, 6])
def test_other_patches_are_refused(downsample: int) -> None:
    with pytest.raises(ValueError, match=f"power of two of at least 2, not {downsample}"):
        Autoencoder((1, 8, 8), width=8, downsample=downsample, quantizer=FSQ((3,)))


def test_a_patch_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="downsample 16 does not divide the image size 8x8"):
        tiny_model("vqvae", downsample=16)


def test_the_frozen_stage_hands_over_the_codes_of_the_images() -> None:
    model = random_model("vqvae")
    images, _ = tiny_data(6)
    indices = model.stages()[1].precompute(images)["indices"]
    assert indices.shape == (6, model.prior.num_codes) and indices.dtype == torch.int64
    one = torch.cat([model.encode(images[i : i + 1]) for i in range(6)])
    assert (one == indices).float().mean() > 0.95
