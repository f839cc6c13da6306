"""The curves of one finished cell: quality along sweeps of sampler settings, and where the bits lie; no torch.

``curves.json`` lies beside the record and is no part of what ``done`` seals, as it may be measured later and
grow. It carries a checksum of its own content and names the cell and the checkpoint that it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evaluation.atomic import write_json
from evaluation.files import FileError, read_json
from evaluation.record import MetricValue, Record

SCHEMA_VERSION = 1
CURVES_FILE = "curves.json"
NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
MOST_TEXT = 80  # characters of a label, which a figure must have room for

Option = int | float | str


@dataclass(frozen=True)
class SweepAxis:
    """What a sweep varies: its ``name``, what a title and an axis call it, and whether the axis is logarithmic."""

    name: str
    title: str
    label: str
    log: bool


@dataclass(frozen=True)
class CurvePoint:
    """The distance to the real images under one setting of the sampler.

    ``series`` is the line of the ``sweep`` that it lies on, ``x`` its place there; ``options`` are those of the
    sampler. ``nfe`` counts network evaluations per image as sampling reported them, ``seed`` is that of sampling,
    ``value.n_fake`` the number of images; ``seconds`` is what making and judging them took. ``beside`` are other
    metrics of the same images, by name.
    """

    sweep: str
    series: str
    x: float
    options: dict[str, Option]
    nfe: int
    metric: str
    value: MetricValue
    seed: int
    seconds: float
    beside: dict[str, MetricValue] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What was measured, wherever it is drawn: settings, number of images and seed."""
        return setting_key(self.options, self.value.n_fake, self.seed)


@dataclass(frozen=True)
class Floor:
    """The distance of as many real training images to the same test images, or another metric of them."""

    metric: str
    value: MetricValue


@dataclass(frozen=True)
class BitProfile:
    """Where on an axis the bits of a likelihood lie: means over ``n_images`` test images.

    ``bits`` (bits per dimension, with ``standard_errors``) and ``parts`` add up to ``bits_per_dim``; ``errors``
    are what ``error_label`` says, at the same ``positions``.
    """

    kind: str
    label: str
    error_label: str
    positions: tuple[float, ...]
    bits: tuple[float, ...]
    standard_errors: tuple[float, ...]
    errors: tuple[float, ...]
    parts: dict[str, float]
    bits_per_dim: float
    n_images: int
    seed: int


@dataclass(frozen=True)
class Curves:
    """All that was measured of one checkpoint, and the cell whose it is."""

    model: str
    dataset: str
    config_hash: str
    seed: int
    checkpoint_sha256: str
    axes: tuple[SweepAxis, ...] = ()
    points: tuple[CurvePoint, ...] = ()
    floors: tuple[Floor, ...] = ()
    profiles: tuple[BitProfile, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def save(self, path: Path) -> None:
        """Write atomically as JSON with a checksum; a number that is not finite raises ``ValueError``."""
        content = asdict(self)
        write_json(path, content | {"checksum": _digest(content)})


def setting_key(options: dict[str, Option], n: int, seed: int) -> str:
    """A text that is equal for equal sampler options, number of images and seed."""
    plain = {name: float(v) if isinstance(v, int | float) else v for name, v in options.items()}
    return json.dumps([plain, n, seed], sort_keys=True)


def of_cell(record: Record) -> Curves:
    """The curves of a cell of which nothing is measured yet."""
    checkpoint = record.provenance.checkpoint_sha256 or ""
    return Curves(record.model, record.dataset, record.config_hash, record.seed, checkpoint)


def load_curves(path: Path, record: Record) -> Curves:
    """The curves beside a record.

    Raises:
        FileError: They are damaged, of another version, or not of this cell and checkpoint.
    """
    content = read_json(path, "a valid file of curves")
    told = content.pop("checksum", None) if isinstance(content, dict) else None
    if told != _digest(content):
        raise FileError(path, "is damaged: its checksum is not that of its content")
    if content.get("schema_version") != SCHEMA_VERSION:
        found = str(content.get("schema_version"))[:20]
        raise FileError(path, f"has schema version {found}; this version reads {SCHEMA_VERSION}; measure it again")
    try:
        curves: Curves = _adapter().validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise FileError(path, f"is not a valid file of curves: {where[:200]}: {first['msg']}") from None
    fault = _fault(curves)
    if fault:
        raise FileError(path, f"is not a valid file of curves: {fault}")
    own = of_cell(record)
    for name in ("model", "dataset", "config_hash", "seed", "checkpoint_sha256"):
        if getattr(curves, name) != getattr(own, name):
            raise FileError(path, f"belongs to another cell or checkpoint: its {name} is not that of the record")
    return curves


@cache
def _adapter() -> TypeAdapter[Curves]:
    return TypeAdapter(Curves)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fault(curves: Curves) -> str | None:
    """What in curves of the right form cannot be, in a few words; None if nothing."""
    axes = {axis.name: axis for axis in curves.axes}
    if not all(map(NAME.fullmatch, axes)):
        return f"axes: names of 1 to 40 letters, digits and '_' are allowed, not {', '.join(axes)[:80]!r}"
    texts = [text for axis in curves.axes for text in (axis.title, axis.label)]
    texts += [text for point in curves.points for text in (point.series, point.metric)]
    texts += [text for profile in curves.profiles for text in (profile.kind, profile.label, profile.error_label)]
    long = next((text for text in texts if not 1 <= len(text) <= MOST_TEXT or not text.isprintable()), None)
    if long is not None:
        return f"{long[:40]!r} is no text of 1 to {MOST_TEXT} characters"
    for place, point in enumerate(curves.points):
        if point.sweep not in axes:
            return f"points.{place}: there is no sweep {point.sweep[:40]!r}"
        if point.nfe < 1 or point.seconds < 0 or point.value.n_fake < 1 or (axes[point.sweep].log and point.x <= 0):
            return f"points.{place}: a count or place is out of range"
    faults = (_profile_fault(profile) for profile in curves.profiles)
    return next((fault for fault in faults if fault), None)


def _profile_fault(profile: BitProfile) -> str | None:
    lengths = {len(profile.positions), len(profile.bits), len(profile.standard_errors), len(profile.errors)}
    if len(lengths) > 1 or 0 in lengths:
        return f"profiles: {profile.kind}: its columns are not of one length"
    rising = all(a < b for a, b in zip(profile.positions, profile.positions[1:], strict=False))
    if not rising or profile.positions[0] <= 0 or profile.n_images < 1:
        return f"profiles: {profile.kind}: positions must ascend from above 0, and there must be images"
    total = sum(profile.bits) + sum(profile.parts.values())
    if not math.isclose(total, profile.bits_per_dim, rel_tol=1e-6, abs_tol=1e-9):
        return f"profiles: {profile.kind}: its pieces add up to {total:g}, not to {profile.bits_per_dim:g}"
    return None
