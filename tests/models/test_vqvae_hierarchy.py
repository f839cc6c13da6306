"""Two levels of codes: which level sees what, both ways between images and indices, and the exact likelihood."""

from __future__ import annotations

import itertools

import pytest
import torch

from experiments.presets import vqvae2 as preset
from models.base import to_float
from models.vqvae.fsq import FSQ
from models.vqvae.hierarchy import TwoLevelAutoencoder
from models.vqvae.likelihood import log_prob
from models.vqvae.oracles import enumerated_log_prob
from models.vqvae.vqvae2 import VQVAE2
from tests.models.tiny import INFO, random_model, randomised, tiny_data


def network(image_shape: tuple[int, int, int] = (1, 8, 8), downsample: int = 2) -> TwoLevelAutoencoder:
    torch.manual_seed(0)
    made = TwoLevelAutoencoder(
        image_shape, width=8, downsample=downsample, top=FSQ((5, 4)), bottom=FSQ((5, 4))
    )
    return randomised(made, 0.2)


@pytest.mark.parametrize(
    ("image_shape", "downsample", "grids"),
    [
        ((1, 28, 28), 4, ((4, 4), (7, 7))), ((1, 8, 8), 2, ((2, 2), (4, 4))), ((3, 32, 32), 4, ((4, 4), (8, 8))),
        ((1, 28, 28), 2, ((7, 7), (14, 14))), ((1, 12, 4), 4, ((2, 1), (3, 1))),
    ],
)  # fmt: skip
def test_grids_and_shapes(
    image_shape: tuple[int, int, int], downsample: int, grids: tuple[tuple[int, int], ...]
) -> None:
    made = network(image_shape, downsample)
    assert made.grids == grids
    parameters, quantized = made(torch.randn(2, *image_shape))
    assert parameters.shape == (2, 12 * image_shape[0], *image_shape[1:])
    assert quantized.indices.shape == (2, made.num_codes) == (2, sum(a * b for a, b in grids))


def test_decoding_the_indices_is_decoding_the_codes() -> None:
    made, x = network(), torch.randn(6, 1, 8, 8)
    with torch.no_grad():
        parameters, quantized = made(x)
        assert torch.equal(made.indices(x), quantized.indices)
        torch.testing.assert_close(made.pixel_parameters(quantized.indices), parameters)


def test_the_bottom_encoder_sees_the_top_codes() -> None:
    """The same features with other top codes give other bottom codes, and bottom codes never change the top."""
    made, x = network(), torch.randn(64, 1, 8, 8)
    with torch.no_grad():
        top, bottom = made.quantize(x)
        for parameter in made.bottom_encoder.parameters():
            parameter += 0.5
        assert torch.equal(made.quantize(x)[0].indices, top.indices)
        made = network()
        for parameter in made.top_encoder.parameters():
            parameter += 0.5
        other_top, other_bottom = made.quantize(x)
    assert not torch.equal(other_top.indices, top.indices)
    assert not torch.equal(other_bottom.indices, bottom.indices)


def test_every_code_of_both_levels_reaches_the_decoder() -> None:
    made = network()
    indices = torch.zeros(1, made.num_codes, dtype=torch.int64)
    with torch.no_grad():
        plain = made.pixel_parameters(indices)
        for position in range(made.num_codes):
            changed = indices.clone()
            changed[0, position] = 7
            assert (made.pixel_parameters(changed) - plain).abs().max() > 1e-4, position


def test_top_codes_cover_more_of_the_image() -> None:
    made = network((1, 32, 32))  # top 8 x 8, bottom 16 x 16
    indices = torch.zeros(1, made.num_codes, dtype=torch.int64)
    touched = []
    with torch.no_grad():
        for position in (8 * 4 + 4, 64 + 16 * 8 + 8):
            changed = indices.clone()
            changed[0, position] = 7
            difference = made.decoder.enlarge(made.top.codes(changed[:, :64].unflatten(1, (8, 8))))
            difference = difference - made.decoder.enlarge(made.top.codes(indices[:, :64].unflatten(1, (8, 8))))
            touched.append(int((difference.abs().amax(1) > 1e-6).sum()))
    assert touched[0] == 16 and touched[1] == 0  # 2 x 2 enlarged, seen through 3 x 3


@pytest.mark.parametrize("quantizer", ["ema", "original", "rotation"])
def test_losses_of_both_levels_are_added_and_both_levels_learn(quantizer: str) -> None:
    model = tiny_two(quantizer=quantizer)
    x = to_float(tiny_data(8)[0])
    top, bottom = model.autoencoder.eval().quantize(x)
    _, both = model.autoencoder(x)
    for name, value in both.losses.items():
        torch.testing.assert_close(value, top.losses[name] + bottom.losses[name])
    torch.testing.assert_close(both.perplexity**2, top.perplexity * bottom.perplexity)
    parameters, quantized = model.autoencoder.train()(x)
    (parameters.mean() + sum(quantized.losses.values())).backward()
    without = {name for name, p in model.autoencoder.named_parameters() if p.grad is None}
    assert without == set()
    if quantizer != "original":
        assert int(model.autoencoder.top.updates) == int(model.autoencoder.bottom.updates) == 1


def tiny_two(**changes: object) -> VQVAE2:
    options = {
        "image_shape": (1, 8, 8), "num_classes": 3, "quantizer": "fsq", "levels": (2, 2), "codebook_size": 4,
        "codebook_dim": 2, "commitment": 0.25, "cosine": False, "downsample": 2, "width": 8, "autoencoder_share": 0.5,
        "prior_dim": 32, "prior_depth": 1, "batch_size": 4, "lr": 1e-3, "ema_half_life": 100.0, "label_dropout": 0.1,
    }  # fmt: skip
    torch.manual_seed(0)
    return VQVAE2(**options | changes)


def test_the_two_part_code_against_all_grids_of_both_levels() -> None:
    """One top and four bottom codes of four: p(top) p(bottom | top) sums to one, the gap is the posterior's."""
    model = randomised(tiny_two(image_shape=(1, 4, 4)), 0.3)
    assert model.autoencoder.grids == ((1, 1), (2, 2))
    images = torch.randint(0, 256, (4, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact = enumerated_log_prob(model, images)
    bound = model.log_likelihood_bound(images, generator=torch.Generator())
    assert exact.prior_mass == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(exact.log_prob - bound.log_likelihood, -exact.log_posterior, rtol=0, atol=1e-3)
    assert bound.settings == {"codes": "1 x 1 and 2 x 2 of 4"}


@torch.no_grad()
def test_the_prior_is_that_of_the_top_times_that_of_the_bottom_given_the_top() -> None:
    model = randomised(tiny_two(image_shape=(1, 4, 4)), 0.3)
    null = torch.full((4**5,), 3)
    grids = torch.tensor(list(itertools.product(range(4), repeat=5)))
    joint = model.prior.log_prob(grids, null).double().exp().reshape(4, -1)
    top = model.prior.logits(grids[:1], null[:1])[0, 0].softmax(-1).double()
    torch.testing.assert_close(joint.sum(1), top, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_pixels_of_the_bound_are_those_of_the_forward_pass() -> None:
    model, (images, _) = random_model("vqvae2"), tiny_data(4)
    parameters, _ = model.autoencoder(to_float(images))
    expected = log_prob(images, parameters).double().flatten(1).sum(1)
    bound = model.log_likelihood_bound(images, generator=torch.Generator())
    torch.testing.assert_close(bound.parts["pixels"], expected, rtol=1e-5, atol=1e-3)
    found = model.reconstruct(images)
    assert found.grids == ((2, 2), (4, 4)) and found.indices.shape == (4, 20)


def test_two_sizes_of_codebooks_are_refused() -> None:
    with pytest.raises(ValueError, match="both levels need a codebook of the same size, not 4 and 3 codes"):
        TwoLevelAutoencoder((1, 8, 8), width=8, downsample=2, top=FSQ((4,)), bottom=FSQ((3,)))


def test_the_preset_for_small_images() -> None:
    assert preset.preset(INFO).downsample == 2
