"""The great circle between two noises: ends, norms and angles against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from models.diffusion.interpolation import slerp

SHARES = torch.linspace(0, 1, 9, dtype=torch.float64)


def unit(seed: int, dimensions: int = 12) -> torch.Tensor:
    vector = torch.randn(dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


def test_a_quarter_circle_in_closed_form() -> None:
    x, y = torch.eye(2, dtype=torch.float64)
    expected = torch.stack([torch.cos(SHARES * math.pi / 2), torch.sin(SHARES * math.pi / 2)], dim=1)
    torch.testing.assert_close(slerp(x, y, SHARES), expected, rtol=0, atol=1e-15)


def test_unit_vectors_keep_their_norm_and_angles_grow_in_proportion() -> None:
    a, b = unit(0), unit(1)
    way = slerp(a, b, SHARES)
    torch.testing.assert_close(way.norm(dim=1), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-14)
    angles = torch.acos((way @ a).clamp(-1, 1))
    torch.testing.assert_close(angles, SHARES * torch.acos(a @ b), rtol=0, atol=1e-7)


def test_ends_are_exact_and_shapes_and_types_kept() -> None:
    a, b = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    way = slerp(a, b, SHARES)
    assert way.shape == (9, 3, 8, 8) and way.dtype == torch.float32
    assert torch.equal(way[0], a) and torch.equal(way[-1], b)


def test_noise_between_has_the_strength_of_noise() -> None:
    a, b = torch.randn(2, 40_000, generator=torch.Generator().manual_seed(0))
    assert slerp(a, b, SHARES).std(dim=1).sub(1).abs().max() < 0.02  # a straight line would have 0.71 in the middle


@pytest.mark.parametrize("sign", [1, -1])
def test_without_a_great_circle_it_is_refused(sign: int) -> None:
    with pytest.raises(ValueError, match="same or opposite directions"):
        slerp(unit(0), sign * 2 * unit(0), SHARES)
