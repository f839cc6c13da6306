"""The discretised logistic mixture is a distribution, and the two-part code a bound on it."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.base import to_float
from models.vqvae.likelihood import MIN_LOG_SCALE, log_prob, mean_image, split_parameters
from models.vqvae.model import VQVAE
from models.vqvae.oracles import enumerated_log_prob
from tests.models.tiny import random_model, randomised, tiny_data

K = 3


def all_levels() -> torch.Tensor:
    """Every level once, uint8 (256, 1, 1, 1)."""
    return torch.arange(256, dtype=torch.uint8)[:, None, None, None]


def parameters(logits: list[float], means: list[float], log_scales: list[float]) -> torch.Tensor:
    """One pixel's parameters, (1, 3 K, 1, 1)."""
    return torch.tensor([*logits, *means, *log_scales], dtype=torch.float64)[None, :, None, None]


def masses(p: torch.Tensor) -> torch.Tensor:
    """Probabilities of the 256 levels of one pixel."""
    return log_prob(all_levels(), p.expand(256, -1, -1, -1)).exp().flatten()


numbers = {
    "logits": st.lists(st.floats(-8, 8), min_size=K, max_size=K),
    "means": st.lists(st.floats(-3, 3), min_size=K, max_size=K),
    "log_scales": st.lists(st.floats(-9, 3), min_size=K, max_size=K),
}


@given(**numbers)
def test_it_sums_to_one(logits: list[float], means: list[float], log_scales: list[float]) -> None:
    p = parameters(logits, means, log_scales)
    for dtype in (torch.float64, torch.float32):  # pixel values are float32: 6e-8 times the steepest slope
        assert float(masses(p.to(dtype)).sum()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("mean", [-1e4, -50.0, -1.0, 0.0, 1.0, 50.0, 1e4])
@pytest.mark.parametrize("log_scale", [-1e4, -7.0, 0.0, 12.0, 40.0])
def test_it_sums_to_one_far_out(mean: float, log_scale: float) -> None:
    p = parameters([0.0, 100.0, -100.0], [mean, mean, 0.0], [log_scale, log_scale, 0.0])
    for dtype in (torch.float64, torch.float32):
        assert float(masses(p.to(dtype)).sum()) == pytest.approx(1, abs=1e-4)
    images, wanted = all_levels(), p.float().expand(256, -1, -1, -1).requires_grad_()
    (gradient,) = torch.autograd.grad(log_prob(images, wanted).sum(), wanted)
    assert not gradient.isnan().any()


@given(**numbers)
def test_it_is_the_difference_of_two_sigmoids(
    logits: list[float], means: list[float], log_scales: list[float]
) -> None:
    p = parameters(logits, means, log_scales)
    weights = torch.tensor(logits).double().softmax(0)
    m = torch.tensor(means).double()
    s = torch.tensor(log_scales).double().clamp(min=MIN_LOG_SCALE).exp()
    edges = (torch.arange(1, 256).double() - 0.5)[:, None] / 127.5 - 1  # between levels
    below = torch.cat([torch.zeros(1, K), torch.sigmoid((edges - m) / s), torch.ones(1, K)])
    expected = (below.diff(dim=0) * weights).sum(1)
    torch.testing.assert_close(masses(p), expected, rtol=2e-3, atol=1e-9)


def test_small_probabilities_do_not_vanish() -> None:
    """20 levels from a narrow peak a difference of sigmoids is 0 in float32; its logarithm is not -inf."""
    p = parameters([0.0] * K, [to_float(torch.tensor(128)).item()] * K, [-6.0] * K)
    found = log_prob(all_levels(), p.float().expand(256, -1, -1, -1)).flatten()
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), log_prob(all_levels(), p.expand(256, -1, -1, -1)).flatten(),
                               rtol=1e-4, atol=1e-4)  # fmt: skip
    assert (found[:128].diff() > 0).all() and (found[129:].diff() < 0).all()


def test_channels_and_mixtures_are_kept_apart() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    p = torch.randn(2, 3 * K * 3, 4, 5)
    found = log_prob(images, p)
    assert found.shape == images.shape
    for channel in range(3):
        own = p[:, 3 * K * channel : 3 * K * (channel + 1)]
        torch.testing.assert_close(log_prob(images[:, channel : channel + 1], own), found[:, channel : channel + 1])
    log_weights, means, log_scales = split_parameters(p, 3)
    assert means.shape == log_scales.shape == (2, 3, K, 4, 5)
    torch.testing.assert_close(log_weights.exp().sum(2), torch.ones(2, 3, 4, 5))


def test_the_mean_image() -> None:
    p = parameters([0.0, 0.0, -60.0], [-0.5, 0.7, 9.0], [0.0] * K)
    assert float(mean_image(p, 1)) == pytest.approx(0.1)
    outside = parameters([0.0] * K, [5.0, 5.0, 5.0], [0.0] * K)
    assert float(mean_image(outside, 1)) == 1


def tiny() -> VQVAE:
    """Two code positions of four codes each."""
    torch.manual_seed(0)
    model = VQVAE(
        image_shape=(1, 2, 4), num_classes=2, levels=(2, 2), downsample=2, width=8, autoencoder_share=0.5,
        prior_dim=32, prior_depth=1, batch_size=4, lr=1e-3, ema_half_life=100, label_dropout=0.1,
    )  # fmt: skip
    return randomised(model, 0.3)


@torch.no_grad()
def test_the_two_part_code_is_below_the_likelihood_summed_over_all_codes() -> None:
    model = tiny()
    images = torch.randint(0, 256, (6, 1, 2, 4), dtype=torch.uint8)
    codes = torch.tensor(list(itertools.product(range(4), repeat=2)))
    null = torch.full((16,), 2)
    log_p_z = model.prior.log_prob(codes, null).double()
    assert float(log_p_z.exp().sum()) == pytest.approx(1, abs=1e-6)
    pixels = model.pixel_parameters(codes)
    bound = model.log_likelihood_bound(images, generator=torch.Generator())
    for i, image in enumerate(images):
        log_p_x = log_prob(image.expand(16, -1, -1, -1), pixels).double().flatten(1).sum(1)
        joint = log_p_z + log_p_x
        assert float(bound.log_likelihood[i]) <= float(joint.logsumexp(0))
        assert float((joint - bound.log_likelihood[i]).abs().min()) < 1e-3  # it is one of the sixteen
    assert bound.kind == "two-part code" and set(bound.parts) == {"code", "pixels"}


def test_the_two_part_code_is_longer_by_the_posterior_of_its_codes() -> None:
    model = tiny()
    images = torch.randint(0, 256, (6, 1, 2, 4), dtype=torch.uint8)
    exact = enumerated_log_prob(model, images)
    assert exact.prior_mass == pytest.approx(1, abs=1e-6)
    bound = model.log_likelihood_bound(images, generator=torch.Generator()).log_likelihood
    assert (exact.log_posterior < -1e-3).any()  # there is a gap to be measured
    torch.testing.assert_close(exact.log_prob - bound, -exact.log_posterior, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_enumerated_likelihood_is_the_mean_over_sampled_codes() -> None:
    """p(x) = E p(x | z) over codes drawn by the prior's sampler, which knows nothing of the enumeration."""
    model = tiny()
    image = torch.randint(0, 256, (1, 1, 2, 4), dtype=torch.uint8)
    uniform = torch.rand(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    indices = model.prior.sample(torch.full((4000,), 2), uniform)
    ratio = log_prob(image.expand(4000, -1, -1, -1), model.pixel_parameters(indices)).double().flatten(1).sum(1)
    ratio = (ratio - enumerated_log_prob(model, image).log_prob).exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / 4000**0.5)
    assert float(ratio.std()) > 0.01


def test_too_many_grids_are_refused() -> None:
    model = random_model("vqvae")
    with pytest.raises(ValueError, match=r"6 \*\* 16 grids of codes are too many to enumerate; at most 4096"):
        enumerated_log_prob(model, tiny_data(1)[0])


def test_kinds_and_settings() -> None:
    model, (images, _) = random_model("vqvae"), tiny_data(3)
    bound = model.log_likelihood_bound(images, generator=torch.Generator(), kind="two-part code")
    assert model.likelihood_kinds[0] == bound.kind and bound.settings == {"codes": "4 x 4 of 6"}
    assert bound.nfe is not None and bound.nfe.tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match="unknown kind of likelihood 'ais'; allowed: two-part code, importance"):
        model.log_likelihood_bound(images, generator=torch.Generator(), kind="ais")


def test_the_self_check_holds_and_notices_what_is_no_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (images, _) = random_model("vqvae"), tiny_data(10)

    def check() -> tuple[bool, str]:
        found = model.check_likelihood(images, kind="two-part code", generator=torch.Generator())
        return found.passed, found.text

    passed, text = check()
    assert passed and "at the codes of 8 held-out images" in text
    with monkeypatch.context() as patch:  # a decoder that gives every level a little more
        patch.setattr("models.vqvae.likelihood.log_prob", lambda x, p: log_prob(x, p) + 0.001)
        assert not check()[0]
    logits, log_probs = model.prior.logits, model.prior.log_prob
    with monkeypatch.context() as patch:  # a prior that sees the code it should predict
        patch.setattr(model.prior, "logits", lambda z, y: logits(z, y) + torch.nn.functional.one_hot(z, 6))
        assert not check()[0]
    with monkeypatch.context() as patch:  # a prior that claims a little more for every grid
        patch.setattr(model.prior, "log_prob", lambda z, y: log_probs(z, y) + 0.001)
        assert not check()[0]
    assert check()[0]
