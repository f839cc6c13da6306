"""Finite scalar quantisation: a bijection between indices and codes, and a gradient through rounding."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.vqvae.fsq import FSQ

LEVELS = [(2,), (3,), (8, 5, 5, 5), (2, 2, 2), (7, 4), (16, 3, 2)]


def every_index(fsq: FSQ) -> torch.Tensor:
    return torch.arange(fsq.codebook_size).reshape(1, 1, -1)


def unbounded(fsq: FSQ, z_q: torch.Tensor) -> torch.Tensor:
    """A z_e whose bounded value is exactly the code: the inverse of ``FSQ.bound``."""
    half = (fsq.levels - 1) * (1 + 1e-3) / 2
    offset = torch.where(fsq.levels % 2 == 0, 0.5, 0.0)
    integers = z_q.movedim(1, -1) * (fsq.levels // 2)
    return (((integers + offset) / half).atanh() - (offset / half).atanh()).movedim(-1, 1)


@pytest.mark.parametrize("levels", LEVELS)
def test_every_code_round_trips(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels)
    indices = every_index(fsq)
    codes = fsq.codes(indices)
    assert codes.shape == (1, len(levels), 1, fsq.codebook_size)
    found = fsq.quantize(unbounded(fsq, codes))
    assert torch.equal(found.indices, indices)
    torch.testing.assert_close(found.z_q, codes)


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_are_the_grid_of_all_levels(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels)
    codes = {tuple(c.tolist()) for c in fsq.codes(every_index(fsq))[0, :, 0].T}
    grid = itertools.product(*([(i - n // 2) / (n // 2) for i in range(n)] for n in levels))
    assert len(codes) == fsq.codebook_size
    assert sorted(codes) == [pytest.approx(point) for point in sorted(grid)]


@pytest.mark.parametrize("levels", LEVELS)
def test_every_level_is_reached_and_nothing_beyond(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels)
    sweep = torch.cat([torch.linspace(-8, 8, 4001), torch.tensor([-1e6, 1e6])])
    z_q = fsq.quantize(sweep[None, None, None].expand(1, len(levels), 1, -1)).z_q
    for n, values in zip(levels, z_q[0, :, 0], strict=True):
        assert len((values * (n // 2)).round().unique()) == n
        assert values.abs().max() <= 1 + 1e-6
        assert (values[:-2].diff() >= -1e-6).all()


@given(st.data())
def test_codes_of_quantised_values_are_those_values(data: st.DataObject) -> None:
    fsq = FSQ(data.draw(st.sampled_from(LEVELS)))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    quantized = fsq.quantize(data.draw(st.floats(0.1, 20)) * torch.randn(2, fsq.codebook_dim, 3, 4))
    assert quantized.indices.shape == (2, 3, 4) and quantized.indices.dtype == torch.int64
    assert int(quantized.indices.min()) >= 0 and int(quantized.indices.max()) < fsq.codebook_size
    torch.testing.assert_close(fsq.codes(quantized.indices), quantized.z_q)


def test_the_gradient_passes_straight_through_the_rounding() -> None:
    fsq = FSQ((8, 5))
    z_e = torch.randn(2, 2, 3, 3, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3)
    (through,) = torch.autograd.grad((fsq.quantize(z_e).z_q * weight).sum(), z_e)
    smooth = (fsq.bound(z_e.movedim(1, -1)) / (fsq.levels // 2)).movedim(-1, 1)
    (expected,) = torch.autograd.grad((smooth * weight).sum(), z_e)
    torch.testing.assert_close(through, expected)
    assert (through != 0).all()


@pytest.mark.parametrize("levels", [(), (1,), (8, 0), (5, -3)])
def test_too_few_levels_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="levels must be integers of at least 2"):
        FSQ(levels)
