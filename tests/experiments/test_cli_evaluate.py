"""Images from outside through the command line: refusals, the exam, the record, the report."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules import digits
from evaluation.controls import CONTROLS
from evaluation.fingerprint import image_hash
from evaluation.metrics.driver import OTHER_MODULES, all_metrics
from evaluation.record import Record, load_record
from experiments.budgets import budget_flops
from experiments.cli import main
from experiments.cli_evaluate import entry_name
from experiments.cli_options import UsageError, default_budget, resolve_cell, split_overrides
from experiments.cli_text import OTHER_METRICS, metric_keywords
from experiments.discovery import metric_names

DATA = digits.load(digits.Config())
N = 100


@pytest.fixture(scope="module")
def entered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An output folder with one set of images examined, and the images."""
    folder = tmp_path_factory.mktemp("entered")
    np.savez(folder / "friends-model.npz", images=DATA.train.images[:N], labels=DATA.train.labels[:N])
    assert main(line(folder / "friends-model.npz", folder / "runs")) == 0
    return folder / "runs", folder / "friends-model.npz"


def line(images: Path, out: Path, *more: str) -> list[str]:
    exam = ["--reference", "digits", "--evaluation.num_samples", str(N)]
    return ["evaluate", str(images), *exam, "--out", str(out), *more]


def record_in(out: Path, name: str) -> Record:
    (path,) = out.glob(f"{name}/digits/*/seed=0/record.json")
    return load_record(path)


def test_the_record_says_what_is_known_and_why_the_rest_is_not(entered: tuple[Path, Path]) -> None:
    record = record_in(entered[0], "friends-model")
    assert (record.model, record.dataset, record.seed, record.source) == ("friends-model", "digits", 0, "external")
    missing = [record.budget.reason_missing, record.likelihood.reason_missing, record.speed.reason_missing]
    assert all(str(reason).startswith("made elsewhere: its ") or "the model" in str(reason) for reason in missing)
    assert record.budget.train_flops is record.likelihood.bits_per_dim is record.speed.images_per_second is None
    assert record.parameters.total is None and record.provenance.checkpoint_sha256 is None
    assert record.config["images_sha256"] == image_hash(DATA.train.images[:N])
    assert record.config["resize"] == "none" and record.config["name"] == "friends-model"
    assert record.provenance.dataset_sha256 == DATA.sha256


def test_the_numbers_are_those_of_the_exam(entered: tuple[Path, Path]) -> None:
    from evaluation.config import EvaluationConfig
    from evaluation.runner import Generated, Reference, examine_images
    from experiments.control_rows import CONTROL_SEED
    from experiments.seeds import axis_seed

    record = record_in(entered[0], "friends-model")
    reference = Reference(DATA, EvaluationConfig(num_samples=N), seed=axis_seed(CONTROL_SEED, "controls"))
    metrics, _ = examine_images(reference, Generated(DATA.train.images[:N], DATA.train.labels[:N]))
    found, expected = record.metrics["fd_digits"], metrics["fd_digits"]
    assert found.value is not None and found.value == expected.value
    assert (found.n_real, found.n_fake) == (N, N)
    assert record.metrics["class_agreement"].value == metrics["class_agreement"].value
    assert record.metrics.keys() == metrics.keys()


def test_the_folder_is_like_a_cells(entered: tuple[Path, Path]) -> None:
    out, _ = entered
    (folder,) = out.glob("friends-model/digits/*/seed=0")
    assert (folder / "done").exists()
    with np.load(folder / "samples.npz") as samples:
        assert (samples["images"] == DATA.train.images[:N]).all() and (samples["labels"] == DATA.train.labels[:N]).all()
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert record_in(out, "friends-model").config_hash == folder.parent.name
    assert {path.stem for path in out.glob("controls/digits/*/*.json")} == set(CONTROLS)
    assert "friends-model" in (out / "report" / "index.html").read_text()


def test_the_same_images_are_not_examined_again(entered: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    out, images = entered
    (path,) = out.glob("friends-model/digits/*/seed=0/record.json")
    before = path.stat().st_mtime_ns
    assert main(line(images, out)) == 0
    assert "finished before" in capsys.readouterr().out and path.stat().st_mtime_ns == before


def test_a_folder_with_damaged_files_is_examined_and_they_are_named(
    entered: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(entered[0] / "controls", out / "controls")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(DATA.train.images[:N]):
        large = Image.fromarray(image[0].repeat(2, 0).repeat(2, 1))
        large.convert("RGB").save(folder / f"{i:03d}.png")
    (folder / "a.png").write_text("no image")
    (folder / "b.jpg").write_bytes(b"")
    assert main(line(folder, out)) == 2
    assert not (out / "pictures").exists() and "--resize" in capsys.readouterr().err
    assert main(line(folder, out, "--resize", "--name", "mine.2", "--features", "digits")) == 1
    shown = capsys.readouterr()
    named = [sentence for sentence in shown.err.splitlines() if "cannot be read and is left out" in sentence]
    assert len(named) == 2 and "a.png" in named[0] and "b.jpg" in named[1]
    assert "mine.2" in shown.out and f"report: {out / 'report' / 'index.html'}" in shown.out
    record = record_in(out, "mine.2")
    assert record.metrics["class_agreement"].value is None  # no labels
    printed = record.metrics["fd_digits"].fingerprint
    assert printed is not None and "Lanczos" in printed.resize and "RGB to grey" in printed.resize
    with np.load(next(out.glob("mine.2/digits/*/seed=0/samples.npz"))) as samples:
        assert samples.files == ["images"] and samples["images"].shape == (N, 1, 8, 8)


def test_more_images_than_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.cli_evaluate import _at_most
    from experiments.external import read_images

    np.savez(tmp_path / "a.npz", images=DATA.train.images[:N], labels=DATA.train.labels[:N])
    whole = read_images(tmp_path / "a.npz", digits.INFO, resize=False)
    some = _at_most(whole, 10)
    rows = [int(np.flatnonzero((whole.images == image).all((1, 2, 3)))[0]) for image in some.images]
    assert rows == sorted(set(rows)) and len(rows) == 10 and rows != list(range(10))
    assert some.labels is not None and (some.labels == DATA.train.labels[rows]).all()
    assert _at_most(whole, N) is whole


REFUSALS: list[tuple[str, str]] = [
    ("evaluate", "required: IMAGES, --reference"),
    ("evaluate a.npy", "required: --reference"),
    ("evaluate --reference digits", "required: IMAGES"),
    ("evaluate a.npy --reference digit", "did you mean 'digits'?"),
    ("evaluate a.npy --reference digits --name gan", "'gan' is taken by a model"),
    ("evaluate a.npy --reference digits --name copycat", "'copycat' is taken by"),
    ("evaluate a.npy --reference digits --name report", "'report' is taken by"),
    ("evaluate a.npy --reference digits --name ../x", "'../x' cannot be the name of a row"),
    ("evaluate a.npy --reference digits --features digit", "did you mean 'digits'?"),
    ("evaluate a.npy --reference digits --features digits digits", "digits is named twice"),
    ("evaluate a.npy --reference digits --features digits --evaluation.features digits", "features is given twice"),
    ("evaluate a.npy --reference digits --evaluation.features inceptoin", "did you mean 'inception'?"),
    ("evaluate a.npy --reference digits --evaluation.features", "must be one or more words, not left empty"),
    ("evaluate a.npy --reference digits --model.width 4", "evaluate takes --data.* and --evaluation.*"),
    ("evaluate a.npy --reference digits --data.root x", "unknown option --data.root"),
    ("evaluate a.npy --reference digits --resise", "did you mean --resize?"),
    ("evaluate a.npy --reference digits --num_samples 5", "did you mean --evaluation.num_samples?"),
    ("evaluate nowhere.npy --reference digits", "nowhere.npy does not exist"),
    ("evaluate a.txt --reference digits", "neither a folder nor an .npz or .npy file"),
    ("evaluate a.npy --reference digits", "float64 values where uint8"),
    ("evaluate large.npy --reference digits", "is 9x9 grey where digits has 8x8 grey images; give --resize"),
]


@pytest.mark.parametrize(("words", "expected"), REFUSALS, ids=[words for words, _ in REFUSALS])
def test_a_refusal_is_one_sentence_and_writes_nothing(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8)))
    np.save(tmp_path / "large.npy", np.zeros((3, 9, 9), np.uint8))
    (tmp_path / "a.txt").write_text("")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    shown = capsys.readouterr()
    assert expected in shown.err and len(shown.err.splitlines()) == 1 and shown.out == ""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("given", "images", "expected"),
    [(None, "runs/mine.npz", "mine"), (None, "a.b/v1.2.npy", "v1.2"), ("X_1-a.b", "y.npy", "X_1-a.b")],
)
def test_the_name_of_a_row(given: str | None, images: str, expected: str) -> None:
    assert entry_name(given, Path(images)) == expected


@pytest.mark.parametrize("bad", ["", ".hidden", "a b", "a/b", "-a", "ä", "a" * 65, "a\n"])
def test_what_cannot_be_a_name(bad: Any) -> None:
    with pytest.raises(UsageError, match="--name"):
        entry_name(bad, Path("a.npy"))


def test_the_name_of_a_folder_with_a_dot_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.v2").mkdir()
    assert entry_name(None, tmp_path / "run.v2") == "run.v2"
    monkeypatch.chdir(tmp_path / "run.v2")
    assert entry_name(None, Path(".")) == "run.v2"


HEAVY = ("torch", "pandas", "scipy", "sklearn", "matplotlib")
PROBE = f"""
import sys
from experiments.budgets import budget_flops
from experiments.cli import main
code = main(sys.argv[1:])
heavy = [name for name in {HEAVY} if name in sys.modules]
sys.exit(f"imported {{heavy}}" if heavy else code)
"""


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ("evaluate --help", 0, "--resize"),
        ("evaluate --reference fashion_mnist --help", 0, "--data.root"),
        ("evaluate run.py --reference digits", 2, "neither a folder"),
        ("list", 0, "feature extractors (--evaluation.features):\n  digits "),
        ("--help", 0, "run.py evaluate IMAGES"),
        ("--help", 0, "run.py selftest"),
    ],
)
def test_answers_without_work_import_nothing_heavy(words: str, code: int, expected: str, root: Path) -> None:
    command = [sys.executable, "-c", PROBE, *words.split()]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert expected in done.stdout + done.stderr


def test_features_are_names_in_order() -> None:
    _, overrides = split_overrides(["--evaluation.features", "fashion_mnist", "digits"])
    assert resolve_cell("gan", "digits", None, 0, overrides).evaluation.features == ("fashion_mnist", "digits")


@pytest.mark.parametrize(("size", "budget"), [(8, "small"), (15, "small"), (16, "medium"), (28, "medium")])
def test_the_default_budget_goes_by_the_size_of_the_images(size: int, budget: str) -> None:
    assert default_budget(replace(digits.INFO, image_size=size)) == budget_flops(budget)


def test_metrics_are_sought_where_the_exam_seeks_them() -> None:
    assert OTHER_METRICS == OTHER_MODULES
    assert sum(len(metric_keywords(f"evaluation.metrics.{name}")) for name in metric_names()) + sum(
        len(metric_keywords(module)) for module in OTHER_METRICS
    ) == len(all_metrics())
