"""Killed at random moments and run again, every model gives bit by bit what it gives undisturbed."""

from __future__ import annotations

import math
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evaluation.record import RECORD_FILE, Record, load_record
from evaluation.seal import faults
from experiments.artifacts import TRAINING_FILE
from experiments.cell_files import DONE_FILE
from experiments.discovery import model_names
from tests.experiments.killing import Child, Point, arguments_of, command, folder_of, run
from tests.models.tiny import tiny_model

MODELS = model_names()
SEED = 20
KILLS = 5
LIVES = 4  # a cell that was finished before its last kill is begun anew


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its folders, and how long training and the whole took."""

    out: Path
    folder: Path
    trained: float
    total: float

    def reached(self, folder: Path) -> float:
        """Where in this run's time a killed one will go on."""
        if (folder / TRAINING_FILE).exists():
            return self.trained
        done, whole = (sum(map(chunks, f.glob("checkpoints/*-*"))) for f in (folder, self.folder))
        return self.trained * done / whole


def chunks(stage: Path) -> int:
    """How many chunks of a stage are trained."""
    names = [path.stem.removeprefix("chunk-") for path in stage.glob("*.ckpt")]
    return 1 + int(max(names)) if names else 0


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    """Runs a model's cell once, undisturbed, and remembers it."""
    out, made = tmp_path_factory.mktemp("undisturbed"), {}

    def get(name: str) -> Reference:
        if name not in made:
            folder = folder_of(name, out)
            if not (out / "controls").exists():  # they are made by whoever comes first, and take seconds
                assert Child(run, MODELS[0], out).end() == 0
                shutil.rmtree(folder_of(MODELS[0], out))
            child = Child(run, name, out)
            assert child.end() == 0
            trained, total = ((folder / f).stat().st_mtime - child.began for f in (TRAINING_FILE, DONE_FILE))
            made[name] = Reference(out, folder, trained, total)
        return made[name]

    return get


def beside(reference: Reference, out: Path) -> Path:
    """A new output folder, with the controls."""
    shutil.copytree(reference.out / "controls", out / "controls")
    return out


def kill_often(name: str, out: Path, reference: Reference, moments: list[float]) -> int:
    """Start and kill a cell at moments of the undisturbed run's time; how many kills landed before it was done."""
    folder = folder_of(name, out)
    for landed, moment in enumerate(moments):
        wait = max(moment - reference.reached(folder), 0.0)
        code = Child(run, name, out).end(signal.SIGKILL, after=wait)
        assert code in (0, -signal.SIGKILL)
        if code == 0 or (folder / DONE_FILE).exists():
            return landed
    return len(moments)


@pytest.mark.parametrize("name", MODELS)
def test_killed_at_random_moments(name: str, reference: Callable[[str], Reference], tmp_path: Path) -> None:
    whole, draw = reference(name), random.Random(f"{SEED} {name}")
    out, seen = beside(whole, tmp_path), []
    for life in range(LIVES):
        total = whole.total * 0.8**life
        moments = [total * (i + draw.random()) / KILLS for i in range(KILLS)]
        landed = kill_often(name, out, whole, moments)
        seen.append(f"{landed} of {KILLS} kills landed at {[round(m, 3) for m in moments]}")
        if landed == KILLS:
            break
        shutil.rmtree(folder_of(name, out))
    story = f"seed {SEED}, {whole.trained:.2f} s training of {whole.total:.2f} s in all: {'; '.join(seen)}"
    print(story)
    assert landed == KILLS, story
    assert Child(run, name, out).end() == 0, story
    assert differences(whole.folder, folder_of(name, out)) == [], story


POINTS = (
    Point("open", "*/.chunk-0001.ckpt.*.tmp", times=2),  # the checksum is there, the checkpoint is not
    Point("os.rename", "*/chunk-0004.ckpt"),
    Point("os.remove", "*/chunk-0003.ckpt"),  # three are there
    Point("os.rename", "*/1-*/chunk-0000.ckpt.sha256"),  # the second stage has no checkpoint yet
    Point("os.remove", "*/1-*/chunk-0000.ckpt.sha256"),
    Point("os.rename", "*/metrics.csv"),
    Point("os.rename", "*/model.ckpt"),
    Point("os.rename", "*/training.json"),
    Point("os.rename", "*/samples.npz"),
    Point("os.rename", "*/record.json"),
    Point("os.rename", "*/done"),
)


def test_killed_where_files_are_written(reference: Callable[[str], Reference], tmp_path: Path) -> None:
    name = max(MODELS, key=lambda model: len(tiny_model(model).stages()))
    whole = reference(name)
    out = beside(whole, tmp_path)
    folder = folder_of(name, out)
    for point in POINTS:
        assert Child(run, name, out, point).end() == -signal.SIGKILL, point
        assert not (folder / DONE_FILE).exists()
    assert list(folder.glob("**/.*.tmp"))
    assert Child(run, name, out).end() == 0
    assert differences(whole.folder, folder) == []


def test_sigterm_ends_quickly_and_can_be_resumed(reference: Callable[[str], Reference], tmp_path: Path) -> None:
    name = MODELS[0]
    whole = reference(name)
    out, said = beside(whole, tmp_path / "out"), tmp_path / "said"
    folder = folder_of(name, out)
    stage = next(whole.folder.glob("checkpoints/0-*")).name
    child = Child(command, arguments_of(name, out), said)
    child.wait_for(folder / "checkpoints" / stage / "chunk-0002.ckpt")
    start = time.monotonic()
    assert child.end(signal.SIGTERM) == 143
    assert time.monotonic() - start < 5
    assert said.read_text() == "interrupted; run the same command again to resume\n"
    assert not (folder / "lock.json").exists() and not list(folder.glob("**/.*.tmp"))
    cell = Child(run, name, out)  # as a grid's: a process in which nobody but Lightning listens
    cell.wait_for(folder / "checkpoints" / stage / "chunk-0006.ckpt")
    assert cell.end(signal.SIGTERM) == 143
    assert not (folder / "lock.json").exists()
    assert Child(run, name, out).end() == 0
    assert differences(whole.folder, folder) == []


def differences(one: Path, other: Path) -> list[str]:
    """What two finished cells' folders do not have in common though they should."""
    found = [f"{name}: content" for name in ("checkpoints/model.ckpt", "metrics.csv", "config.json")
             if (one / name).read_bytes() != (other / name).read_bytes()]  # fmt: skip
    names = [sorted(str(p.relative_to(f)) for p in f.rglob("*") if "tfevents" not in p.name) for f in (one, other)]
    found += [f"{name}: only one has it" for name in set(names[0]) ^ set(names[1])]
    found += [f"{name}: {what}" for name in names[0] if Path(name).suffix in (".ckpt", ".npz", ".csv")
              for what in unlike(one / name, other / name)]  # fmt: skip
    if results(one) != results(other):
        found.append("record")
    if not same(events(one), events(other)):
        found.append("TensorBoard")
    return found + faults(other)


def unlike(one: Path, other: Path) -> list[str]:
    """Which parts of two files differ."""
    if one.suffix == ".csv":
        return [] if one.read_bytes() == other.read_bytes() else ["rows"]
    pair = [np.load(p) if p.suffix == ".npz" else torch.load(p, weights_only=True) for p in (one, other)]
    if one.suffix == ".npz":
        return [key for key in pair[0].files if not (pair[0][key] == pair[1][key]).all()]
    for content in pair:
        content.get("callbacks", {}).get("StageLoop", {}).pop("seconds", None)
    return [key for key in pair[0].keys() - {"loops"} if not same(pair[0][key], pair[1][key])]


def same(one: Any, other: Any) -> bool:
    """Equality of nested values, bit by bit; what is no number is so in both (diversity, in a batch without pairs)."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def results(folder: Path) -> tuple[Any, ...]:
    """Everything in a record that is not time."""
    record: Record = load_record(folder / RECORD_FILE)
    stages = tuple(replace(stage, seconds=0.0) for stage in record.budget.stages)
    return record.metrics, record.likelihoods, record.parameters, replace(record.budget, stages=stages)


def events(folder: Path) -> dict[str, list[tuple[str, int, float]]]:
    """What TensorBoard shows of every stage: tag, step and value."""
    found = {}
    for stage in sorted((folder / "logs").iterdir()):
        accumulator = EventAccumulator(str(stage / "tensorboard" / "version_0"), purge_orphaned_data=False).Reload()
        found[stage.name] = [(tag, e.step, e.value) for tag in sorted(accumulator.Tags()["scalars"])
                             for e in accumulator.Scalars(tag)]  # fmt: skip
    return found
