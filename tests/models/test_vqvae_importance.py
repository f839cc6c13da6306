"""The importance-weighted bound: a known proposal, an unbiased ratio, and a bound that rises with every sample."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from models.base import image_generators, to_float
from models.vqvae import family
from models.vqvae.family import CodeFamily
from models.vqvae.importance import (
    TEMPERATURES,
    Proposal,
    code_table,
    neighbour_distance,
    num_samples,
    propose,
)
from models.vqvae.maskgit import MaskGIT
from models.vqvae.model import VQVAE
from models.vqvae.oracles import decoded_log_prob, enumerated_log_prob, every_grid, expected_weighted_bound
from tests.models.tiny import random_model, randomised, tiny_data

HOT = 4.0  # so that every code is drawn


def tiny(kind: type[CodeFamily] = VQVAE) -> CodeFamily:
    """Two code positions of four codes each."""
    torch.manual_seed(0)
    steps = {"num_steps": 2, "choice_temperature": 1.0} if kind is MaskGIT else {}
    model = kind(
        image_shape=(1, 2, 4), num_classes=2, levels=(2, 2), downsample=2, width=8, autoencoder_share=0.5,
        prior_dim=32, prior_depth=1, batch_size=4, lr=1e-3, ema_half_life=100, label_dropout=0.1, **steps,
    )  # fmt: skip
    model.proposal_temperature = HOT
    return randomised(model, 0.15)


def images(n: int = 3) -> Tensor:
    return torch.randint(100, 150, (n, 1, 2, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def weighted(model: CodeFamily, image: Tensor, n: int, k: int) -> Tensor:
    """n bounds from k samples each of one image."""
    many = image.expand(n, -1, -1, -1)
    generators = image_generators(n, torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return model.importance_sampler().weigh(many, generators, temperature=HOT, num_samples=k).bound


# The proposal.


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_it_is_a_distribution_around_the_code_that_is_sent(temperature: float) -> None:
    model, x = random_model("vqvae"), tiny_data(5)[0]
    proposal = propose(model.autoencoder, to_float(x), temperature)
    assert proposal.log_probabilities.shape == (5, 16, 6) and proposal.mass_error < 1e-9
    assert torch.equal(proposal.log_probabilities.argmax(-1), model.encode(x))


def test_near_temperature_0_it_is_the_code_that_is_sent() -> None:
    model, x = random_model("vqvae"), tiny_data(5)[0]
    generators = image_generators(5, torch.Generator().manual_seed(0))
    found = model.importance_sampler().weigh(x, generators, temperature=1e-12, num_samples=3)
    plain = model.log_likelihood_bound(x, generator=torch.Generator())
    torch.testing.assert_close(found.bound, plain.log_likelihood)
    torch.testing.assert_close(found.parts["bits back"], torch.zeros(5).double(), rtol=0, atol=1e-6)


def test_distances_are_those_between_what_is_rounded_and_the_codes() -> None:
    """By hand: softmax of -(|z - c|^2 - |z - c*|^2) / (temperature times the squared distance of neighbours)."""
    model, x = random_model("vqvae"), tiny_data(2)[0]
    quantizer, z_e = model.autoencoder.quantizer, model.autoencoder.encode(to_float(x))
    points, table = quantizer.in_code_space(z_e).flatten(1, 2), code_table(quantizer, x.device)
    found = propose(model.autoencoder, to_float(x), 0.5).log_probabilities
    # levels (3, 2): codes lie at -1, 0, 1 and at -1, 0; the nearest other one is at distance 1
    assert float(neighbour_distance(table)) == 1
    squared = ((points[:, :, None] - table) ** 2).sum(-1).double()
    torch.testing.assert_close(found, (-squared / 0.5).log_softmax(-1), rtol=0, atol=1e-5)


def test_draws_follow_it() -> None:
    proposal = Proposal(torch.tensor([[[0.2, 0.3, 0.5], [0.7, 0.0, 0.3]]], dtype=torch.float64).log())
    n = 20_000
    many = Proposal(proposal.log_probabilities.expand(n, -1, -1))
    drawn = many.draw(torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    seen = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9).double()
    grids = torch.tensor(list(itertools.product(range(3), repeat=2)))
    expected = n * Proposal(proposal.log_probabilities.expand(9, -1, -1)).log_prob(grids).exp()
    assert seen[expected == 0].sum() == 0
    seen, expected = seen[expected > 0], expected[expected > 0]
    assert float(((seen - expected) ** 2 / expected).sum()) < 20.5  # 99.9 % quantile with 5 degrees of freedom


# The bound.


@pytest.mark.parametrize("kind", [VQVAE, MaskGIT])
def test_the_ratio_is_unbiased(kind: type[CodeFamily]) -> None:
    model, n = tiny(kind), 6000
    for image in images(2):
        exact = enumerated_log_prob(model, image[None])
        assert exact.prior_mass == pytest.approx(1, abs=1e-5)
        ratio = (weighted(model, image, n, 1) - exact.log_prob).exp()
        assert float(ratio.std()) > 0.1
        assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / n**0.5)


def test_its_mean_is_that_over_all_tuples_of_codes() -> None:
    model, image, n = tiny(), images(1), 6000
    for k in (1, 2, 3):
        expected = float(expected_weighted_bound(model, image, k))
        found = weighted(model, image[0], n, k)
        assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / n**0.5)


def test_it_rises_with_every_sample_and_stays_below_the_likelihood() -> None:
    model, x = tiny(), images()
    rising = [expected_weighted_bound(model, x, k) for k in (1, 2, 3)]
    exact = enumerated_log_prob(model, x).log_prob
    for lower, higher in itertools.pairwise([*rising, exact]):
        assert (higher > lower + 1e-3).all()


@pytest.mark.parametrize("kind", [VQVAE, MaskGIT])
def test_many_samples_come_near_the_likelihood(kind: type[CodeFamily]) -> None:
    model, x = tiny(kind), images(1)
    exact = float(enumerated_log_prob(model, x).log_prob)
    found = [weighted(model, x[0], 300, k) for k in (1, 16, 128)]
    gaps = [exact - float(bounds.mean()) for bounds in found]
    errors = [float(bounds.std()) / 300**0.5 for bounds in found]
    assert gaps[0] > 4 * errors[0]
    assert all(gap > -4 * error for gap, error in zip(gaps, errors, strict=True))
    for (wide, one), (narrow, other) in itertools.pairwise(zip(gaps, errors, strict=True)):
        assert narrow < wide + 4 * math.hypot(one, other)
    assert abs(gaps[2]) < 0.1 * gaps[0]


def test_every_code_once_is_enough_to_enumerate() -> None:
    """E w = sum_z q(z) p(z) p(x | z) / q(z) = p(x), by the proposal's own probabilities of all sixteen grids."""
    model, x = tiny(), images(1)
    grids = every_grid(model)
    proposal = propose(model.autoencoder, to_float(x), HOT)
    log_q = Proposal(proposal.log_probabilities.expand(len(grids), -1, -1)).log_prob(grids)
    assert float(log_q.exp().sum()) == pytest.approx(1)
    with torch.no_grad():
        log_p = model.prior.log_prob(grids, torch.full((len(grids),), 2)).double()
        log_p += decoded_log_prob(model, grids, x)[0]
    total = (log_q.exp() * (log_p - log_q).exp()).sum().log()
    assert float(total) == pytest.approx(float(enumerated_log_prob(model, x).log_prob), abs=1e-9)


# As the model gives it.


def test_parts_settings_and_cost() -> None:
    for name, samples, evaluations in (("vqvae", 64, 1), ("maskgit", 8, 16)):
        model, x = random_model(name), tiny_data(3)[0]
        assert num_samples(model.prior) == samples
        bound = model.log_likelihood_bound(x, generator=torch.Generator().manual_seed(0), kind="importance-weighted")
        assert bound.settings == {"codes": "4 x 4 of 6", "samples": samples, "temperature": 1 / 8}
        assert set(bound.parts) == {"code", "pixels", "bits back"}
        assert bound.nfe is not None and set(bound.nfe.tolist()) == {1 + samples * (1 + evaluations)}


def test_calibration_takes_the_temperature_with_the_highest_bound() -> None:
    model, x = tiny(), images(20)
    generator = torch.Generator().manual_seed(3)
    bounds = {}
    for temperature in TEMPERATURES:
        own = image_generators(8, generator.clone_state())
        with torch.no_grad():
            found = model.importance_sampler().weigh(x[:8], own, temperature=temperature, num_samples=8)
        bounds[temperature] = float(found.bound.mean())
    model.calibrate_likelihood(x, generator=generator)
    assert bounds[model.proposal_temperature] == max(bounds.values()) > min(bounds.values())


def test_the_self_check_holds_and_notices_a_proposal_that_is_no_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = random_model("vqvae"), tiny_data(4)[0]

    def check() -> tuple[bool, str]:
        found = model.check_likelihood(x, kind="importance-weighted", generator=torch.Generator())
        return found.passed, found.text

    assert check()[0] and "drawn codes over the codebook" in check()[1]
    monkeypatch.setattr(family, "propose", lambda *args: Proposal(propose(*args).log_probabilities + 0.001))
    assert not check()[0]


def test_several_grids_have_no_weighted_codes_and_say_so() -> None:
    model = random_model("vqvae")
    model.autoencoder.grids = ((2, 2), (4, 4))
    model.settle(model.autoencoder, model.prior)
    assert model.likelihood_kinds == ("two-part code",) and model.slow_likelihood_kinds == ()
    with pytest.raises(ValueError, match="'importance-weighted' needs one grid of codes, and this model has 2"):
        model.log_likelihood_bound(tiny_data(1)[0], generator=torch.Generator(), kind="importance-weighted")
    model.calibrate_likelihood(tiny_data(1)[0], generator=torch.Generator())
    assert model.proposal_temperature == 1 / 8
