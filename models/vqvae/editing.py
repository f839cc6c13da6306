"""What is given of a picture before codes are drawn: nothing, or the part that is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.vqvae.code_prior import UNKNOWN


def kept_codes(mask: Tensor, grids: tuple[tuple[int, int], ...]) -> Tensor:
    """Codes all of whose pixels are kept, bool (B, T).

    Args:
        mask: bool (B, 1, H, W), True where a pixel is kept.
        grids: (rows, columns) of every grid of codes; they divide H and W.
    """
    found = []
    for rows, columns in grids:
        cells = mask[:, 0].unflatten(1, (rows, -1)).unflatten(3, (columns, -1))  # (B, rows, h, columns, w)
        found.append(cells.all(4).all(2).flatten(1))
    return torch.cat(found, dim=1)


@dataclass(frozen=True)
class Painting:
    """A picture, uint8 (B, C, H, W), of which the pixels in ``mask``, bool (B, 1, H, W), are kept bit by bit.

    A code of which any pixel is painted anew is drawn; the others are those of the picture.
    """

    image: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Painting:
        """The same on a device."""
        return Painting(self.image.to(device), self.mask.to(device))

    def given(self, indices: Tensor, grids: tuple[tuple[int, int], ...]) -> Tensor:
        """The picture's codes (B, T), ``UNKNOWN`` where one is to be drawn."""
        return torch.where(kept_codes(self.mask, grids), indices, UNKNOWN)

    def finish(self, images: Tensor) -> Tensor:
        """What was drawn, uint8 (B, C, H, W), with the kept pixels in their places."""
        return torch.where(self.mask, self.image, images)


def painting(n: int, image: Tensor | None, mask: Tensor | None, size: tuple[int, ...]) -> Painting | None:
    """The picture that is painted in; None if none is given.

    Args:
        n: Number of samples.
        image: uint8 (n, C, H, W), checked against the model's shape by the caller.
        mask: bool (H, W) or (n, 1, H, W), True where the pixels of ``image`` are kept.
        size: (H, W).

    Raises:
        ValueError: if one is given without the other, or of another shape.
    """
    if image is None or mask is None:
        if image is not None:
            raise ValueError("image needs a mask, which says what of it is kept")
        if mask is not None:
            raise ValueError("mask needs the image whose pixels it keeps")
        return None
    if len(image) != n:
        raise ValueError(f"there must be as many images as samples, {n}, not {len(image)}")
    if mask.dtype != torch.bool or tuple(mask.shape) not in (size, (n, 1, *size)):
        raise ValueError(f"the mask must be bool {size} or {(n, 1, *size)}, not {mask.dtype} {tuple(mask.shape)}")
    return Painting(image, mask.expand(n, 1, *size))
