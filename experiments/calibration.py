"""How long cells take on this machine: measured by every cell that finishes, used by every plan.

Kept in the user's cache, one entry per machine, model, dataset and configuration, the newest
measurement replacing the one before. Estimates are made from what was measured under the same
conditions; where there is nothing, they are missing. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from evaluation.features.weights import cache_folder
from evaluation.machine import cpu_name
from evaluation.record import Record, write_json
from experiments.config import Cell

FILE = "calibration.json"
LEAST_SECONDS = 5.0  # of training, for a rate that warm-up does not spoil
SHOWN_COMMAND = "python run.py calibrate"


@dataclass(frozen=True)
class Measurement:
    """What one finished cell took: training FLOP/s, seconds of everything after training, bytes on disk."""

    cpu: str
    threads: int
    model: str
    dataset: str
    model_config: str  # digest
    evaluation: str  # digest
    flops_per_second: float
    train_seconds: float
    exam_seconds: float
    size_bytes: int
    date: str

    @property
    def conditions(self) -> tuple[str | int, ...]:
        """What a measurement replaces an older one of."""
        return self.cpu, self.threads, self.model, self.dataset, self.model_config, self.evaluation


@dataclass(frozen=True)
class Estimate:
    """What a cell will take; None, with the reason, where nothing comparable was measured."""

    seconds: float | None
    size_bytes: int | None
    reason_missing: str | None = None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def calibration_file() -> Path:
    """Where measurements are kept."""
    return cache_folder() / FILE


def measurements() -> list[Measurement]:
    """All that is known; a damaged file is as good as none, the next finished cell writes it anew."""
    try:
        return _ADAPTER.validate_json(calibration_file().read_bytes())
    except (OSError, ValidationError):
        return []


_ADAPTER = TypeAdapter(list[Measurement])


def note(record: Record, folder: Path) -> None:
    """Keep what a finished cell took; a cache that cannot be written to is no reason to fail."""
    stages = record.budget.stages
    training = sum(stage.seconds for stage in stages)
    found = Measurement(
        cpu=record.provenance.cpu, threads=record.provenance.threads, model=record.model, dataset=record.dataset,
        model_config=_digest(record.config["model_config"]), evaluation=_digest(record.config["evaluation"]),
        flops_per_second=(record.budget.train_flops or 0.0) / max(training, 1e-9),
        train_seconds=training, exam_seconds=max(record.provenance.wall_seconds - training, 0.0),
        size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        date=record.provenance.date,
    )
    path = calibration_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=10):
            write_json(path, [asdict(measured) for measured in _with(measurements(), found)])


def _with(known: Sequence[Measurement], found: Measurement) -> list[Measurement]:
    """What is known afterwards; the warm-up of a short training does not replace the rate of a longer one."""
    same = [m for m in known if m.conditions == found.conditions]
    if any(m.train_seconds > found.train_seconds and found.train_seconds < LEAST_SECONDS for m in same):
        return list(known)
    return [*(m for m in known if m.conditions != found.conditions), found]


def estimate(cell: Cell, threads: int, known: Sequence[Measurement]) -> Estimate:
    """What a cell will take on this machine with so many threads."""
    config = cell.resolved()
    here = (cpu_name(), threads, cell.model, cell.dataset)
    alike = [m for m in known if m.conditions[:4] == here and m.evaluation == _digest(config["evaluation"])]
    if not alike:
        return Estimate(None, None, f"no {cell.model} was measured on {cell.dataset} with this exam on this machine; "
                                    f"{SHOWN_COMMAND} does it")
    same = [m for m in alike if m.model_config == _digest(config["model_config"])]
    if not same:
        return Estimate(None, max(m.size_bytes for m in alike), f"{cell.model} was measured in another "
                        f"configuration only; {SHOWN_COMMAND} does it")
    best = same[-1]
    return Estimate(cell.budget / max(best.flops_per_second, 1.0) + best.exam_seconds, best.size_bytes)
