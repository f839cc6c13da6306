"""The shipped extractors as files: names, cards and checksums, without torch.

An extractor is a pair ``weights/<name>.safetensors`` and ``weights/<name>.json``; the card holds
the checksum, the architecture, the accuracy and the command that trained it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "weights"


class ExtractorError(ValueError):
    """An extractor that is unknown or whose files are not the shipped ones; one sentence."""


def available() -> list[str]:
    """Names of the extractors that have both weights and a card, sorted."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors") if path.with_suffix(".json").is_file())


def weights_path(name: str) -> Path:
    """The weights file of an extractor; ``ExtractorError`` names those that exist."""
    if name not in available():
        allowed = ", ".join(available()) or "none"
        raise ExtractorError(f"unknown feature extractor {name!r}; allowed: {allowed}")
    return WEIGHTS / f"{name}.safetensors"


def card(name: str) -> dict[str, Any]:
    """The card of an extractor: checksum, architecture, accuracy, command, seed, versions."""
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
    """SHA-256 of an extractor's weights; ``ExtractorError`` if it is not the one on the card."""
    return verify_file(weights_path(name))


def verify_file(weights: Path) -> str:
    """SHA-256 of a weights file; ``ExtractorError`` if it is not the one on the card beside it."""
    expected = read_card(weights)["sha256"]
    try:
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise ExtractorError(f"{weights} cannot be read: {error.strerror}") from None
    if found != expected:
        raise ExtractorError(f"{weights} is damaged: its SHA-256 should be {expected} and is {found}")
    return found
