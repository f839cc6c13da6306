"""Images made elsewhere sit the exam and enter the report as a row of their own.

``Entry`` is what was asked for, without torch; ``evaluate_entry`` does it. The row is kept like a cell's:
``<out>/<NAME>/<dataset>/<hash>/seed=0/`` with samples, picture, record and, last of all, the marker.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.base import DataNotFoundError
from experiments.cell_files import finished_record, seal
from experiments.cli_options import UsageError
from experiments.config import EvaluationConfig
from experiments.discovery import dataset_module, model_names
from experiments.external import External, ExternalError, read_images

if TYPE_CHECKING:
    from evaluation.record import Record
    from evaluation.runner import Reference

SEED = 0
MADE_ELSEWHERE = "made elsewhere: {} unknown"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SHOWN = 100  # images in the picture


@dataclass(frozen=True)
class Entry:
    """A set of images under a name, and the exam it is to sit."""

    name: str
    images: Path
    dataset: str
    data_config: Any
    evaluation: EvaluationConfig
    resize: bool


def entry_name(given: str | None, images: Path) -> str:
    """The name of the row: the one given, or the file's or folder's; ``UsageError`` if it cannot be one."""
    from evaluation.controls import CONTROLS

    whole = images.expanduser().resolve()
    name = (whole.name if whole.is_dir() else whole.stem) if given is None else given
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a row: 1 to 64 letters, digits, '.', '_' or '-' are allowed, "
            "a letter or digit first; choose one with --name"
        )
    if name in {*model_names(), *CONTROLS, "controls", "report", "grids", "slurm"}:
        raise UsageError(f"{name!r} is taken by a model, a control or a folder of the runs; choose another with --name")
    return name


def evaluate_entry(entry: Entry, out: Path) -> int:
    """Examine, record, report; 0 if all files could be read, 1 if some were left out or something failed.

    Raises:
        UsageError: The images or the data cannot be used; nothing has been written.
    """
    try:
        found = read_images(entry.images.expanduser(), dataset_module(entry.dataset).INFO, resize=entry.resize)
    except ExternalError as error:
        raise UsageError(str(error)) from None
    for sentence in found.unreadable:
        print(f"error: {sentence}", file=sys.stderr)
    used = _at_most(found, entry.evaluation.num_samples)
    if len(used.images) < len(found.images):
        print(f"{len(used.images):,} of {len(found.images):,} images, drawn with seed {SEED}, are used "
              "(--evaluation.num_samples)")
    record = _examined(entry, used, out)
    if record is None:
        return 1
    from rich.console import Console

    from experiments.cli_run import summary_table, write_page

    written = write_page(out)
    Console().print(summary_table([record]))
    return int(not written or bool(found.unreadable))


def _at_most(found: External, n: int) -> External:
    """n of the images at random (they may be sorted by class), in their order; all of them if there are no more."""
    if len(found.images) <= n:
        return found
    rows = np.sort(np.random.default_rng(SEED).permutation(len(found.images))[:n])
    return replace(found, images=found.images[rows], labels=None if found.labels is None else found.labels[rows])


def _examined(entry: Entry, found: External, out: Path) -> Record | None:
    """The record of the entry, made now or before; None, with a sentence on stderr, if that failed."""
    try:
        dataset = dataset_module(entry.dataset).load(entry.data_config)
        out.mkdir(parents=True, exist_ok=True)
    except DataNotFoundError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"--out {str(out)!r} cannot be created: {error.strerror}") from None
    from evaluation.runner import Reference
    from experiments.control_rows import CONTROL_SEED, ensure_controls
    from experiments.locks import LockedError, cell_lock
    from experiments.seeds import axis_seed

    data_hash = dataset.sha256
    config = _config(entry, found)
    folder = out / entry.name / entry.dataset / _hash(config, data_hash) / f"seed={SEED}"
    try:
        with cell_lock(folder):
            record = finished_record(folder)
            if record is not None:
                print(f"{entry.name} on {entry.dataset}: finished before")
                return record
            reference = Reference(dataset, entry.evaluation, seed=axis_seed(CONTROL_SEED, "controls"))
            ensure_controls(reference, data_hash, out)
            return _examine(entry, found, reference, config, data_hash, folder)
    except (LockedError, ValueError, OSError) as error:
        print(f"error: {entry.name} on {entry.dataset}: {str(error).splitlines()[0]}", file=sys.stderr)
        return None


def _config(entry: Entry, found: External) -> dict[str, Any]:
    """Everything that decides the numbers, as JSON has it; the name is the row's, not the place of the files."""
    config = {
        "name": entry.name,
        "dataset": entry.dataset,
        "images_sha256": found.sha256,
        "labels_sha256": None if found.labels is None else hashlib.sha256(found.labels.tobytes()).hexdigest(),
        "quantiser": found.quantiser,
        "resize": found.resize,
        "evaluation": asdict(entry.evaluation),
    }
    return json.loads(json.dumps(config))


def _hash(config: dict[str, Any], data_hash: str) -> str:
    from evaluation.record import SCHEMA_VERSION

    text = json.dumps({"config": config, "data": data_hash, "schema": SCHEMA_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _examine(
    entry: Entry, found: External, reference: Reference, config: dict[str, Any], data_hash: str, folder: Path
) -> Record:
    from evaluation import pictures
    from evaluation.likelihood.bits import missing
    from evaluation.provenance import provenance
    from evaluation.record import RECORD_FILE, Budget, Parameters, Record, Speed, write_atomic
    from evaluation.runner import Generated, examine_images
    from experiments.artifacts import save_samples

    wall, cpu = time.perf_counter(), time.process_time()
    generated = Generated(found.images, found.labels, quantiser=found.quantiser, resize=found.resize)
    metrics, truth = examine_images(reference, generated)
    save_samples(folder / "samples.npz", generated)
    sheet = pictures.tile(found.images[:SHOWN], columns=10)
    write_atomic(folder / "samples.png", pictures.png_bytes(sheet))
    likelihood = missing(MADE_ELSEWHERE.format("the model is"))
    record = Record(
        model=entry.name,
        dataset=entry.dataset,
        seed=SEED,
        config=config,
        config_hash=_hash(config, data_hash),
        budget=Budget(None, None, None, reason_missing=MADE_ELSEWHERE.format("its training is")),
        parameters=Parameters(None, None),
        metrics=metrics,
        likelihood=likelihood,
        likelihoods=(likelihood,),
        truth=truth,
        source="external",
        speed=Speed.missing(MADE_ELSEWHERE.format("its speed is")),
        provenance=provenance(
            dataset_sha256=data_hash, extractor_sha256=reference.extractor_sha256, checkpoint_sha256=None,
            ema=False, sampler=None, wall_seconds=time.perf_counter() - wall,
            cpu_seconds=time.process_time() - cpu,
        ),
    )
    record.save(folder / RECORD_FILE)
    seal(folder)
    return record
