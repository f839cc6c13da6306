"""Features of images that do not change, kept by content: a reference is looked at once.

A file's name is the SHA-256 of all its content depends on (extractor, weights, type, resize, device,
library versions, the images themselves), so it can be stale in no way. It carries the SHA-256 of its own
arrays; one that does not match is rebuilt. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.features.extractors import FeatureExtractor, Features
from evaluation.features.weights import cache_folder
from evaluation.files import FileError, MissingFileError, read_npz
from evaluation.record import write_atomic

PACKAGES = ("torch", "torchvision", "torch-fidelity")
DIGEST = "sha256"


def cached_features(
    extractor: FeatureExtractor, images: NDArray[np.uint8] | torch.Tensor, *, folder: Path | None = None
) -> Features:
    """Features of images uint8 (N, C, H, W), from the cache if they are there.

    Args:
        extractor: What looks at them.
        images: uint8 (N, C, H, W).
        folder: Where files are kept; default: ``features`` in the cache folder. If it cannot be written to,
            the features are computed each time.

    Raises:
        ValueError: If the images are not of the extractor's format.
    """
    path = (folder or cache_folder() / "features") / f"{cache_key(extractor, images)}.npz"
    found = _read(path)
    if found is None:
        found = extractor.extract(images)
        _write(path, found)
    return found


def cache_key(extractor: FeatureExtractor, images: NDArray[np.uint8] | torch.Tensor) -> str:
    """SHA-256 over everything that features depend on."""
    pixels = np.ascontiguousarray(images)
    conditions = {
        "name": extractor.name, "weights": extractor.sha256, "dtype": extractor.dtype, "resize": extractor.resize,
        "device": extractor.device.type, "versions": {package: version(package) for package in PACKAGES},
        "shape": pixels.shape, "pixels": str(pixels.dtype),
    }
    digest = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode())
    digest.update(pixels.data)
    return digest.hexdigest()


def _read(path: Path) -> Features | None:
    """What a file holds; None, with a warning, if it is damaged, or if there is none."""
    try:
        arrays = read_npz(path)
        sound = arrays.pop(DIGEST).tobytes() == _digest(arrays) and "features" in arrays
    except MissingFileError:  # never there, or another process has just removed it
        return None
    except (FileError, KeyError):
        sound = False
    if not sound:
        warnings.warn(f"the cached features {path} are damaged and are computed again", stacklevel=3)
        return None
    return Features(arrays["features"], arrays.get("predictions"), arrays.get("logits"))


def _write(path: Path, features: Features) -> None:
    arrays = {name: array for name, array in features._asdict().items() if array is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{DIGEST: np.frombuffer(_digest(arrays), np.uint8)})
    with contextlib.suppress(OSError):  # a cache that cannot be written is no reason not to go on
        write_atomic(path, buffer.getvalue())


def _digest(arrays: dict[str, NDArray[np.generic]]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.digest()
