"""Find everything a folder of runs holds: records, controls, failures, and what is damaged.

Only the small JSON files are read here. Images and training logs are loaded one by one
when a figure asks for them, so that a thousand records stay quick. A damaged file is
never fatal: it becomes one sentence in the report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.curves import CURVES_FILE
from evaluation.files import MAX_TABLE, FileError, open_picture, read_bytes, read_json, read_npz
from evaluation.record import (
    FAILURE_FILE,
    RECORD_FILE,
    Failure,
    Likelihood,
    Record,
    RecordError,
    Speed,
    Truth,
    load_failure,
    load_record,
)
from evaluation.seal import record_fault

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CONTROL_TITLES = {
    "real_train": "real train images (floor)",
    "gaussian": "Gaussian fitted to training pixels (full covariance)",
    "copycat": "copycat: returns training images",
}


@dataclass(frozen=True)
class Run:
    """A record and where the files that belong to it are. ``control``: a row that is no model."""

    record: Record
    path: Path
    control: bool

    @property
    def name(self) -> str:
        """The model's name, or the short name of the control."""
        return self.path.stem if self.control else self.record.model

    @property
    def external(self) -> bool:
        """Whether the images were made elsewhere and only examined here."""
        return not self.control and self.record.source == "external"

    @property
    def trained(self) -> bool:
        """Whether a model was trained here."""
        return not self.control and not self.external

    @property
    def budget(self) -> float:
        """The training compute that was asked for, in FLOPs; 0 for what was not trained here."""
        if not self.trained:
            return 0.0
        return float(self.record.config.get("budget", self.record.budget.train_flops or 0))

    @property
    def samples_path(self) -> Path:
        """Generated images of this run."""
        return self.path.with_suffix(".npz") if self.control else self.path.with_name("samples.npz")

    @property
    def log_path(self) -> Path:
        """Training log of this run."""
        return self.path.with_name("metrics.csv")

    @property
    def trajectory_path(self) -> Path:
        """Picture of samples coming out of static, where the model makes one."""
        return self.path.with_name("trajectory.png")

    def picture_path(self, name: str) -> Path:
        """A picture of this run's first stage or latent space, such as codes or inversion; not every run has them."""
        return self.path.with_name(f"{name}.png")

    @property
    def curves_path(self) -> Path:
        """Quality against settings of the sampler, where that was measured."""
        return self.path.with_name(CURVES_FILE)


@dataclass(frozen=True)
class FailedCell:
    """A failure with the budget of its cell, where that can be found out."""

    failure: Failure
    budget: float | None


@dataclass(frozen=True)
class Collection:
    """All that was found. ``unreadable`` holds one sentence per damaged file."""

    runs: tuple[Run, ...]
    failed: tuple[FailedCell, ...]
    unreadable: tuple[str, ...]


def collect(out: Path) -> Collection:
    """Read every record, control and failure below ``out``; nothing that is damaged raises."""
    runs: list[Run] = []
    failed: list[FailedCell] = []
    unreadable: list[str] = []
    for path, control in _record_paths(out):
        fault = None if control else record_fault(path.parent)
        if fault:
            unreadable.append(relative(fault, out))
            continue
        try:
            runs.append(Run(_usable(load_record(path), path), path, control))
        except RecordError as error:
            unreadable.append(relative(str(error), out))
    for path in sorted(out.glob(f"*/*/*/seed=*/{FAILURE_FILE}")):
        if path.with_name(RECORD_FILE).exists():
            continue  # the cell was run again and finished
        try:
            failed.append(_failed_cell(path, runs))
        except RecordError as error:
            unreadable.append(relative(str(error), out))
    return Collection(tuple(runs), tuple(failed), tuple(unreadable))


def relative(sentence: str, out: Path) -> str:
    """The sentence with paths below ``out`` shortened, as a report travels to other machines."""
    return sentence.replace(f"{out}/", "")


def _usable(record: Record, path: Path) -> Record:
    """The record, whose names become names of files; ``RecordError`` if they or its budget cannot be used."""
    for name in (record.model, record.dataset, record.config_hash):
        if not PLAIN_NAME.fullmatch(name):
            allowed = "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first, are allowed"
            raise RecordError(f"{path} is not a valid Record: {name[:80]!r} is no name; {allowed}")
    budget = record.config.get("budget", 0)
    if isinstance(budget, bool) or not isinstance(budget, int | float) or budget < 0:
        raise RecordError(f"{path} is not a valid Record: config.budget: a number of FLOPs is allowed")
    first_stage = record.reconstruction.metrics if record.reconstruction else {}
    intervals = record.metrics | first_stage | {"likelihood": record.likelihood, "speed": record.speed}
    for name, value in intervals.items():
        if value.ci_low is not None and value.ci_high is not None and value.ci_low > value.ci_high:
            raise RecordError(f"{path} is not a valid Record: {name[:80]!r} has an interval that ends before it begins")
    return record


def _record_paths(out: Path) -> Iterator[tuple[Path, bool]]:
    for path in sorted(out.glob(f"*/*/*/seed=*/{RECORD_FILE}")):
        yield path, False
    for path in sorted(out.glob("controls/*/*/*.json")):
        yield path, True


def _failed_cell(path: Path, runs: list[Run]) -> FailedCell:
    failure = load_failure(path)
    siblings = (r.budget for r in runs if not r.control and r.record.config_hash == failure.config_hash)
    budget = next(siblings, None)
    if budget is None:
        budget = _budget_in(path.with_name("config.json"))
    return FailedCell(failure, budget)


def _budget_in(path: Path) -> float | None:
    try:
        return float(read_json(path)["budget"])
    except (ValueError, KeyError, TypeError):
        return None  # the failure is still shown, only not under a budget


def load_samples(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Images uint8 (N, C, H, W) and, if every image has one, class labels int64 (N,).

    Raises:
        FileError: the file is missing, damaged, or of another shape or type.
    """
    arrays = read_npz(path)
    if "images" not in arrays:
        raise FileError(path, "cannot be read as samples: it has no array 'images'")
    images, labels = arrays["images"], arrays.get("labels")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise FileError(path, f"must hold uint8 images (N, 1 or 3, H, W), not {images.dtype} {images.shape}")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or (labels < 0).any()):
        labels = None
    return images, labels


def load_log(path: Path) -> pd.DataFrame:
    """A training log; raises ``FileError`` where it cannot be parsed or has no usable column."""
    content = read_bytes(path, MAX_TABLE)
    try:
        log = pd.read_csv(BytesIO(content))
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise FileError(path, f"cannot be read as a training log: {_reason(error)}") from None
    losses = [c for c in log if str(c).endswith("loss")]
    if "images_seen" not in log or not losses:
        found = ", ".join(map(str, log))
        raise FileError(path, f"needs a column images_seen and one that ends in loss; it has {found[:200]}")
    words = [c for c in ("images_seen", *losses) if not pd.api.types.is_numeric_dtype(log[c])]
    if words:
        raise FileError(path, f"cannot be read as a training log: its column {words[0]} holds more than numbers")
    return log


def load_picture(path: Path) -> NDArray[np.uint8]:
    """An RGB picture uint8 (H, W, 3); raises ``FileError`` where it cannot be decoded."""
    return np.asarray(open_picture(path).convert("RGB"))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")


def results_frame(runs: tuple[Run, ...]) -> pd.DataFrame:
    """One row per record with flat columns: what ``results.csv`` and ``results.parquet`` hold."""
    return pd.DataFrame([_flat(run) for run in runs])


def _flat(run: Run) -> dict[str, Any]:
    record = run.record
    row: dict[str, Any] = {
        "model": run.name,
        "dataset": record.dataset,
        "source": record.source,
        "control": run.control,
        "seed": record.seed,
        "config_hash": record.config_hash,
        "budget": run.budget,
        "train_flops": record.budget.train_flops,
        "images_seen": record.budget.images_seen,
        "steps": record.budget.steps,
        "parameters_total": record.parameters.total,
        "parameters_sampling": record.parameters.sampling,
    }
    row |= {f"train_flops_{stage.name}": stage.flops for stage in record.budget.stages}
    row |= {f"train_seconds_{stage.name}": stage.seconds for stage in record.budget.stages}
    first = record.reconstruction
    for name, metric in sorted((record.metrics | (first.metrics if first else {})).items()):
        fields = vars(metric) | {"fingerprint": _json(vars(metric.fingerprint) if metric.fingerprint else None)}
        row[name] = fields.pop("value")
        row.update({f"{name}_{key}": value for key, value in fields.items()})
    if first:
        row |= {"codebook_size": first.codebook_size, "codes_per_image": sum(g.rows * g.columns for g in first.grids)}
    row |= _flat_bound("bits_per_dim", record.likelihood)
    for bound in record.likelihoods:
        if bound.kind is not None and bound.kind != record.likelihood.kind:
            row |= _flat_bound(f"bits_per_dim_{bound.kind}", bound)
    row |= _flat_truth(record.truth) | _flat_speed(record.speed)
    provenance = asdict(record.provenance)
    versions = provenance.pop("versions")
    row["process_peak_memory_mib"] = provenance.pop("peak_memory_mib")  # the bare name is the sampler's
    row["arithmetic"] = provenance.pop("precision")  # the bare name is the metric's
    row.update(provenance)
    row.update({f"version_{name}": version for name, version in sorted(versions.items())})
    return row


def _json(value: dict[str, Any] | None) -> str | None:
    """What has no column of its own as one text, so that a column holds one type of value only."""
    return json.dumps(value, sort_keys=True) if value else None


def _flat_bound(name: str, bound: Likelihood) -> dict[str, Any]:
    fields = vars(bound) | {"settings": _json(bound.settings), "tried": _json(bound.tried)}
    parts = fields.pop("parts")
    row = {name: fields.pop("bits_per_dim")}
    row |= {f"{name}_{key}": value for key, value in fields.items()}
    return row | {f"{name}_part_{key}": value for key, value in parts.items()}


def _flat_truth(truth: Truth | None) -> dict[str, Any]:
    if truth is None:
        return {}
    fields = asdict(truth)
    gaps = fields.pop("gaps")
    row = {f"truth_{key}": value for key, value in fields.items()}
    for gap in gaps:
        kind = gap.pop("kind")
        row |= {f"truth_{key}_{kind}": value for key, value in gap.items()}
    return row


def _flat_speed(speed: Speed) -> dict[str, Any]:
    fields = asdict(speed)
    row = {f"images_per_second_batch_{size}": rate for size, rate in fields.pop("sweep").items()}
    row |= {f"stage_seconds_{name}": seconds for name, seconds in fields.pop("stage_seconds").items()}
    row |= {f"stage_latency_ms_{name}": value for name, value in fields.pop("stage_latency_ms").items()}
    row |= {f"speed_{key}": fields.pop(key) for key in ("reason_missing", "ci_low", "ci_high")}
    return fields | row
