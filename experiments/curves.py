"""Measures the curves of finished cells, each under its lock, into the ``curves.json`` of its folder.

All cells are looked at before anything is measured, so that what cannot be done is said at once. Imports no torch
until something is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from datamodules.base import DataNotFoundError, ImageDataset
from evaluation.config import EvaluationConfig
from evaluation.curves import CURVES_FILE, Curves, load_curves, of_cell
from evaluation.files import FileError
from evaluation.record import Record
from evaluation.seal import file_digest
from experiments.cell_files import finished_record
from experiments.cli_options import UsageError
from experiments.commands.base import PROG
from experiments.discovery import dataset_module, dataset_names
from experiments.locks import LockedError, cell_lock
from experiments.seeds import axis_seed

if TYPE_CHECKING:
    from evaluation.sweeps import Conditions
    from models.base import GenerativeModel, Sweep

CHECKPOINT = Path("checkpoints") / "model.ckpt"

Asked = Mapping[str, Sequence[float | str]]


@dataclass(frozen=True)
class Subject:
    """A finished cell whose curves can be measured."""

    folder: Path
    record: Record
    dataset: ImageDataset
    evaluation: EvaluationConfig
    model: GenerativeModel
    sweeps: tuple[Sweep, ...]

    @property
    def title(self) -> str:
        """The cell in words."""
        return f"{self.record.model} on {self.record.dataset}, seed {self.record.seed}"


def measure_cells(folders: Sequence[Path], asked: Asked, *, num_samples: int, seed: int | None) -> int:
    """Measure one cell after the other; 1 if one could not be measured, else 0.

    Args:
        folders: Of finished cells.
        asked: What to vary and through which values, see ``GenerativeModel.sweeps``.
        num_samples: Images per point, capped at the size of the test split.
        seed: Of sampling; None takes each cell's own.

    Raises:
        UsageError: A cell, or something asked for, cannot be used; nothing has been measured.
    """
    found = [_subject(folder, asked, num_samples) for folder in dict.fromkeys(folders)]
    subjects = [subject for subject in found if isinstance(subject, Subject)]
    without = [sentence for sentence in found if isinstance(sentence, str)]
    if not subjects:
        raise UsageError("; ".join(dict.fromkeys(without)))
    for sentence in without:
        print(sentence)
    failed = False
    for subject in subjects:
        try:
            _measure(subject, subject.record.seed if seed is None else seed)
        except (LockedError, ValueError, OSError, RuntimeError) as error:
            print(f"error: {subject.title}: {(str(error) or type(error).__name__).splitlines()[0]}", file=sys.stderr)
            failed = True
    for out in dict.fromkeys(subject.folder.absolute().parents[3] for subject in subjects):
        print(f"the report over all of them: {PROG} report {out}")
    return int(failed)


def _subject(folder: Path, asked: Asked, num_samples: int) -> Subject | str:
    """What is needed to measure a cell, or the sentence that its model has no curves."""
    record = _record(folder)
    dataset = _dataset(record)
    try:
        evaluation = TypeAdapter(EvaluationConfig).validate_python(record.config["evaluation"])
    except (ValidationError, KeyError):
        raise UsageError(f"{folder} has a configuration of the exam that this version does not know") from None
    from models import CheckpointError, load

    try:
        digest = file_digest(folder / CHECKPOINT)
        if digest != record.provenance.checkpoint_sha256:
            raise UsageError(f"{folder / CHECKPOINT} is not the checkpoint that the record was made from")
        model = load(folder / CHECKPOINT, _device())
        sweeps = model.sweeps(asked) if model.sweep_options else ()
    except (CheckpointError, FileError) as error:
        raise UsageError(str(error)) from None
    except ValueError as error:
        raise UsageError(f"{record.model}: {error}") from None
    if not sweeps:
        return f"{record.model} has no curves: its sampler has no settings to vary"
    features = evaluation.features[:1]  # the main one
    config = replace(evaluation, features=features, num_samples=num_samples)
    return Subject(folder, record, dataset, config, model, sweeps)


def _record(folder: Path) -> Record:
    faults: list[str] = []
    record = finished_record(folder, faults.append)
    if record is None:
        told = faults[0] if faults else "<DIR>/<model>/<data>/<hash>/seed=<n> of a run that is done is needed"
        raise UsageError(f"{folder} is not a finished cell: {told}")
    if record.source != "trained":
        raise UsageError(f"{folder} holds images that were made elsewhere; only a trained model has curves")
    if record.dataset not in dataset_names():
        raise UsageError(f"{folder} is of the dataset {record.dataset!r}; known: {', '.join(dataset_names())}")
    return record


def _dataset(record: Record) -> ImageDataset:
    """The very data of the record."""
    module: Any = dataset_module(record.dataset)
    try:
        config = TypeAdapter(module.Config).validate_python(record.config.get("data_config", {}))
        dataset: ImageDataset = module.load(config)
    except (ValidationError, DataNotFoundError) as error:
        raise UsageError(str(error).splitlines()[0]) from None
    if dataset.sha256 != record.provenance.dataset_sha256:
        raise UsageError(f"the {record.dataset} found here is not the data that the cell was trained on")
    return dataset


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _measure(subject: Subject, seed: int) -> None:
    from evaluation.reference import Reference
    from evaluation.sweeps import Conditions, measure_sweeps
    from experiments.control_rows import CONTROL_SEED

    path, controls = subject.folder / CURVES_FILE, axis_seed(CONTROL_SEED, "controls")
    with cell_lock(subject.folder):
        known = _known(path, subject.record)
        reference = Reference(subject.dataset, subject.evaluation, seed=controls)
        samples, likelihood = (axis_seed(seed, axis) for axis in ("samples", "likelihood"))
        conditions = Conditions(samples, likelihood, subject.evaluation.batch_size)
        count = sum(len(sweep.settings) for sweep in subject.sweeps)
        print(f"{subject.title}: {count} points, n = {reference.n} images each, sampling seed {seed}", flush=True)
        curves = measure_sweeps(
            subject.model, subject.sweeps, reference, known, conditions, controls_seed=controls,
            save=lambda found: found.save(path), tell=lambda line: print(line, flush=True),
        )
        _add_profile(subject, curves, conditions, path)
        print(f"  kept in {path}")


def _add_profile(subject: Subject, curves: Curves, conditions: Conditions, path: Path) -> None:
    from evaluation.sweeps import PROFILE_IMAGES, measure_profile

    wanted = (conditions.likelihood_seed, min(PROFILE_IMAGES, len(subject.dataset.test)))
    profile = next((p for p in curves.profiles if (p.seed, p.n_images) == wanted), None)
    again = " (measured before)" if profile else ""
    if profile is None:
        profile = measure_profile(subject.model, subject.dataset, conditions)
        if profile is None:
            return
        kept = [other for other in curves.profiles if other.kind != profile.kind]
        replace(curves, profiles=(*kept, profile)).save(path)
    bits = f"{profile.bits_per_dim:.4g} bits/dim, n = {profile.n_images}"
    print(f"  where the bits are: {profile.kind}, {len(profile.positions)} pieces, {bits}{again}", flush=True)


def _known(path: Path, record: Record) -> Curves:
    """What was measured before; nothing, with a line that says why, if it is of another checkpoint or damaged."""
    if not path.exists():
        return of_cell(record)
    try:
        return load_curves(path, record)
    except FileError as error:
        print(f"{error}; it is measured again", file=sys.stderr)
        return of_cell(record)
