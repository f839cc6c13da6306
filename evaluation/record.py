"""The record of one cell: everything that was measured, and under which conditions.

A record is what the report, the tables and the published numbers are made of. It is
written once, atomically, and never edited. This module imports neither torch nor a model.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

SCHEMA_VERSION = 1
RECORD_FILE = "record.json"
FAILURE_FILE = "failure.json"


class RecordError(ValueError):
    """A record file that cannot be read; the message is one sentence naming the file."""


@dataclass(frozen=True)
class StageBudget:
    """What one training stage consumed. ``flops`` counts everything the stage ran."""

    name: str
    flops: float
    images_seen: int
    seconds: float


@dataclass(frozen=True)
class Budget:
    """Training cost over all stages; ``train_flops`` is their sum."""

    train_flops: float
    images_seen: int
    steps: int
    stages: tuple[StageBudget, ...] = ()


@dataclass(frozen=True)
class Parameters:
    """Parameter counts: all that was trained, and those that sampling needs."""

    total: int
    sampling: int


@dataclass(frozen=True)
class MetricValue:
    """One number of the exam, or the reason why it is missing.

    ``features`` names the feature space (``None`` where there is none); ``ci_low`` and
    ``ci_high`` are ``None`` where no interval with a tested method exists.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n_real: int
    n_fake: int
    features: str | None
    higher_is_better: bool
    reason_missing: str | None = None


@dataclass(frozen=True)
class Likelihood:
    """Bits per dimension of uint8 test images; ``parts`` (bits per dimension) add up to it."""

    bits_per_dim: float | None
    ci_low: float | None
    ci_high: float | None
    kind: str | None
    parts: dict[str, float] = field(default_factory=dict)
    n_images: int = 0
    reason_missing: str | None = None


@dataclass(frozen=True)
class Speed:
    """Sampling speed, all stages included; latencies at batch size 1 in milliseconds.

    ``utilisation`` = FLOPs per second while sampling / measured matrix-product peak.
    """

    images_per_second: float | None
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    nfe: int | None
    batch_size: int | None
    peak_memory_mib: float | None
    flops_per_image: float | None
    utilisation: float | None
    reason_missing: str | None = None


@dataclass(frozen=True)
class Provenance:
    """Where a record comes from. Hashes are SHA-256 hex digests."""

    git_commit: str | None
    dirty_diff_hash: str | None
    versions: dict[str, str]
    cpu: str
    gpu: str | None
    threads: int
    precision: str
    dataset_sha256: str
    extractor_sha256: str | None
    checkpoint_sha256: str | None
    ema: bool
    sampler: str | None
    wall_seconds: float
    cpu_seconds: float
    peak_memory_mib: float
    date: str


@dataclass(frozen=True)
class Record:
    """One finished cell (or control: a row that was not trained, to compare with)."""

    model: str
    dataset: str
    seed: int
    config: dict[str, Any]
    config_hash: str
    budget: Budget
    parameters: Parameters
    metrics: dict[str, MetricValue]
    likelihood: Likelihood
    speed: Speed
    provenance: Provenance
    schema_version: int = SCHEMA_VERSION

    def save(self, path: Path) -> None:
        """Write atomically as JSON; a number that is not finite raises ``ValueError``."""
        write_json(path, asdict(self))


@dataclass(frozen=True)
class Failure:
    """A cell that did not finish: one sentence saying why."""

    model: str
    dataset: str
    seed: int
    config_hash: str
    message: str
    date: str

    def save(self, path: Path) -> None:
        """Write atomically as JSON."""
        write_json(path, asdict(self))


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either its old content or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN and infinity raise ``ValueError`` (they are not JSON)."""
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)  # building one takes 20 ms, as long as reading 100 records


def _load(path: Path, kind: Any) -> Any:
    try:
        return _adapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RecordError(f"{path} is not a valid {kind.__name__}: {where}: {first['msg']}") from None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from None


def load_record(path: Path) -> Record:
    """Read a record; raises ``RecordError`` with one sentence if it is damaged."""
    record = _load(path, Record)
    if record.schema_version != SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema version {record.schema_version}; "
            f"this version reads {SCHEMA_VERSION}"
        )
    return record


def load_failure(path: Path) -> Failure:
    """Read a failure file; raises ``RecordError`` with one sentence if it is damaged."""
    return _load(path, Failure)
