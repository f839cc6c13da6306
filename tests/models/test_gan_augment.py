"""Augmentation of both kinds of images: every change by hand, its noise, its gradient, and ADA's controller."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.gan.adaptive import INTERVAL, TARGET, Augmentation, adjusted
from models.gan.augment import (
    ADA_DRAWS,
    DIFFAUGMENT_DRAWS,
    ada,
    ada_colour,
    ada_geometry,
    cutout_mask,
    diagonal,
    diffaugment,
    normal,
    resample,
    rotation,
    shift,
    translate,
    whole_shifts,
)

KINDS = [(diffaugment, DIFFAUGMENT_DRAWS), (ada, ADA_DRAWS)]


def images(n: int, channels: int = 1, side: int = 8) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(n)) * 2 - 1


def draws(n: int, number: int, seed: int = 0) -> Tensor:
    return torch.rand(n, number, generator=torch.Generator().manual_seed(seed))


def scalar(value: float) -> Tensor:
    return torch.tensor([value])


@pytest.mark.parametrize(("change", "number"), KINDS)
def test_nothing_happens_with_probability_zero(change, number: int) -> None:
    x = images(20, 3)
    torch.testing.assert_close(change(x, draws(20, number), 0.0), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("change", "number"), KINDS)
def test_an_image_does_not_depend_on_the_others(change, number: int) -> None:
    x, numbers = images(6, 3), draws(6, number)
    together = change(x, numbers, 0.8)
    apart = torch.cat([change(x[i : i + 1], numbers[i : i + 1], 0.8) for i in range(6)])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(("change", "number"), KINDS)
def test_gradients_are_those_of_finite_differences(change, number: int) -> None:
    x = images(4, 3, side=4).double().requires_grad_()
    numbers = draws(4, number).double()
    assert torch.autograd.gradcheck(lambda y: change(y, numbers, 0.9), (x,), eps=1e-6, atol=1e-5)
    (slope,) = torch.autograd.grad(change(x, numbers, 0.9).sum(), x)
    assert (slope.flatten(1).abs().sum(1) > 0).all()


def test_the_share_of_images_that_diffaugment_changes() -> None:
    n, x = 4000, images(1).expand(4000, -1, -1, -1)
    changed = (diffaugment(x, draws(n, DIFFAUGMENT_DRAWS), 0.3) != x).flatten(1).any(1).float().mean()
    assert float(changed) == pytest.approx(0.3, abs=0.03)


def test_diffaugment_by_hand() -> None:
    """No shift, the cut in a corner: what remains is brightness and contrast."""
    x = images(1)
    numbers = torch.tensor([[0.0, 0.9, 0.2, 0.5, 0.5, 0.0, 0.0]])
    found = diffaugment(x, numbers)
    bright = x + 0.4
    expected = (bright - bright.mean()) * 0.7 + bright.mean()
    expected[:, :, :2, :2] = 0  # of a square of 4 x 4 around the corner a quarter is inside
    torch.testing.assert_close(found, expected)


def test_translation_by_hand() -> None:
    x = images(4)
    moved = translate(x, torch.tensor([[0, 0], [1, 0], [0, -2], [-1, 1]]))
    assert torch.equal(moved[0], x[0])
    assert torch.equal(moved[1, :, 1:], x[1, :, :-1]) and (moved[1, :, 0] == 0).all()
    assert torch.equal(moved[2, :, :, :-2], x[2, :, :, 2:]) and (moved[2, :, :, -2:] == 0).all()
    assert torch.equal(moved[3, :, :-1, 1:], x[3, :, 1:, :-1])
    assert (moved[3, :, -1] == 0).all() and (moved[3, :, :, 0] == 0).all()


def test_shifts_are_even_and_bounded() -> None:
    found = whole_shifts(draws(20_000, 2), (8, 28), 0.125)
    for axis, most in enumerate((1, 4)):
        shares = torch.bincount(found[:, axis] + most, minlength=2 * most + 1) / len(found)
        assert len(shares) == 2 * most + 1
        torch.testing.assert_close(shares, torch.full_like(shares, 1 / (2 * most + 1)), rtol=0, atol=0.015)
    extremes = torch.tensor([[0.0, 1 - 1e-7]])
    assert whole_shifts(extremes, (8, 28), 0.125).tolist() == [[-1, 4]]


def test_every_cut_is_at_most_a_quarter_of_the_picture() -> None:
    mask = cutout_mask(draws(3000, 2), (8, 6))
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    holes = (1 - mask).sum((1, 2, 3))
    assert holes.max() == 4 * 3 and holes.min() >= 1
    assert ((1 - mask).mean((0, 1)) > 0).all()  # every pixel is cut at times


@pytest.mark.parametrize("side", [7, 8])
def test_exact_maps_move_pixels_exactly(side: int) -> None:
    x = images(1, 3, side)
    pairs = {
        "mirrored": (diagonal(scalar(-1.0), scalar(1.0)), x.flip(3)),
        "upside down": (diagonal(scalar(1.0), scalar(-1.0)), x.flip(2)),
        "turned": (rotation(scalar(math.pi / 2)), torch.rot90(x, 1, (2, 3))),
        "turned twice": (rotation(scalar(math.pi)), torch.rot90(x, 2, (2, 3))),
        "shifted": (shift(scalar(2.0), scalar(0.0)), torch.cat([x[..., 2:], x[..., [-1, -2]]], dim=3)),
    }
    for name, (maps, expected) in pairs.items():
        torch.testing.assert_close(resample(x, maps), expected, rtol=0, atol=1e-5, msg=name)


def test_scaling_and_turning_a_plane() -> None:
    """A plane stays a plane under bilinear sampling, away from the edges: its slope is mapped."""
    ramp = torch.arange(16.0) - 7.5
    x = (0.1 * ramp[None, :] + 0.03 * ramp[:, None])[None, None]  # right, down
    angle = 0.4
    maps = rotation(scalar(angle)) @ diagonal(scalar(0.5), scalar(0.8))
    found = resample(x, maps)[0, 0, 5:11, 5:11]
    c, s = math.cos(angle), math.sin(angle)
    right, down = 0.5 * (0.1 * c + 0.03 * s), 0.8 * (-0.1 * s + 0.03 * c)
    expected = right * ramp[None, 5:11] + down * ramp[5:11, None]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_picture_that_is_not_square_is_turned_without_stretching() -> None:
    x = torch.zeros(1, 1, 6, 10)
    x[0, 0, 2:4, 3:7] = 1  # 2 x 4 in the middle
    found = resample(x, rotation(scalar(math.pi / 2)))
    assert found[0, 0, 1:5, 4:6].min() > 0.999 and float(found.sum()) == pytest.approx(8, abs=1e-4)


def test_each_gate_of_ada_opens_its_own_change() -> None:
    values = torch.full((1, 10), 0.9)
    p = torch.tensor(0.5)
    matrices = []
    for gate in range(8):
        gates = torch.ones(1, 8)
        gates[0, gate] = 0.0
        matrices.append(ada_geometry(gates, values, p, (8, 8))[0])
    value = float(normal(torch.tensor(0.9)))
    scale, angle = 2 ** (0.2 * value), 0.8 * math.pi
    expected = [
        diagonal(scalar(1.0), scalar(1.0)), rotation(scalar(1.5 * math.pi)), shift(scalar(1.0), scalar(1.0)),
        diagonal(scalar(scale), scalar(scale)), rotation(scalar(angle)), diagonal(scalar(scale), scalar(1 / scale)),
        rotation(scalar(angle)), shift(scalar(value), scalar(value)),
    ]  # fmt: skip
    for found, wanted in zip(matrices, expected, strict=True):
        torch.testing.assert_close(found, wanted[0], rtol=0, atol=1e-5)
    assert value == pytest.approx(1.2816, abs=1e-4)
    mirrored = ada_geometry(torch.tensor([[0.0] + [1.0] * 7]), torch.full((1, 10), 0.1), p, (8, 8))
    torch.testing.assert_close(mirrored, diagonal(scalar(-1.0), scalar(1.0)))


def test_either_rotation_happens_with_probability_p() -> None:
    n, p = 20_000, torch.tensor(0.6)
    gates = torch.ones(n, 8)
    gates[:, [4, 6]] = draws(n, 2)
    turned = (ada_geometry(gates, draws(n, 10), p, (8, 8)) - torch.eye(3)).abs().flatten(1).amax(1) > 1e-6
    assert float(turned.float().mean()) == pytest.approx(0.6, abs=0.015)


def test_colours_by_hand() -> None:
    x, closed = images(1, 3), torch.zeros(1, 3, dtype=torch.bool)
    values = torch.tensor([[0.9, 0.9, 0.1]])
    value = float(normal(torch.tensor(0.9)))
    assert torch.equal(ada_colour(x, closed, values), x)
    results = []
    for change in range(3):
        does = closed.clone()
        does[0, change] = True
        results.append(ada_colour(x, does, values))
    torch.testing.assert_close(results[0], x + 0.2 * value)
    torch.testing.assert_close(results[1], x * 2 ** (0.5 * value))
    luma = torch.tensor([1.0, 1.0, 1.0]) / math.sqrt(3)
    mirror = torch.eye(3) - 2 * torch.outer(luma, luma)
    torch.testing.assert_close(results[2], torch.einsum("dc,bchw->bdhw", mirror, x))
    does[0] = torch.tensor([False, False, True])
    torch.testing.assert_close(ada_colour(x[:, :1], does, values), -x[:, :1])


def test_the_controller_by_hand() -> None:
    assert adjusted(0.2, 0.9, 1000, 10_000.0) == pytest.approx(0.3)
    assert adjusted(0.2, -0.1, 1000, 10_000.0) == pytest.approx(0.1)
    assert adjusted(0.2, TARGET, 1000, 10_000.0) == 0.2
    assert adjusted(0.95, 1.0, 1000, 10_000.0) == 1.0 and adjusted(0.05, 0.0, 1000, 10_000.0) == 0.0


def test_p_finds_where_overfitting_is_at_its_target() -> None:
    """Of a discriminator whose sureness falls with p: the share of real images called real is 1 - p / 2."""
    augmentation = Augmentation("ada", probability=1.0, ada_images=2000.0)
    noise = torch.Generator().manual_seed(0)
    for _ in range(600):
        calls = torch.rand(64, generator=noise) < 1 - float(augmentation.p) / 2
        augmentation.observe(torch.where(calls, 2.0, -2.0))
    assert float(augmentation.p) == pytest.approx(0.4, abs=0.2)  # r_t = 1 - p = 0.6


def test_the_controllers_state_is_resumed() -> None:
    whole, first, second = (Augmentation("ada", probability=1.0, ada_images=1000.0) for _ in range(3))
    batches = [torch.randn(8, generator=torch.Generator().manual_seed(i)) + 3 for i in range(3 * INTERVAL)]
    for batch in batches:
        whole.observe(batch)
    for batch in batches[: INTERVAL + 2]:
        first.observe(batch)
    assert float(first.p) == pytest.approx(8 * INTERVAL / 1000) and int(first.steps) == 2
    second.load_state_dict(first.state_dict())
    for batch in batches[INTERVAL + 2 :]:
        second.observe(batch)
    assert float(second.p) == float(whole.p) == pytest.approx(24 * INTERVAL / 1000)


def test_kinds_and_noise_of_their_own() -> None:
    x = images(4)
    nothing = Augmentation("none", probability=1.0, ada_images=1.0)
    state = torch.get_rng_state()
    assert nothing(x) is x and torch.equal(torch.get_rng_state(), state)
    for kind in ("diffaugment", "ada"):
        augmentation = Augmentation(kind, probability=1.0, ada_images=1.0)
        augmentation.observe(torch.ones(4))
        augmentation.p.fill_(1.0)
        assert not torch.equal(augmentation(x), augmentation(x))
    with pytest.raises(ValueError, match="unknown augmentation 'mixup'; allowed: none, diffaugment, ada"):
        Augmentation("mixup", probability=1.0, ada_images=1.0)
