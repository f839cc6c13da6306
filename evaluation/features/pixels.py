"""Pixels as features: what distances between images mean before any network has looked at them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pixel_features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images uint8 (N, C, H, W) as float32 (N, C*H*W) in [0, 1]; ``ValueError`` if they are none."""
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 (N, C, H, W), not {images.dtype} {images.shape}")
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
