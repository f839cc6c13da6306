"""The masked prior: it sees what is visible only, its any-order bound holds, and few steps draw what they should."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from models.base import image_generators
from models.nets.transformer import Transformer
from models.vqvae import masked_prior
from models.vqvae.code_prior import UNKNOWN
from models.vqvae.drawing import Truncation
from models.vqvae.masked_prior import MaskedPrior, mask_shares, places, remaining
from models.vqvae.oracles import exact_log_prior, order_log_probs
from tests.models.tiny import random_model, randomised, tiny_data

T, CODES, CLASSES = 4, 3, 2


@pytest.fixture
def prior() -> MaskedPrior:
    torch.manual_seed(0)
    network = MaskedPrior(codebook_size=CODES, num_codes=T, num_classes=CLASSES, dim=32, depth=2)
    return randomised(network, 0.15).requires_grad_(False)


def generators(n: int, seed: int = 0) -> list[torch.Generator]:
    return image_generators(n, torch.Generator().manual_seed(seed))


def everything() -> tuple[Tensor, Tensor]:
    """All 81 grids, without a label."""
    grids = torch.tensor(list(itertools.product(range(CODES), repeat=T)))
    return grids, torch.full((len(grids),), CLASSES)


def noise(n: int, steps: int, seed: int = 0) -> Tensor:
    return torch.rand(n, steps, 2, T, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# What it sees.


@pytest.mark.parametrize("place", range(T))
def test_a_visible_code_changes_every_prediction_and_a_hidden_one_none(prior: MaskedPrior, place: int) -> None:
    indices, labels = torch.zeros(2, T, dtype=torch.int64), torch.tensor([0, 2])
    other = indices.clone()
    other[:, place] = 1
    hidden = torch.zeros(2, T, dtype=torch.bool)
    seen = prior.logits(indices, hidden, labels) - prior.logits(other, hidden, labels)
    assert (seen.abs().amax(-1) > 1e-4).all()
    hidden[:, place] = True
    assert torch.equal(prior.logits(indices, hidden, labels), prior.logits(other, hidden, labels))


def test_the_label_reaches_every_place(prior: MaskedPrior) -> None:
    hidden = torch.ones(1, T, dtype=torch.bool)
    found = [prior.logits(torch.zeros_like(hidden, dtype=torch.int64), hidden, torch.tensor([k])) for k in range(3)]
    assert all((one - other).abs().amax(-1).gt(1e-4).all() for one, other in itertools.combinations(found, 2))


def test_only_a_causal_transformer_keeps_keys_and_values() -> None:
    with pytest.raises(ValueError, match="only a causal transformer can keep keys and values"):
        Transformer(dim=32, depth=1, length=3, head=nn.Linear(32, 2), causal=False).new_cache(1)


def test_a_causal_transformer_has_no_layers_that_see_all_positions() -> None:
    with pytest.raises(ValueError, match="a causal transformer cannot have layers that see all positions"):
        Transformer(dim=32, depth=1, length=3, head=nn.Linear(32, 2), local=lambda: nn.Linear(32, 32))


# The any-order bound.


def test_the_mixture_over_orders_is_a_distribution(prior: MaskedPrior) -> None:
    grids, labels = everything()
    assert float(exact_log_prior(prior, grids, labels).exp().sum()) == pytest.approx(1, abs=1e-6)
    each = order_log_probs(prior, grids, labels)
    assert each.shape == (math.factorial(T), len(grids))
    torch.testing.assert_close(each.exp().sum(1), torch.ones(len(each)).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("evaluations", [1, 3, 4, 16])
def test_the_estimates_mean_is_that_over_all_orders(
    prior: MaskedPrior, evaluations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_prior, "BOUND_EVALUATIONS", evaluations)
    n = 4000
    indices, labels = torch.tensor([[0, 2, 1, 1]]), torch.tensor([CLASSES])
    expected = float(order_log_probs(prior, indices, labels).mean())
    found = prior.log_prob(indices.expand(n, -1), labels.expand(n), generators(n))
    error = float(found.std()) / n**0.5
    assert error > 0 and float(found.mean()) == pytest.approx(expected, abs=4 * error)
    assert expected < float(exact_log_prior(prior, indices, labels)) - 0.01


def test_strata_leave_no_chance_to_the_number_of_visible_codes(
    prior: MaskedPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where conditionals depend on how many codes are hidden only, T evaluations give the mean over all n exactly."""
    monkeypatch.setattr(prior, "conditionals", lambda z, h, y: -(h.sum(1, keepdim=True) ** 2.0) * h)
    indices, labels = torch.zeros(50, T, dtype=torch.int64), torch.zeros(50, dtype=torch.int64)
    found = prior.log_prob(indices, labels, generators(50))
    torch.testing.assert_close(found, torch.full((50,), -float(1 + 4 + 9 + 16), dtype=torch.float64))
    monkeypatch.setattr(masked_prior, "BOUND_EVALUATIONS", 1)
    assert float(prior.log_prob(indices, labels, generators(50)).std()) > 1


def test_the_bound_holds_for_every_grid(prior: MaskedPrior) -> None:
    grids, labels = everything()
    gap = exact_log_prior(prior, grids, labels) - order_log_probs(prior, grids, labels).mean(0)
    assert (gap > -1e-9).all() and float(gap.max()) > 0.01


def test_one_path_is_unbiased(prior: MaskedPrior) -> None:
    n = 4000
    indices, labels = torch.tensor([[0, 2, 1, 1]]), torch.tensor([CLASSES])
    ratio = prior.path_log_prob(indices.expand(n, -1), labels.expand(n), generators(n))
    ratio = (ratio - exact_log_prior(prior, indices, labels)).exp()
    assert float(ratio.std()) > 0.01
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / n**0.5)


def test_only_what_is_asked_is_computed(prior: MaskedPrior) -> None:
    indices = torch.randint(prior.codebook_size, (3, T), generator=torch.Generator().manual_seed(0))
    hidden = torch.rand(3, T, generator=torch.Generator().manual_seed(1)) < 0.5
    labels = torch.arange(3) % CLASSES
    whole = prior.logits(indices, hidden, labels)
    torch.testing.assert_close(prior.logits(indices, hidden, labels, asked=hidden), whole[hidden])
    expected = whole.log_softmax(-1).gather(2, indices[..., None])[..., 0].masked_fill(~hidden, 0)
    torch.testing.assert_close(prior.conditionals(indices, hidden, labels), expected)
    nothing = prior.conditionals(indices, torch.zeros_like(hidden), labels)
    assert torch.equal(nothing, torch.zeros(3, T))


def test_orders_need_generators(prior: MaskedPrior) -> None:
    for ask in (prior.log_prob, prior.path_log_prob):
        with pytest.raises(ValueError, match="it needs a generator for every row"):
            ask(torch.zeros(1, T, dtype=torch.int64), torch.tensor([0]))


def test_the_self_check_notices_a_prior_that_peeks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (images, _) = random_model("maskgit"), tiny_data(10)
    logits = model.prior.logits

    def peeking(z: Tensor, h: Tensor, y: Tensor, asked: Tensor | None = None) -> Tensor:
        found = logits(z, h, y) + torch.nn.functional.one_hot(z, 6)
        return found if asked is None else found[asked]

    def check() -> tuple[bool, str]:
        found = model.check_likelihood(images, kind="two-part code", generator=torch.Generator())
        return found.passed, found.text

    assert check()[0] and "hidden codes seen by the prior" in check()[1]
    with monkeypatch.context() as patch:
        patch.setattr(model.prior, "logits", peeking)
        assert not check()[0]
    conditionals = model.prior.conditionals
    with monkeypatch.context() as patch:
        patch.setattr(model.prior, "conditionals", lambda z, h, y: conditionals(z, h, y) + 0.001 * h)
        assert not check()[0]


def test_the_settings_name_the_estimate() -> None:
    model, (images, _) = random_model("maskgit"), tiny_data(3)
    bound = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(0))
    assert bound.settings == {"codes": "4 x 4 of 6", "code": "any-order estimate, 16 evaluations"}
    assert bound.nfe is not None and bound.nfe.tolist() == [18, 18, 18]


# Training.


def test_half_of_the_masks_are_cosine_and_half_uniform() -> None:
    shares = mask_shares(torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    levels = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    cosine, uniform = ((part[:, None] <= levels).double().mean(0) for part in (shares[::2], shares[1::2]))
    torch.testing.assert_close(cosine, 1 - 2 / math.pi * levels.acos(), rtol=0, atol=1e-3)
    torch.testing.assert_close(uniform, levels, rtol=0, atol=1e-3)


def test_the_loss_of_uniform_masks_is_the_bound(prior: MaskedPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    """With uniform sizes alone the loss, in nats per code, is the any-order bound."""
    monkeypatch.setattr(masked_prior, "mask_shares", lambda uniform: uniform)
    n = 20_000
    indices, labels = torch.tensor([[0, 2, 1, 1]]), torch.tensor([CLASSES])
    torch.manual_seed(0)
    found = float(prior.loss(indices.expand(n, -1), labels.expand(n)))
    assert T * found == pytest.approx(-float(order_log_probs(prior, indices, labels).mean()), rel=0.02)


# Sampling.


@pytest.mark.parametrize("lacking", [1, 2, 7, 16, 49])
@pytest.mark.parametrize("steps", [1, 2, 8, 16, 32, 49])
def test_something_is_revealed_in_every_step_and_nothing_is_hidden_at_the_end(lacking: int, steps: int) -> None:
    own = min(steps, lacking)
    left, rows = lacking, torch.tensor([lacking])
    for s in range(1, own + 1):
        before, left = left, min(left - 1, int(remaining(s, torch.tensor([own]), rows)))
        assert 0 <= left < before and (left > 0) == (s < own)
    assert int(remaining(own + 3, torch.tensor([own]), rows)) == 0


def test_half_way_the_cosine_leaves_seven_tenths() -> None:
    assert remaining(4, torch.tensor([8]), torch.tensor([100])).tolist() == [70]


def test_places_are_ranks() -> None:
    assert places(torch.tensor([[0.3, 0.1, 0.9], [5.0, 6.0, 4.0]])).tolist() == [[1, 0, 2], [1, 2, 0]]


def test_one_by_one_in_random_order_it_draws_what_the_likelihood_says(prior: MaskedPrior) -> None:
    """As many steps as codes and a choice that is all noise: the mixture over orders, by a chi-squared statistic."""
    n = 20_000
    drawn = prior.sample(torch.full((n,), CLASSES), noise(n, T), num_steps=T, choice_temperature=1e9)
    seen = torch.bincount((drawn * CODES ** torch.arange(T - 1, -1, -1)).sum(1), minlength=CODES**T)
    grids, labels = everything()
    expected = n * exact_log_prior(prior, grids, labels).exp()
    statistic = float(((seen - expected) ** 2 / expected).sum())
    assert statistic < 124.8  # 99.9 % quantile with 80 degrees of freedom


def test_in_one_step_codes_are_independent(prior: MaskedPrior) -> None:
    n = 20_000
    drawn = prior.sample(torch.full((n,), CLASSES), noise(n, 1), num_steps=1)
    hidden = torch.ones(1, T, dtype=torch.bool)
    p = prior.logits(torch.zeros(1, T, dtype=torch.int64), hidden, torch.tensor([CLASSES])).softmax(-1)[0]
    for place in range(T):
        share = torch.bincount(drawn[:, place], minlength=CODES) / n
        torch.testing.assert_close(share, p[place], rtol=0, atol=0.015)


def test_without_noise_the_most_certain_stays(prior: MaskedPrior) -> None:
    """Two steps, by hand."""
    labels, u = torch.tensor([1, 0, 2]), noise(3, 2, seed=4)
    found = prior.sample(labels, u, num_steps=2, choice_temperature=0.0)
    hidden = torch.ones(3, T, dtype=torch.bool)
    log_p = prior.logits(torch.zeros(3, T, dtype=torch.int64), hidden, labels).log_softmax(-1)
    first = Truncation().draw(log_p, u[:, 0, 0])
    certain = log_p.gather(2, first[..., None])[..., 0].sort(1, descending=True).indices[:, : T - 2]
    for row in range(3):  # floor(4 cos(pi / 4)) = 2 stay hidden
        assert torch.equal(found[row, certain[row]], first[row, certain[row]])
    hidden.scatter_(1, certain, False)
    second = Truncation().draw(prior.logits(first, hidden, labels).log_softmax(-1), u[:, 1, 0])
    assert torch.equal(found, torch.where(hidden, second, first))


def test_given_codes_stay_and_rows_that_lack_fewer_are_done_earlier(prior: MaskedPrior) -> None:
    given = torch.tensor([[UNKNOWN] * T, [1, UNKNOWN, 2, UNKNOWN], [0, 1, 2, 0]])
    labels, u = torch.tensor([0, 1, 2]), noise(3, 3)
    found = prior.sample(labels, u, given=given, num_steps=3, choice_temperature=1.0)
    assert (found >= 0).all() and torch.equal(found[given != UNKNOWN], given[given != UNKNOWN])
    for row in range(3):
        alone = prior.sample(labels[row : row + 1], u[row : row + 1], given=given[row : row + 1], num_steps=3,
                             choice_temperature=1.0)  # fmt: skip
        assert torch.equal(alone[0], found[row])
    assert [prior.evaluations(given[row : row + 1], num_steps=3) for row in range(3)] == [3, 2, 0]
