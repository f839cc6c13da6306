"""How codes are drawn: truncation, inversion, the cache, and painting a part of a picture anew."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from torch import Tensor

from models.base import GenerativeModel, to_float
from models.vqvae.code_prior import UNKNOWN
from models.vqvae.drawing import Truncation, inverted
from models.vqvae.editing import kept_codes
from models.vqvae.prior import AutoregressivePrior
from tests.models.tiny import SHAPE, random_model, randomised, tiny_data

MODELS = ["vqvae", "maskgit"]
N = 4
GIVEN = tiny_data(N)[0]
LEFT = torch.zeros(SHAPE[1:], dtype=torch.bool)
LEFT[:, :4] = True


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(model: GenerativeModel, n: int = N, seed: int = 0, **options: object) -> Tensor:
    return model.sample(n, generator=generator(seed), **options).images


# Truncation.


def by_hand(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Temperature, then the k likeliest, then the nucleus of these, in plain Python."""
    p = torch.tensor(logits, dtype=torch.float64).div(temperature).softmax(0).tolist()
    order = sorted(range(len(p)), key=lambda i: -p[i])[: top_k or len(p)]
    total, kept, mass = sum(p[i] for i in order), [], 0.0
    for i in order:
        kept.append(i)
        mass += p[i] / total
        if mass >= top_p - 1e-12:
            break
    left = sum(p[i] for i in kept)
    return [p[i] / left if i in kept else 0.0 for i in range(len(p))]


@hypothesis_given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=9, unique=True), st.sampled_from([0.2, 0.7, 1.0, 3.0]),
    st.integers(0, 10), st.sampled_from([0.05, 0.31, 0.77, 0.93, 1.0]),
)
def test_truncation_is_what_it_says(logits: list[int], temperature: float, top_k: int, top_p: float) -> None:
    scaled = [value / 10 for value in logits]
    found = Truncation(temperature, top_k, top_p).probabilities(torch.tensor(scaled, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(by_hand(scaled, temperature, top_k, top_p), dtype=torch.float64))


def test_the_nucleus_stops_at_the_code_that_reaches_the_share() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).double().log()
    kept = {p: Truncation(top_p=p).probabilities(logits).nonzero().flatten().tolist() for p in (0.3, 0.5, 0.75, 0.95)}
    assert kept == {0.3: [1], 0.5: [1, 3], 0.75: [1, 2, 3], 0.95: [0, 1, 2, 3]}


def test_inversion_reaches_every_possible_code_and_no_other() -> None:
    p = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    ends = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert inverted(p.expand(6, -1), ends).tolist() == [1, 1, 3, 3, 4, 4]
    assert inverted(p.double().expand(6, -1), ends).tolist() == [1, 1, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a number from 0.001 to 100, not 0.0"),
        ({"temperature": float("nan")}, "temperature must be a number from 0.001 to 100, not nan"),
        ({"top_k": -1}, r"top_k must be a whole number from 0 \(all codes\) on, not -1"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], not 0.0"),
        ({"top_p": 1.1}, r"top_p must lie in \(0, 1\], not 1.1"),
        ({"image": GIVEN}, "image needs a mask, which says what of it is kept"),
        ({"mask": LEFT}, "mask needs the image whose pixels it keeps"),
        ({"image": GIVEN, "mask": LEFT.float()}, r"mask must be bool \(8, 8\) or \(4, 1, 8, 8\), not torch\.float32"),
        ({"image": GIVEN, "mask": LEFT[:, :4]}, r"mask must be bool .*, not torch\.bool \(8, 4\)"),
        ({"image": GIVEN[:3], "mask": LEFT}, "as many images as samples, 4, not 3"),
        ({"image": to_float(GIVEN), "mask": LEFT}, r"images must be uint8 \(N, 1x8x8\)"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_options_out_of_range_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        images(random_model(name), **options)


def test_steps_and_choice_out_of_range_are_refused() -> None:
    model = random_model("maskgit")
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=rf"num_steps must lie in 1\.\.1000, not {steps}"):
            images(model, num_steps=steps)
    with pytest.raises(ValueError, match="choice_temperature must be a number from 0 to 100, not -1"):
        images(model, choice_temperature=-1.0)


@pytest.mark.parametrize("name", MODELS)
def test_one_code_is_left_at_the_coldest(name: str) -> None:
    """Top-1, a tiny nucleus and a low temperature are the same: whatever is drawn is the likeliest."""
    model = random_model(name)
    fixed = {"choice_temperature": 0.0} if name == "maskgit" else {}
    likeliest = images(model, top_k=1, **fixed)
    assert torch.equal(likeliest, images(model, top_k=1, seed=5, **fixed)), "nothing is left to chance"
    assert torch.equal(likeliest, images(model, top_p=1e-6, **fixed))
    assert torch.equal(likeliest, images(model, temperature=0.001, **fixed))
    assert not torch.equal(likeliest, images(model, **fixed))
    assert torch.equal(images(model, top_k=6, top_p=1.0, **fixed), images(model, **fixed))


@pytest.mark.parametrize("steps", [1, 2, 5, 16, 1000])
def test_steps_are_what_sampling_costs(steps: int) -> None:
    model = random_model("maskgit")
    assert model.sample(2, generator=generator(), num_steps=steps).nfe == min(steps, 16) + 1


# The cache.


@pytest.mark.parametrize("given", [False, True])
def test_the_cache_changes_nothing_at_the_presets_size(given: bool) -> None:
    torch.manual_seed(0)
    prior = AutoregressivePrior(codebook_size=240, num_codes=49, num_classes=10, dim=96, depth=2)
    prior = randomised(prior, 0.05).requires_grad_(False)
    labels = torch.arange(8)
    noise = torch.rand(8, 49, dtype=torch.float64, generator=generator())
    codes = torch.randint(240, (8, 49), generator=generator())
    kept = torch.where(torch.arange(49) % 3 == 0, codes, UNKNOWN) if given else None
    options = {"given": kept, "truncation": Truncation(0.9, 100, 0.95)}
    cached, plain = (prior.sample(labels, noise, cached=cached, **options) for cached in (True, False))
    assert torch.equal(cached, plain) and len(cached.unique()) > 50


# Painting.


def test_a_code_is_kept_if_all_its_pixels_are() -> None:
    mask = torch.ones(1, 1, 4, 8, dtype=torch.bool)
    mask[0, 0, 1, 2] = mask[0, 0, 3, 7] = False
    expected = [True, False, True, True, True, True, True, False]
    assert kept_codes(mask, ((2, 4),))[0].tolist() == expected
    assert kept_codes(mask, ((1, 2), (2, 4)))[0].tolist() == [False, False, *expected]


@pytest.mark.parametrize("name", MODELS)
def test_kept_pixels_are_kept_bit_by_bit_and_the_rest_is_drawn(name: str) -> None:
    model = random_model(name)
    found = images(model, image=GIVEN, mask=LEFT)
    assert torch.equal(found[..., LEFT], GIVEN[..., LEFT])
    assert not torch.equal(found[..., ~LEFT], GIVEN[..., ~LEFT])
    assert not torch.equal(found, images(model, image=GIVEN, mask=LEFT, seed=1))
    own = torch.rand(N, 1, 8, 8, generator=generator(3)) < 0.5
    assert torch.equal(images(model, image=GIVEN, mask=own)[own], GIVEN[own])


@pytest.mark.parametrize("name", MODELS)
def test_everything_kept_costs_no_prior_and_nothing_kept_is_a_plain_sample(name: str) -> None:
    model, everything = random_model(name), torch.ones(SHAPE[1:], dtype=torch.bool)
    whole = model.sample(N, generator=generator(), image=GIVEN, mask=everything)
    assert torch.equal(whole.images, GIVEN) and whole.nfe == 1
    assert torch.equal(images(model, image=GIVEN, mask=~everything), images(model))


def codes_of(model: GenerativeModel, given: Tensor) -> Tensor:
    """The codes that are drawn beside given ones (N, T)."""
    options = {} if model.prior.sampler.startswith("auto") else {"num_steps": 8}
    shape = model.prior.noise_shape(**options)
    noise = torch.rand(len(given), *shape, dtype=torch.float64, generator=generator())
    return model.prior.sample(torch.zeros(len(given), dtype=torch.int64), noise, given=given, **options)


@pytest.mark.parametrize(("name", "ahead"), [("vqvae", False), ("maskgit", True)])
def test_who_can_look_ahead(name: str, ahead: bool) -> None:
    """The first half is drawn beside a second half that differs from image to image."""
    model = random_model(name)
    one = torch.full((64, 16), UNKNOWN)
    other = one.clone()
    one[:, 8:], other[:, 8:] = 0, 5
    found = codes_of(model, one)[:, :8], codes_of(model, other)[:, :8]
    assert torch.equal(*found) != ahead
    flipped = codes_of(model, one.flip(1))[:, 8:], codes_of(model, other.flip(1))[:, 8:]
    assert not torch.equal(*flipped), "what comes after given codes follows from them"


@pytest.mark.parametrize("name", MODELS)
def test_an_image_depends_on_the_seed_and_its_place_only(name: str) -> None:
    """Six at once, or two and four, with everything that can be asked for."""
    model, labels = random_model(name), torch.tensor([0, 1, 2, 0, 1, 2])
    given = tiny_data(6)[0]
    options = {"mask": LEFT, "temperature": 0.9, "top_k": 5, "top_p": 0.95}
    together = model.sample(6, condition=labels, generator=generator(), image=given, **options).images
    source = generator()
    apart = [
        model.sample(len(part), condition=part, generator=source, image=image, **options).images
        for part, image in zip(labels.split([2, 4]), given.split([2, 4]), strict=True)
    ]
    assert int((together.int() - torch.cat(apart).int()).abs().max()) <= 1
