"""Under which conditions numbers were made: where fingerprints differ, and how that is said.

Two numbers of the same name may come from different weights, resize filters or library
versions and then mean different things. Only numbers of equal fingerprints are ranked or
averaged; this file tells which field differs and who holds which value.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, fields

from evaluation.record import Fingerprint

NONE_RECORDED = "none recorded"
SHORT_HASH = 12

FIELD_TITLES = {
    "features": "the feature space", "weights_sha256": "the weights' SHA-256", "dtype": "dtype",
    "resize": "resize", "quantiser": "the quantiser", "n_real": "the number of real images",
    "n_fake": "the number of generated images", "reference_split": "the reference split",
    "reference_sha256": "the reference images' SHA-256", "seed": "the metric's seed",
}  # fmt: skip


def fingerprint_differences(a: Fingerprint | None, b: Fingerprint | None) -> dict[str, tuple[str, str]]:
    """Fields in which two fingerprints differ, each with both values as text; empty if they agree.

    Versions are compared package by package ("version of torch"). A fingerprint that was not
    recorded agrees only with another that was not.
    """
    if a is None or b is None:
        return {} if a is b else {"fingerprint": (_recorded(a), _recorded(b))}
    left, right = described(a), described(b)
    return {
        name: (left.get(name, "none"), right.get(name, "none"))
        for name in dict.fromkeys((*left, *right)) if left.get(name) != right.get(name)
    }  # fmt: skip


def described(fingerprint: Fingerprint) -> dict[str, str]:
    """Every condition by its title, as text; one entry per package version."""
    texts: dict[str, str] = {}
    for field in fields(Fingerprint):
        value = getattr(fingerprint, field.name)
        if field.name == "versions":
            texts |= {f"version of {name}": version for name, version in sorted(value.items())}
        else:
            texts[FIELD_TITLES[field.name]] = "none" if value is None else f"{value}"
    return texts


def condition_key(fingerprint: Fingerprint | None) -> Hashable:
    """Equal for two fingerprints if and only if they do not differ."""
    if fingerprint is None:
        return None
    values = (getattr(fingerprint, field.name) for field in fields(Fingerprint) if field.name != "versions")
    return (*values, *sorted(fingerprint.versions.items()))


@dataclass(frozen=True)
class Conditions:
    """One number's fingerprint and the row that holds it."""

    who: str
    fingerprint: Fingerprint | None


def mixture(held: Iterable[Conditions]) -> str:
    """What differs between numbers, with who holds what; "" where nothing does.

    For example "resize differs (none for diffusion, gan; 16x16 bilinear for vqvae)".
    """
    held = list(held)
    if len({condition_key(item.fingerprint) for item in held}) < 2:
        return ""
    bare = [item for item in held if item.fingerprint is None]
    if bare:
        return f"no fingerprint was recorded for {_names(bare)}"
    titles = {
        title: None for item in held for title in fingerprint_differences(held[0].fingerprint, item.fingerprint)
    }
    return "; ".join(f"{title} differs ({_who_holds(title, held)})" for title in titles)


def short(text: str) -> str:
    """A SHA-256 digest cut to its first digits; other text as it is."""
    is_hash = len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)
    return text[:SHORT_HASH] if is_hash else text


def _who_holds(title: str, held: list[Conditions]) -> str:
    holders: dict[str, list[Conditions]] = {}
    for item in held:
        if item.fingerprint is not None:
            holders.setdefault(described(item.fingerprint).get(title, "none"), []).append(item)
    return "; ".join(f"{short(value)} for {_names(items)}" for value, items in holders.items())


def _names(items: list[Conditions]) -> str:
    return ", ".join(dict.fromkeys(item.who for item in items))


def _recorded(fingerprint: Fingerprint | None) -> str:
    return NONE_RECORDED if fingerprint is None else "recorded"
