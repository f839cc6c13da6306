"""Augmentation of what a discriminator sees, real and generated alike, through which gradients reach the generator.

DiffAugment, Zhao et al. 2020 (arXiv:2006.10738): colour, translation, cutout. ADA, Karras et al. 2020
(arXiv:2006.06676), App. B: flips, quarter turns, shifts, scales, rotations and colour, each with probability p.
Deviations: bilinear sampling without the low-pass filters of ADA; no hue or saturation, which grey images do not
have. Images are functions of p and of the uniform numbers of their own row alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DIFFAUGMENT_DRAWS = 7  # whether at all, brightness, contrast, translation (2), where to cut (2)
ADA_DRAWS = 24
TRANSLATION = 0.125  # of the size
CUTOUT = 0.5  # of the size
SCALE_STD, FRACTION_STD, BRIGHTNESS_STD, CONTRAST_STD = 0.2, 0.125, 0.2, 0.5  # Karras et al., App. B


def diffaugment(x: Tensor, draws: Tensor, probability: float | Tensor = 1.0) -> Tensor:
    """All of colour, translation and cutout, or with 1 - probability nothing, for each of images (B, C, H, W).

    Args:
        x: Images in units of [-1, 1]; what comes in from outside is 0, grey.
        draws: Uniform in [0, 1), (B, 7).
        probability: Of being changed; 1 in the paper.
    """
    u = draws.to(x.dtype)
    brightness, contrast = u[:, 1, None, None, None] - 0.5, u[:, 2, None, None, None] + 0.5
    changed = x + brightness
    mean = changed.mean((1, 2, 3), keepdim=True)
    changed = (changed - mean) * contrast + mean
    changed = translate(changed, whole_shifts(u[:, 3:5], x.shape[-2:], TRANSLATION))
    changed = changed * cutout_mask(u[:, 5:7], x.shape[-2:])
    return torch.where((u[:, 0] < probability)[:, None, None, None], changed, x)


def whole_shifts(uniform: Tensor, size: tuple[int, ...] | torch.Size, share: float) -> Tensor:
    """Uniform numbers (B, 2) to pixels down and right, int64 (B, 2), as often -s as ... as s = round(share size)."""
    most = torch.tensor([int(share * side + 0.5) for side in size], device=uniform.device)
    return (uniform * (2 * most + 1)).long().minimum(2 * most) - most


def translate(x: Tensor, shifts: Tensor) -> Tensor:
    """Images (B, C, H, W) moved by whole pixels down and right, int64 (B, 2); zeros come in."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device) - shifts[:, :1]  # (B, H)
    columns = torch.arange(width, device=x.device) - shifts[:, 1:]  # (B, W)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[
        image, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ].permute(0, 3, 1, 2)
    inside = inside_of(rows, 0, height)[:, :, None] & inside_of(columns, 0, width)[:, None, :]
    return moved * inside[:, None]


def cutout_mask(uniform: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Zeros in a rectangle of half the height and width around a uniform place, else ones, (B, 1, H, W)."""
    cut = []
    for axis, side in enumerate(size):
        length = int(CUTOUT * side + 0.5)
        start = (uniform[:, axis, None] * (side + 1 - length % 2)).long() - length // 2
        cut.append(inside_of(torch.arange(side, device=uniform.device)[None], start, start + length))
    return (~(cut[0][:, :, None] & cut[1][:, None, :]))[:, None].to(uniform.dtype)


def inside_of(positions: Tensor, first: int | Tensor, end: int | Tensor) -> Tensor:
    """Whether first <= position < end."""
    return (positions >= first) & (positions < end)


def ada(x: Tensor, draws: Tensor, probability: float | Tensor) -> Tensor:
    """Geometry, then colour, every change with a probability of its own, of images (B, C, H, W) in units of [-1, 1].

    Args:
        x: Images; what comes in from outside is their reflection.
        draws: Uniform in [0, 1), (B, 24): eight gates and ten values of the geometry, three and three of the colour.
        probability: p of the paper, in [0, 1]; 0 leaves images as they are.
    """
    u, p = draws.to(x.dtype), torch.as_tensor(probability, dtype=x.dtype, device=x.device)
    moved = resample(x, ada_geometry(u[:, :8], u[:, 8:18], p, x.shape[-2:]))
    return ada_colour(moved, u[:, 18:21] < p, u[:, 21:])


def ada_geometry(gates: Tensor, values: Tensor, p: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Where pixels come from, (B, 3, 3): from output to input, homogeneous pixels (right, down) from the middle.

    Args:
        gates: Uniform, (B, 8): whether to flip, turn, shift, scale, rotate, stretch, rotate again, shift by a fraction.
        values: Uniform, (B, 10): in that order, how; two for each shift.
        p: Probability of each; of the rotations 1 - sqrt(1 - p), so that p is that of either.
        size: Height and width.
    """
    flip, turn, down, right, scale, first, stretch, second, fraction_down, fraction_right = values.unbind(1)
    rotated, one = 1 - (1 - p).sqrt(), torch.ones_like(flip)
    does = (gates < torch.stack([p, p, p, p, rotated, p, rotated, p])).unbind(1)
    whole = whole_shifts(torch.stack([down, right], dim=1), size, TRANSLATION).to(values.dtype)
    scale, stretch = 2 ** (SCALE_STD * normal(scale)), 2 ** (SCALE_STD * normal(stretch))
    maps = (
        diagonal(torch.where(flip < 0.5, -one, one), one), rotation((4 * turn).floor() * (math.pi / 2)),
        shift(whole[:, 1], whole[:, 0]), diagonal(scale, scale), rotation((2 * first - 1) * math.pi),
        diagonal(stretch, 1 / stretch), rotation((2 * second - 1) * math.pi),
        shift(FRACTION_STD * size[1] * normal(fraction_right), FRACTION_STD * size[0] * normal(fraction_down)),
    )
    found = identity = torch.eye(3, dtype=values.dtype, device=values.device).expand(len(values), 3, 3)
    for chosen, further in zip(does, maps, strict=True):
        found = found @ torch.where(chosen[:, None, None], further, identity)
    return found


def ada_colour(x: Tensor, does: Tensor, values: Tensor) -> Tensor:
    """Brightness added, contrast multiplied, light and dark exchanged, for each of images (B, C, H, W).

    Args:
        does: bool (B, 3), which of the three; the last is done to half of those asked.
        values: Uniform, (B, 3).
    """
    brightness = torch.where(does[:, 0], BRIGHTNESS_STD * normal(values[:, 0]), 0)
    contrast = torch.where(does[:, 1], 2 ** (CONTRAST_STD * normal(values[:, 1])), 1)
    flipped = (does[:, 2] & (values[:, 2] < 0.5)).to(x.dtype)
    x = (x + brightness[:, None, None, None]) * contrast[:, None, None, None]
    return x - 2 * flipped[:, None, None, None] * x.mean(1, keepdim=True)  # the colours' common part changes its sign


def resample(x: Tensor, maps: Tensor) -> Tensor:
    """Images (B, C, H, W) whose pixels come from where maps (B, 3, 3) say, bilinear, reflected at the edges."""
    height, width = x.shape[-2:]
    down = torch.arange(height, dtype=x.dtype, device=x.device) + (1 - height) / 2
    right = torch.arange(width, dtype=x.dtype, device=x.device) + (1 - width) / 2
    places = torch.stack([right.expand(height, -1), down[:, None].expand(-1, width)], dim=-1)  # (H, W, 2)
    linear, offset = maps[:, None, :2, :2], maps[:, None, None, :2, 2]  # (B, 1, 2, 2), (B, 1, 1, 2)
    grid = places @ linear.transpose(-1, -2) + offset  # (B, H, W, 2)
    unit = torch.tensor([2 / width, 2 / height], dtype=x.dtype, device=x.device)
    return F.grid_sample(x, grid * unit, mode="bilinear", padding_mode="reflection", align_corners=False)


def normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones, by the inverse distribution function."""
    return torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))


def diagonal(right: Tensor, down: Tensor) -> Tensor:
    """Both axes multiplied, (B,) each, as maps (B, 3, 3)."""
    return torch.diag_embed(torch.stack([right, down, torch.ones_like(right)], dim=1))


def rotation(angle: Tensor) -> Tensor:
    """Rotations by angles (B,) in radians as maps (B, 3, 3)."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=1).reshape(-1, 3, 3)


def shift(right: Tensor, down: Tensor) -> Tensor:
    """Translations by pixels (B,) each as maps (B, 3, 3)."""
    zero, one = torch.zeros_like(right), torch.ones_like(right)
    return torch.stack([one, zero, right, zero, one, down, zero, zero, one], dim=1).reshape(-1, 3, 3)
