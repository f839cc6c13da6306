"""Scores the controls of ``evaluation.controls`` once per dataset and exam, as rows of the report."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
from filelock import FileLock

from evaluation.controls import CONTROLS
from evaluation.likelihood.bits import missing as missing_likelihood
from evaluation.provenance import provenance
from evaluation.record import SCHEMA_VERSION, Budget, Parameters, Record, RecordError, Speed, load_record
from evaluation.runner import Generated, Reference, examine_images
from experiments.artifacts import save_samples
from experiments.locks import LOCK_FILE
from experiments.seeds import axis_seed

CONTROL_SEED = 0
NOT_A_MODEL = "a control, not a trained model"


def ensure_controls(reference: Reference, data_hash: str, out: Path) -> None:
    """Score every control that has no readable record yet, below ``out/controls``."""
    config: dict[str, object] = {"num_samples": reference.n, "features": list(reference.features)}
    identity = json.dumps({"config": config, "data": data_hash, "schema": SCHEMA_VERSION}, sort_keys=True)
    config_hash = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = out / "controls" / reference.dataset.info.name / config_hash
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK_FILE):  # whoever comes second waits, and finds them done
        for name in CONTROLS:
            path = folder / f"{name}.json"
            try:
                load_record(path)
            except RecordError:
                _score(name, reference, config, config_hash, data_hash, path)


def _score(
    name: str, reference: Reference, config: dict[str, object], config_hash: str, data_hash: str, path: Path
) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    # One stream for all: real_train then takes the rows that the reference's training side leaves.
    rng = np.random.default_rng(axis_seed(CONTROL_SEED, "controls"))
    drawn = CONTROLS[name](reference.dataset, reference.n, rng)
    generated = Generated(drawn.images, drawn.labels)
    metrics, truth = examine_images(reference, generated)
    save_samples(path.with_suffix(".npz"), generated)
    Record(
        model=name,
        dataset=reference.dataset.info.name,
        seed=CONTROL_SEED,
        config=config,
        config_hash=config_hash,
        budget=Budget(0.0, 0, 0),
        parameters=Parameters(0, 0),
        metrics=metrics,
        likelihood=missing_likelihood(NOT_A_MODEL),
        speed=Speed.missing(NOT_A_MODEL),
        truth=truth,
        source="control",
        provenance=provenance(
            dataset_sha256=data_hash, extractor_sha256=reference.extractor_sha256, checkpoint_sha256=None,
            ema=False, sampler=None, wall_seconds=time.perf_counter() - start,
            cpu_seconds=time.process_time() - cpu,
        ),
    ).save(path)
