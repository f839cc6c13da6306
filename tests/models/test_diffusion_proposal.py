"""The learned proposal: expectations stay those of the given law, mass moves to where losses vary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from models.diffusion.edm import P_MEAN, P_STD, SIGMA_MAX, SIGMA_MIN, UNIFORM_SHARE
from models.diffusion.proposal import GIVEN_SHARE, MEMORY, NUM_BINS, LearnedProposal, bin_masses
from tests.models.tiny import tiny_data, tiny_model

LOW, HIGH = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
GIVEN = bin_masses(LOW, HIGH, P_MEAN, P_STD, UNIFORM_SHARE)
WIDTH = (HIGH - LOW) / NUM_BINS


def proposal(learned: bool = True) -> LearnedProposal:
    found = LearnedProposal(LOW, HIGH, GIVEN)
    if learned:
        found.moment.copy_(torch.where(torch.arange(NUM_BINS) % 16 < 10, 100.0, 0.01))
    return found


def test_masses_of_the_given_law_by_scipy() -> None:
    edges = np.linspace(LOW, HIGH, NUM_BINS + 1)
    normal = np.diff(stats.norm.cdf(edges, P_MEAN, P_STD))
    expected = (1 - UNIFORM_SHARE) * normal / normal.sum() + UNIFORM_SHARE / NUM_BINS
    np.testing.assert_allclose(GIVEN, expected, rtol=1e-9)
    assert GIVEN.dtype == torch.float64 and float(GIVEN.sum()) == pytest.approx(1)


def test_before_anything_is_learned_it_is_the_given_law() -> None:
    torch.testing.assert_close(proposal(learned=False).masses(), GIVEN.float())
    assert bool((proposal(learned=False).draw(50)[1] - 1).abs().max() < 1e-5)


def test_a_learned_law_is_a_law() -> None:
    masses = proposal().masses()
    assert float(masses.sum()) == pytest.approx(1, abs=1e-6)
    assert bool((masses >= GIVEN_SHARE * GIVEN * (1 - 1e-6)).all()), "no weight exceeds 1 / GIVEN_SHARE"
    assert float((masses - GIVEN.float()).abs().sum()) > 0.5
    root = proposal().moment.sqrt() * GIVEN.float()
    torch.testing.assert_close(masses, 0.25 * GIVEN.float() + 0.75 * root / root.sum())


def test_draws_follow_the_law_and_are_uniform_within_bins() -> None:
    torch.manual_seed(0)
    law, n = proposal(), 200_000
    log_sigma, weight = law.draw(n)
    assert log_sigma.shape == weight.shape == (n,)
    place = (log_sigma.double() - LOW) / WIDTH
    index = place.long().clamp(0, NUM_BINS - 1)
    shares = torch.bincount(index, minlength=NUM_BINS) / n
    torch.testing.assert_close(shares, law.masses().detach(), rtol=0, atol=5e-5)
    assert stats.kstest((place - index).numpy(), "uniform").statistic < 3e-3
    torch.testing.assert_close(weight, (law.given / law.masses())[index])
    assert abs(float(np.corrcoef(place[1:], place[:-1])[0, 1])) < 0.01, "in random order"


@pytest.mark.parametrize("seed", range(3))
def test_weighted_expectations_are_those_of_the_given_law(seed: int) -> None:
    """E_proposal[weight f(ln sigma)] = E_given[f], for a rough f, against quadrature bin by bin."""
    def f(log_sigma: np.ndarray) -> np.ndarray:
        phase = (log_sigma - LOW) / WIDTH / 16  # large where the proposal draws often, and rough within bins
        return np.sin(9 * log_sigma) + 3 * np.cos(2 * math.pi * (phase - 5 / 16)) + 4

    truth = sum(
        float(mass) * integrate.quad(f, LOW + i * WIDTH, LOW + (i + 1) * WIDTH)[0] / WIDTH
        for i, mass in enumerate(GIVEN)
    )
    torch.manual_seed(seed)
    n = 100_000
    log_sigma, weight = proposal().draw(n)
    products = weight.double().numpy() * f(log_sigma.double().numpy())
    error = products.std() / math.sqrt(n)  # that of independent draws; stratified ones err less
    assert error < 0.01 * truth
    assert abs(products.mean() - truth) < 2 * error
    plain = f(log_sigma.double().numpy()).mean()
    assert abs(plain - truth) > 20 * error, "without weights it would be another law"


def test_small_batches_are_unbiased_too() -> None:
    torch.manual_seed(0)
    law = proposal()
    means = torch.stack([law.draw(8)[1].mean() for _ in range(4000)])
    assert float(means.mean()) == pytest.approx(1, abs=4 * float(means.std()) / math.sqrt(4000))
    assert float(law.draw(1)[0]) >= LOW


def test_mass_moves_to_where_losses_are_large() -> None:
    torch.manual_seed(0)
    law, noisy = proposal(learned=False), NUM_BINS // 2
    for _ in range(300):
        log_sigma, _ = law.draw(64)
        index = ((log_sigma - LOW) / WIDTH).long()
        law.learn(log_sigma, torch.where(index == noisy, 6.0, 1.0))
    ratio = law.masses() / law.given
    assert int(ratio.argmax()) == noisy and float(ratio[noisy]) > 3
    others = torch.cat([ratio[:noisy], ratio[noisy + 1 :]])
    assert float(others.max()) < 1 and float(others.std()) < 0.01


def test_learning_by_hand() -> None:
    law = proposal(learned=False)
    before = law.moment.clone()
    centres = LOW + (torch.tensor([3, 3, 7]) + 0.5) * WIDTH
    law.learn(centres, torch.tensor([2.0, 4.0, 5.0]))
    expected = before.clone()
    expected[3] = MEMORY * before[3] + (1 - MEMORY) * (4 + 16) / 2
    expected[7] = MEMORY * before[7] + (1 - MEMORY) * 25
    torch.testing.assert_close(law.moment, expected)
    law.learn(torch.tensor([LOW - 1.0, HIGH + 1.0]), torch.ones(2))  # beyond the ends: the outermost bins
    assert bool(law.moment.isfinite().all())


@pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")
def test_what_is_learned_is_saved_with_the_stage() -> None:
    """In the state of the stage, which is resumed; the network that samples knows nothing of it."""
    model = tiny_model("diffusion", proposal="learned")
    stage = model.stages()[0]
    assert "proposal.moment" in stage.state_dict() and not any("moment" in k for k in model.state_dict())
    images, labels = tiny_data(16)
    torch.manual_seed(0)
    before = stage.proposal.moment.clone()
    loss = stage.training_step({"image": images, "label": labels}, 0)
    loss.backward()
    assert not torch.equal(before, stage.proposal.moment) and not stage.proposal.moment.requires_grad
    assert float(loss.detach()) == pytest.approx(1, abs=0.7)
    assert tiny_model("diffusion", proposal="log-normal").stages()[0].proposal is None
