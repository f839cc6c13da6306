"""The great circle between two latents: ends, lengths, angles and the cases without one, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from models.latents import slerp

SHARES = torch.linspace(0, 1, 9, dtype=torch.float64)


def unit(seed: int, dimensions: int = 12) -> torch.Tensor:
    vector = torch.randn(dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


def test_a_quarter_circle_in_closed_form() -> None:
    x, y = torch.eye(2, dtype=torch.float64)
    expected = torch.stack([torch.cos(SHARES * math.pi / 2), torch.sin(SHARES * math.pi / 2)], dim=1)
    torch.testing.assert_close(slerp(x, y, SHARES), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (2.0, 5.0), (3.0, 0.1)])
def test_angles_and_lengths_grow_in_proportion(lengths: tuple[float, float]) -> None:
    a, b = lengths[0] * unit(0), lengths[1] * unit(1)
    way = slerp(a, b, SHARES)
    expected = lengths[0] + SHARES * (lengths[1] - lengths[0])
    torch.testing.assert_close(way.norm(dim=1), expected, rtol=1e-14, atol=0)
    angles = torch.acos((way @ unit(0) / way.norm(dim=1)).clamp(-1, 1))
    torch.testing.assert_close(angles, SHARES * torch.acos(unit(0) @ unit(1)), rtol=0, atol=1e-7)
    plane = torch.linalg.matrix_rank(torch.cat([way, a[None], b[None]]), atol=1e-12)
    assert int(plane) == 2, "the way stays in the plane of both"


def test_ends_are_exact_and_shapes_and_types_kept() -> None:
    a, b = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    way = slerp(a, b, SHARES)
    assert way.shape == (9, 3, 8, 8) and way.dtype == torch.float32
    assert torch.equal(way[0], a) and torch.equal(way[-1], b)


def test_noise_between_has_the_strength_of_noise() -> None:
    a, b = torch.randn(2, 40_000, generator=torch.Generator().manual_seed(0))
    assert slerp(a, b, SHARES).std(dim=1).sub(1).abs().max() < 0.02  # a straight line would have 0.71 in the middle


def test_the_way_back_is_the_same_way() -> None:
    a, b = 2 * unit(0), 3 * unit(1)
    torch.testing.assert_close(slerp(b, a, SHARES), slerp(a, b, SHARES).flip(0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [1.0, 2.0])
def test_between_equal_directions_it_is_a_straight_line(length: float) -> None:
    way = slerp(unit(0), length * unit(0), SHARES)
    expected = unit(0) * (1 + SHARES[:, None] * (length - 1))
    torch.testing.assert_close(way, expected, rtol=0, atol=1e-15)


def test_a_tiny_angle_keeps_its_digits() -> None:
    x, y = torch.eye(2, dtype=torch.float64)
    end = math.cos(1e-9) * x + math.sin(1e-9) * y
    torch.testing.assert_close(slerp(x, end, SHARES)[:, 1], 1e-9 * SHARES, rtol=1e-7, atol=0)


@pytest.mark.parametrize("length", [1.0, 0.5])
def test_opposite_directions_are_refused(length: float) -> None:
    with pytest.raises(ValueError, match="opposite directions"):
        slerp(unit(0), -length * unit(0), SHARES)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_without_a_direction_it_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="length zero"):
        slerp(ends[0] * unit(0), ends[1] * unit(1), SHARES)
