"""Augmentation that does not leak: the network is told how an image was changed, and asked for unchanged ones.

Karras et al. 2022 (arXiv:2206.00364), App. F.1, reduced to mirroring and whole-pixel shifts, which need no
interpolation. Images and what was done to them are functions of the uniform numbers alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_DRAWS = 5  # uniform numbers an image: whether to mirror, whether to shift, which side, how far in two directions
TOLD = 3  # numbers that tell the network: mirrored, shift down, shift right
MAX_SHIFT = 0.125  # of the width


def augment(x_0: Tensor, draws: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) changed with a probability, and what was done to each, (B, 3), zeros if nothing.

    Args:
        x_0: Images; pixels that a shift brings in repeat the border.
        draws: Uniform in [0, 1), (B, 5).
        probability: Of mirroring and, independently, of shifting.
    """
    height, width = x_0.shape[-2:]
    mirrored = (draws[:, 0] < probability) & (draws[:, 2] < 0.5)  # half of those asked stay, as in the source
    shifted = (draws[:, 1] < probability)[:, None]
    most = torch.tensor([int(MAX_SHIFT * height), int(MAX_SHIFT * width)], device=x_0.device)
    far = ((2 * draws[:, 3:5] - 1) * (most + 0.5)).round().long().clamp(-most, most)  # (B, 2)
    shift = torch.where(shifted, far, 0)
    rows = (torch.arange(height, device=x_0.device) - shift[:, :1]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=x_0.device) - shift[:, 1:]).clamp(0, width - 1)  # (B, W)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    image = torch.arange(len(x_0), device=x_0.device)[:, None, None]
    changed = x_0.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    told = torch.cat([mirrored[:, None].to(x_0.dtype), shift / most.clamp(min=1)], dim=1)
    return changed.contiguous(), told.to(x_0.dtype)
