"""Which quantisers there are, by the name that presets give them."""

from __future__ import annotations

from models.vqvae.ema import EMACodebook
from models.vqvae.fsq import FSQ
from models.vqvae.quantizer import Quantizer
from models.vqvae.rotation import Rotation
from models.vqvae.straight_through import StraightThrough

LEARNED = {"ema": EMACodebook, "original": StraightThrough, "rotation": Rotation}


def build_quantizer(
    name: str, *, levels: tuple[int, ...], codebook_size: int, codebook_dim: int, commitment: float, cosine: bool
) -> Quantizer:
    """A quantiser: ``levels`` are for "fsq", all else is for those with a learned codebook.

    Raises:
        ValueError: for another name, or if an argument is out of range.
    """
    if name == "fsq":
        return FSQ(tuple(levels))
    if name not in LEARNED:
        raise ValueError(f"unknown quantizer {name!r}; allowed: fsq, {', '.join(LEARNED)}")
    return LEARNED[name](codebook_size, codebook_dim, commitment=commitment, cosine=cosine)
