"""Curves: the file, and that every point is what the exam itself would have measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from datamodules import digits
from evaluation.config import EvaluationConfig
from evaluation.controls import asked_labels, real_train
from evaluation.curves import CURVES_FILE, Curves, _digest, load_curves, of_cell
from evaluation.files import FileError
from evaluation.likelihood.bits import score_likelihood
from evaluation.record import Record
from evaluation.reference import Generated, Reference
from evaluation.runner import generate
from evaluation.sweeps import Conditions, SweepError, draw, floors_of, measure_profile, measure_sweeps
from models.base import GenerativeModel, Setting, Sweep
from tests.models.tiny import randomised, tiny_config
from tests.reports import synthetic

N = 70
CONDITIONS = Conditions(samples_seed=3, likelihood_seed=5, batch_size=16)
DATA = digits.load(digits.Config())
RECORD = synthetic.record("diffusion")


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(DATA, EvaluationConfig(num_samples=N), seed=0)


@pytest.fixture(scope="module")
def model() -> GenerativeModel:
    torch.manual_seed(0)
    options = asdict(tiny_config("diffusion", digits.INFO))
    built = models.model_class("diffusion")(image_shape=(1, 8, 8), num_classes=10, **options)
    return randomised(built)


@pytest.fixture(scope="module")
def sweeps(model: GenerativeModel) -> tuple[Sweep, ...]:
    return model.sweeps({"samplers": ("heun", "ddim"), "nfe": (1, 4), "guidance": (1.0, 2.0)})


def measure(
    model: GenerativeModel, sweeps: tuple[Sweep, ...], reference: Reference, known: Curves, **changes: int
) -> tuple[Curves, list[Curves], list[str]]:
    saved: list[Curves] = []
    lines: list[str] = []
    found = measure_sweeps(
        model, sweeps, reference, known, replace(CONDITIONS, **changes), controls_seed=7, save=saved.append,
        tell=lines.append,
    )
    return found, saved, lines


@pytest.fixture(scope="module")
def measured(model: GenerativeModel, sweeps: tuple[Sweep, ...], reference: Reference) -> Curves:
    found, saved, lines = measure(model, sweeps, reference, of_cell(RECORD))
    assert [len(curves.points) for curves in saved] == [1, 2, 3, 4, 5, 6, 6]  # one by one, and at last
    assert all(f"n = {N}" in line for line in lines)
    return found


def test_every_setting_has_a_point_with_its_true_cost(measured: Curves) -> None:
    nfe = [(p.series, p.x, p.nfe) for p in measured.points if p.sweep == "nfe"]
    assert nfe == [("heun", 1, 1), ("heun", 3, 3), ("ddim", 1, 1), ("ddim", 4, 4)]
    guidance = [(p.x, p.nfe) for p in measured.points if p.sweep == "guidance"]
    assert guidance == [(1, 3), (2, 6)]  # 3 steps; guidance doubles
    assert {(p.metric, p.value.n_fake, p.value.n_real) for p in measured.points} == {("fd_digits", N, N)}
    assert all(p.value.fingerprint == measured.floors[0].value.fingerprint for p in measured.points)


def test_a_point_is_what_the_exam_measures(model: GenerativeModel, measured: Curves, reference: Reference) -> None:
    """With the preset's own settings, images and number are those of the exam with the same seed."""
    labels = asked_labels(DATA, N)
    made = generate(model, labels, seed=3, batch_size=16)
    own = Setting("own", {"sampler": "dpmpp_2m", "num_steps": 3, "guidance_scale": 1.0})
    drawn, nfe = draw(model, labels, own, seed=3, batch_size=16)
    assert (drawn.images == made.images).all() and nfe == 3
    expected = reference.score(made)["fd_digits"]
    (point,) = [p for p in measured.points if p.sweep == "guidance" and p.x == 1]
    assert point.value == expected


def test_the_floor_is_that_of_the_control(reference: Reference) -> None:
    drawn = real_train(DATA, N, np.random.default_rng(7))
    scores = reference.score(Generated(drawn.images, drawn.labels))
    floors = floors_of(reference, seed=7)
    assert [(f.metric, f.value) for f in floors] == [(n, scores[n]) for n in ("fd_digits", "precision", "recall")]


def test_precision_and_recall_stand_beside_the_distance(
    model: GenerativeModel, measured: Curves, reference: Reference
) -> None:
    made = generate(model, asked_labels(DATA, N), seed=3, batch_size=16)
    expected = reference.score(made)
    (point,) = [p for p in measured.points if p.sweep == "guidance" and p.x == 1]
    assert point.beside == {name: expected[name] for name in ("precision", "recall")}
    assert {floor.metric for floor in measured.floors} == {"fd_digits", "precision", "recall"}


def test_what_was_measured_is_not_measured_again(
    model: GenerativeModel, sweeps: tuple[Sweep, ...], reference: Reference, measured: Curves
) -> None:
    again, saved, lines = measure(model, sweeps, reference, measured)
    assert sorted(map(repr, again.points)) == sorted(map(repr, measured.points))
    assert len(saved) == 1 and sum("(measured before)" in line for line in lines) == 6
    other, saved, _ = measure(model, sweeps, reference, measured, samples_seed=4)
    assert len(saved) == 7 and len(other.points) == 12
    versions = [replace(p, value=replace(p.value, fingerprint=None)) for p in measured.points]
    _, saved, _ = measure(model, sweeps, reference, replace(measured, points=tuple(versions)))
    assert len(saved) == 7  # other conditions: all of them again


def test_one_setting_of_two_sweeps_is_measured_once(
    model: GenerativeModel, reference: Reference, measured: Curves
) -> None:
    sweeps = model.sweeps({"samplers": ("dpmpp_2m",), "nfe": (3,), "guidance": (1.0,)})
    found, saved, _ = measure(model, sweeps, reference, measured)
    assert len(saved) == 1
    (point,) = [p for p in found.points if p.sweep == "nfe" and p.x == 3 and p.series == "dpmpp_2m"]
    (twin,) = [p for p in found.points if p.sweep == "guidance" and p.x == 1]
    assert point.value == twin.value and point.series == "dpmpp_2m"


def test_a_profile_adds_up_to_the_bound(model: GenerativeModel) -> None:
    images = torch.from_numpy(DATA.test.images[:20])
    bound = score_likelihood(model, images, generator=torch.Generator().manual_seed(5), batch_size=16).likelihood
    profile = measure_profile(model, DATA, CONDITIONS, num_images=20)
    assert profile is not None and (profile.kind, profile.n_images) == (bound.kind, 20)
    assert profile.bits_per_dim == pytest.approx(bound.bits_per_dim, rel=1e-6)
    assert sum(profile.bits) == pytest.approx(bound.parts["diffusion"], rel=1e-6)
    assert profile.parts["prior"] == pytest.approx(bound.parts["prior"], rel=1e-6)


def test_without_features_there_is_one_sentence(model: GenerativeModel, sweeps: tuple[Sweep, ...]) -> None:
    unfit = Reference(DATA, EvaluationConfig(num_samples=N, features=("fashion_mnist",)), seed=0)
    with pytest.raises(SweepError, match="there is no fd_fashion_mnist to measure: ") as caught:
        measure(model, sweeps, unfit, of_cell(RECORD))
    assert "\n" not in str(caught.value)


def test_too_few_images_are_one_sentence(model: GenerativeModel, sweeps: tuple[Sweep, ...]) -> None:
    few = Reference(DATA, EvaluationConfig(num_samples=10), seed=0)
    with pytest.raises(SweepError, match="there is no fd_digits to measure: 10 real images are too few"):
        measure(model, sweeps, few, of_cell(RECORD))


# The file.


@pytest.fixture
def path(measured: Curves, model: GenerativeModel, tmp_path: Path) -> Path:
    profile = measure_profile(model, DATA, CONDITIONS, num_images=4)
    assert profile is not None
    replace(measured, profiles=(profile,)).save(tmp_path / CURVES_FILE)
    return tmp_path / CURVES_FILE


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    """Change the content and seal it again, as somebody might who wants to do harm."""
    content = json.loads(path.read_text())
    del content["checksum"]
    change(content)
    path.write_text(json.dumps(content | {"checksum": _digest(content)}))


def test_a_file_is_read_as_it_was_written(path: Path, measured: Curves) -> None:
    found = load_curves(path, RECORD)
    assert found.points == measured.points and found.axes == measured.axes and found.floors == measured.floors
    assert type(found.points[0].options["num_steps"]) is int


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (replace(RECORD, seed=1), "seed"),
        (replace(RECORD, config_hash="0" * 12), "config_hash"),
        (replace(RECORD, provenance=replace(RECORD.provenance, checkpoint_sha256="f" * 64)), "checkpoint_sha256"),
    ],
)
def test_a_foreign_file_is_refused(path: Path, record: Record, field: str) -> None:
    with pytest.raises(FileError, match=f"belongs to another cell or checkpoint: its {field} is not that"):
        load_curves(path, record)


def test_a_changed_or_cut_file_is_refused(path: Path) -> None:
    text = path.read_text()
    for damaged in (text.replace('"nfe": 1', '"nfe": 2'), text[:-40], "[]", "{}", "", '{"checksum": 1}'):
        path.write_text(damaged)
        with pytest.raises(FileError) as caught:
            load_curves(path, RECORD)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=2), "has schema version 2; this version reads 1"),
        (lambda c: c.update(points=3), "is not a valid file of curves: points"),
        (lambda c: c["points"][0].update(x=0.0), r"points\.0: a count or place is out of range"),
        (lambda c: c["points"][0].update(nfe=0), r"points\.0: a count or place is out of range"),
        (lambda c: c["points"][0].update(sweep="other"), r"points\.0: there is no sweep 'other'"),
        (lambda c: c["points"][0].update(series="x" * 81), "is no text of 1 to 80 characters"),
        (lambda c: c["axes"][0].update(name="../x"), "letters, digits and '_' are allowed"),
        (lambda c: c["axes"][0].update(label="a\nb"), "is no text of 1 to 80 characters"),
        (lambda c: c["profiles"][0].update(bits=[1.0]), "its columns are not of one length"),
        (lambda c: c["profiles"][0]["positions"].reverse(), "positions must ascend from above 0"),
        (lambda c: c["profiles"][0].update(bits_per_dim=0.1), "its pieces add up to .*, not to 0.1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(path: Path, change: Callable[[dict], object], message: str) -> None:
    rewrite(path, change)
    with pytest.raises(FileError, match=message) as caught:
        load_curves(path, RECORD)
    assert "\n" not in str(caught.value)
