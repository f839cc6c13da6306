"""The record of one cell: everything that was measured, and under which conditions.

A record is what the report, the tables and the published numbers are made of. It is
written once, atomically, and never edited. This module imports neither torch nor a model.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evaluation.atomic import write_atomic as write_atomic  # where all look for it
from evaluation.atomic import write_json as write_json
from evaluation.files import FileError, read_json

SCHEMA_VERSION = 2
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
    """Training cost over all stages; ``train_flops`` is their sum. None, with the reason, where it is unknown."""

    train_flops: float | None
    images_seen: int | None
    steps: int | None
    stages: tuple[StageBudget, ...] = ()
    reason_missing: str | None = None


@dataclass(frozen=True)
class Parameters:
    """Parameter counts: all that was trained, and those that sampling needs; None where they are unknown."""

    total: int | None
    sampling: int | None


@dataclass(frozen=True)
class Fingerprint:
    """The conditions a number was computed under; numbers of different fingerprints are never ranked.

    ``weights_sha256`` and ``dtype`` are the extractor's, as read from its file and seen on its
    activations. ``resize`` names grid and filter, ``quantiser`` how pixels became uint8.
    ``reference_sha256`` is the hash of the real images themselves. ``seed`` is that of the metric's own
    randomness, None where it has none; the sampling seed is the record's.
    """

    features: str | None
    weights_sha256: str | None
    dtype: str
    resize: str
    quantiser: str
    n_real: int
    n_fake: int
    reference_split: str
    reference_sha256: str
    versions: dict[str, str]
    seed: int | None = None


@dataclass(frozen=True)
class MetricValue:
    """One number of the exam, or the reason why it is missing.

    ``features`` names the feature space (``None`` where there is none); ``ci_low`` and
    ``ci_high`` are ``None`` where no interval with a tested method exists, ``ci_method`` names it.
    ``higher_is_better`` is None for tests, by which nothing is ranked.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n_real: int
    n_fake: int
    features: str | None
    higher_is_better: bool | None
    reason_missing: str | None = None
    ci_method: str | None = None
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True)
class Likelihood:
    """Bits per dimension of uint8 test images; ``parts`` (bits per dimension) add up to it.

    ``kind`` is the sort of bound or estimate; kinds are never ranked against each other.
    ``standard_error`` is that of the mean over images, in bits per dimension. ``self_check`` says in
    one sentence how the number was checked and ``self_check_passed`` whether it held. ``settings``
    are the choices the number depends on (noise levels, tolerances, variances), ``nfe`` the mean
    network evaluations per image. ``tried`` are bits per dimension of a few validation images at every value
    of a setting among which one was chosen, by the setting's name.
    """

    bits_per_dim: float | None
    ci_low: float | None
    ci_high: float | None
    kind: str | None
    parts: dict[str, float] = field(default_factory=dict)
    n_images: int = 0
    reason_missing: str | None = None
    standard_error: float | None = None
    self_check: str | None = None
    self_check_passed: bool | None = None
    settings: dict[str, float | str] = field(default_factory=dict)
    nfe: float | None = None
    tried: dict[str, dict[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class BoundGap:
    """Bound minus truth on the same images, bits per dimension, with its paired standard error.

    A valid bound has a gap >= 0 but for its error, which is never below ln(1000) / 3 nats over all images
    together (``evaluation.truth``).
    """

    kind: str
    gap: float
    standard_error: float
    n_images: int


@dataclass(frozen=True)
class Truth:
    """What is known exactly of samples from a source whose density is known; bits per dimension.

    ``entropy`` is that of the source. ``cross_entropy`` is the mean of -log2 p(sample) / D under the
    true density: entropy + the samples' lack of fidelity. ``modes_reached`` of ``modes`` mixture
    components have at least one sample; ``mode_distance`` is the total variation in [0, 1] between
    the samples' mode histogram and the true weights, ``mode_distance_floor`` that of as many true draws.
    Every sample counts for its most probable mode, however improbable it is. Fidelity is
    ``cross_entropy`` against ``entropy`` (below it: samples keep to the densest places), diversity the
    others against their floors.

    ``modes_hit`` is the share of the modes that ``n_samples`` samples reach, ``modes_hit_expected`` exactly what as
    many true draws reach on average. ``mode_kl`` is KL(samples' mode histogram || true weights) in nats, plug-in and
    not smoothed, ``mode_kl_floor`` the mean over sets of as many true draws. ``off_mode`` is the share of samples less
    probable than all but ``off_mode_floor`` of true draws. None where a record is older than these.
    """

    entropy: float
    entropy_error: float
    cross_entropy: float
    cross_entropy_error: float
    modes: int
    modes_reached: int
    modes_reached_floor: float
    mode_distance: float
    mode_distance_floor: float
    gaps: tuple[BoundGap, ...] = ()
    n_samples: int | None = None
    modes_hit: float | None = None
    modes_hit_expected: float | None = None
    mode_kl: float | None = None
    mode_kl_floor: float | None = None
    off_mode: float | None = None
    off_mode_floor: float | None = None


@dataclass(frozen=True)
class CodeGrid:
    """One grid of a first stage's codes, and how many codes occur in it, over all test images that were looked at."""

    rows: int
    columns: int
    used: int
    perplexity: float


@dataclass(frozen=True)
class FirstStage:
    """What a first stage gives back of the first ``n_images`` test images.

    ``metrics`` by name: ``rfd_<features>`` or ``rfid``, ``psnr``, ``ssim`` and, of discrete codes, ``codebook_usage``,
    ``perplexity`` and ``dead_codes``. ``code_counts`` says how often each code occurs that occurs at all, falling;
    ``codebook_size``, ``grids`` and ``code_counts`` are empty where codes are continuous.
    """

    metrics: dict[str, MetricValue]
    n_images: int
    codebook_size: int = 0
    grids: tuple[CodeGrid, ...] = ()
    code_counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Speed:
    """Sampling speed, all stages included; latencies at batch size 1 in milliseconds.

    ``nfe`` counts network evaluations per image with a hook. ``utilisation`` = FLOPs per second while
    sampling / ``matmul_peak_flops``, the machine's measured matrix-product peak; FLOPs are nominal:
    products with zero padding count though kernels skip them. ``sweep`` is images per
    second by batch size, ``stage_seconds`` seconds per image by network at the best batch size (the
    rest under "other"), ``stage_latency_ms`` the median milliseconds by network at batch size 1,
    ``warm_up_seconds`` the first call, excluded from all else.
    """

    images_per_second: float | None
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    nfe: float | None
    batch_size: int | None
    peak_memory_mib: float | None
    flops_per_image: float | None
    utilisation: float | None
    reason_missing: str | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    latency_ms_p90: float | None = None
    warm_up_seconds: float | None = None
    matmul_peak_flops: float | None = None
    sweep: dict[str, float] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_latency_ms: dict[str, float] = field(default_factory=dict)

    @classmethod
    def missing(cls, reason: str) -> Speed:
        """A speed that was not measured, and why."""
        return cls(None, None, None, None, None, None, None, None, reason)


@dataclass(frozen=True)
class Provenance:
    """Where a record comes from. Hashes are SHA-256 hex digests.

    ``threads``, ``peak_memory_mib`` and ``hostname`` are those of the first of the ``processes`` that worked
    on it together, ``cpu_seconds`` of all; ``strategy`` is how they shared the training, None for one process.
    """

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
    processes: int = 1
    strategy: str | None = None
    hostname: str | None = None


@dataclass(frozen=True)
class Record:
    """One finished cell, or a row to compare it with.

    ``source`` is "trained", "control" (not a model) or "external" (images made elsewhere).
    ``likelihoods`` holds every kind that was computed; ``likelihood`` is the first of them.
    ``reconstruction`` is the exam of the first stage, None where there is none or the record is older than it.
    """

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
    likelihoods: tuple[Likelihood, ...] = ()
    truth: Truth | None = None
    reconstruction: FirstStage | None = None
    source: str = "trained"
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


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)  # building one takes 20 ms, as long as reading 100 records


def _load(path: Path, kind: Any) -> Any:
    try:
        return _adapter(kind).validate_python(read_json(path, f"a valid {kind.__name__}"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RecordError(f"{path} is not a valid {kind.__name__}: {where}: {first['msg']}") from None
    except FileError as error:
        raise RecordError(str(error)) from None


def load_record(path: Path) -> Record:
    """Read a record; raises ``RecordError`` with one sentence if it is damaged."""
    record = _load(path, Record)
    if record.schema_version != SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema version {record.schema_version}; "
            f"this version reads {SCHEMA_VERSION}; run the cell again"
        )
    return record


def load_failure(path: Path) -> Failure:
    """Read a failure file; raises ``RecordError`` with one sentence if it is damaged."""
    return _load(path, Failure)
