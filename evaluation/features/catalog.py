"""The feature extractors by name, without torch; and the shipped ones as files, cards and checksums.

A shipped extractor is a pair ``weights/<name>.safetensors`` and ``weights/<name>.json``; the card holds
the checksum, the architecture, the accuracy and the command that trained it. All others are pretrained
networks whose weights are sought elsewhere (``features.weights``); they carry torch-fidelity's names, but
for ``inception`` (its ``inception-v3-compat``) and ``efficientnet_lite0``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "weights"

INCEPTION = "inception"
EFFICIENTNET = "efficientnet_lite0"
CLIP = (
    "clip-rn50", "clip-rn101", "clip-rn50x4", "clip-rn50x16", "clip-rn50x64", "clip-vit-b-32", "clip-vit-b-16",
    "clip-vit-l-14", "clip-vit-l-14-336px",
)
DINOV2 = ("dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14", "dinov2-vit-g-14")
PRETRAINED = (INCEPTION, "vgg16", *CLIP, *DINOV2, EFFICIENTNET)


class ExtractorError(ValueError):
    """An extractor that is unknown, or whose weights are damaged or cannot be had; one sentence."""


def shipped() -> list[str]:
    """Names of the extractors that come with the package: both weights and a card are there; sorted."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors") if path.with_suffix(".json").is_file())


def available() -> list[str]:
    """Names of all extractors: the shipped ones first, then the pretrained, whose weights may be missing."""
    return [*shipped(), *PRETRAINED]


def check_name(name: str) -> None:
    """``ExtractorError`` unless an extractor has this name."""
    if name not in available():
        near = difflib.get_close_matches(name, available(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ExtractorError(f"unknown feature extractor {name!r}; {hint}allowed: {', '.join(available())}")


def weights_path(name: str) -> Path:
    """The weights file of a shipped extractor; ``ExtractorError`` names those that exist."""
    check_name(name)
    if name not in shipped():
        allowed = ", ".join(shipped()) or "none"
        raise ExtractorError(f"feature extractor {name!r} is not shipped with the package; shipped: {allowed}")
    return WEIGHTS / f"{name}.safetensors"


def card(name: str) -> dict[str, Any]:
    """The card of a shipped extractor: checksum, architecture, accuracy, command, seed, versions."""
    return read_card(weights_path(name))


def read_card(weights: Path) -> dict[str, Any]:
    """The card beside a weights file."""
    path = weights.with_suffix(".json")
    try:
        content = json.loads(path.read_bytes())
        return {"sha256": content["sha256"], **content}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExtractorError(f"{path} is not an extractor's card ({error!r}); restore the file") from None


def verify(name: str) -> str:
    """SHA-256 of a shipped extractor's weights; ``ExtractorError`` if it is not the one on the card."""
    return verify_file(weights_path(name))


def verify_file(weights: Path) -> str:
    """SHA-256 of a weights file; ``ExtractorError`` if it is not the one on the card beside it."""
    expected = read_card(weights)["sha256"]
    found = file_sha256(weights)
    if found != expected:
        raise ExtractorError(f"{weights} is damaged: its SHA-256 should be {expected} and is {found}")
    return found


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex; ``ExtractorError`` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExtractorError(f"{path} cannot be read: {error.strerror}") from None
