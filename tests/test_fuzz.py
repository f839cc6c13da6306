"""Random command lines and random bytes: whatever comes, a user sees a sentence and never a traceback."""

from __future__ import annotations

import io
import json
import random
import string
import tempfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datamodules import digits, fashion_mnist
from datamodules.base import DataNotFoundError, read_idx
from evaluation.config import EvaluationConfig
from evaluation.curves import load_curves
from evaluation.files import FileError, open_picture, read_json, read_npy, read_npz
from evaluation.record import RecordError, load_failure, load_record
from evaluation.seal import SealError, read_seal, record_fault
from experiments import calibration, cli
from experiments.cell_files import finished_record, state
from experiments.cli_options import UsageError, option_names
from experiments.commands.base import dotted_names
from experiments.discovery import command_names, dataset_names, engine_names, model_names
from experiments.external import ExternalError, read_images
from experiments.status import Watch, view
from reports.collect import collect, load_log, load_picture, load_samples
from tests.reports import test_curves as curves
from tests.reports.synthetic import record as synthetic_record
from tests.reports.synthetic import standard

LINES, BYTES = 1200, 1600  # cases
QUIET: dict[str, Any] = {
    "deadline": None, "database": None, "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}

# What ends a command before it starts work, whatever else is asked for.
HARMLESS = {
    "": ["--dry-run"], "compare": ["--dry-run"], "calibrate": ["--nothing"], "selftest": ["--nothing"],
    "doctor": ["--nothing"], "evaluate": ["--nothing"],
}
OPTIONS = [
    "--model", "--models", "--data", "--budget", "--seed", "--seeds", "--out", "--engine", "--num-cpus", "--num-gpus",
    "--retries", "--address", "--max-time", "--n", "--steps", "--once", "--json", "--help", "--checkpoints", "--label",
    "--samplers", "--nfe", "--guidance", "--num-samples",
    "--trainer.devices", "--trainer.strategy", "--trainer.num_nodes", "--name", "--resize", "-h", "--",
    *dotted_names("digits", "vqvae"), *dotted_names("fashion_mnist", "gan"),
    *option_names(EvaluationConfig(), "--evaluation."),
]
VALUES = [
    *model_names(), *dataset_names(), *engine_names(), "smoke", "1e9", "0", "1", "-1", "nan", "inf", "1e400", "2h",
    "True", "", " ", "/", "/nowhere", "/dev/null", "..", "\0", "=", "--", "é", "\ud800", "9" * 400, "[1,2]", "(8, 6)",
    "{}", "%s%n", "$(true)", "a\nb", "ddp", "auto",
]
words = st.one_of(
    st.sampled_from(OPTIONS), st.sampled_from(VALUES), st.text(string.printable, max_size=8),
    st.builds("{}={}".format, st.sampled_from(OPTIONS), st.sampled_from(VALUES)),
)


def run_line(argv: list[str]) -> str:
    """What a command line says, from the dispatcher, where nothing is caught at the last moment."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            cli._dispatch(argv)
        except UsageError as error:
            assert str(error)
        except SystemExit as end:  # argparse has printed the help
            assert end.code == 0
    return said.getvalue()


@settings(max_examples=LINES, **QUIET)
@given(command=st.sampled_from(["", *command_names()]), arguments=st.lists(words, max_size=6))
def test_any_command_line_ends_in_a_sentence(
    command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # an empty folder: commands that read have nothing to read
    assert "Traceback" not in run_line([*filter(None, [command]), *arguments, *HARMLESS.get(command, [])])


@settings(max_examples=200, **QUIET)
@given(first=st.text(max_size=20), rest=st.lists(st.text(max_size=10), max_size=4))
def test_any_words_at_all(first: str, rest: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "Traceback" not in run_line([first, *rest, "--nothing"])


def damaged(data: bytes, how: random.Random) -> bytes:
    """Bytes with some of them changed, moved, repeated, lost or replaced."""
    content = bytearray(data)
    for _ in range(how.randint(1, 6)):
        at, length = how.randrange(len(content) + 1), how.choice([1, 1, 2, 8, 64, 1000])
        kind = how.randrange(5)
        if kind == 0 and content:
            content[min(at, len(content) - 1)] ^= 1 << how.randrange(8)
        elif kind == 1:
            del content[at : at + length]
        elif kind == 2:
            content[at:at] = content[at : at + length]
        elif kind == 3:
            content[at : at + length] = how.randbytes(length)
        else:
            content[at:at] = how.choice([b"null", b"1e999", b"[" * 2000, b'{"a":', b"NaN", b"\xff\xfe", b"\0" * 9])
    return bytes(content)


def wholes(folder: Path) -> dict[str, bytes]:
    """One valid file of every kind that is read."""
    standard(folder, seeds=(0,))
    record = next(folder.glob("*/*/*/seed=*/record.json"))
    arrays, array, picture = io.BytesIO(), io.BytesIO(), io.BytesIO()
    images = np.arange(4 * 64, dtype=np.uint8).reshape(4, 1, 8, 8)
    np.savez_compressed(arrays, images=images, labels=np.arange(4))
    np.save(array, images)
    Image.fromarray(images[0, 0]).save(picture, "png")
    measured = calibration.Measurement("cpu", 2, "gan", "digits", "a", "b", 1e9, 1.0, 2.0, 3, "2026")
    curves.curves(synthetic_record("diffusion")).save(folder / "curves.json")
    texts: dict[str, Any] = {
        "failure.json": {"model": "a", "dataset": "b", "seed": 0, "config_hash": "c", "message": "d", "date": "e"},
        "done": {"record": "a", "files": {"samples.npz": "b"}},
        "grid.json": {"folders": ["gan/digits/abc/seed=0"], "engine": "local", "started": 1.0},
        "progress.json": {"name": "a", "done": 1, "total": 2, "cell_seconds": 1.0, "time": 1.0},
        "calibration.json": [asdict(measured)],
    }
    return {
        **{name: json.dumps(content).encode() for name, content in texts.items()},
        "curves.json": (folder / "curves.json").read_bytes(),
        "record.json": record.read_bytes(), "a.npz": arrays.getvalue(), "a.npy": array.getvalue(),
        "a.png": picture.getvalue(), "metrics.csv": b"stage,images_seen,loss\na,1,0.5\na,2,0.4\n",
        "a.idx": b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 2, 2)) + bytes(8),
    }


@pytest.fixture(scope="module")
def valid() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return wholes(Path(folder))


def as_cell(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader of a cell's folder, for one of its files."""

    def call(path: Path) -> Any:
        if path.name != "done":
            (path.parent / "done").write_bytes(b"")
        return read(path.parent)

    return call


def watched(path: Path) -> None:
    (path.parent / "grids").mkdir(exist_ok=True)
    path.replace(path.parent / "grids" / "a.json")
    view(Watch(path.parent).cells())


def measured(path: Path) -> None:
    original = calibration.calibration_file
    calibration.calibration_file = lambda: path
    try:
        calibration.measurements()
    finally:
        calibration.calibration_file = original


READERS: dict[str, list[Callable[[Path], Any]]] = {
    "record.json": [load_record, as_cell(record_fault), as_cell(finished_record), as_cell(state)],
    "failure.json": [load_failure, as_cell(state)],
    "done": [as_cell(read_seal), as_cell(record_fault), as_cell(finished_record)],
    "grid.json": [watched], "progress.json": [read_json], "calibration.json": [measured],
    "a.npz": [read_npz, load_samples, lambda path: read_images(path, digits.INFO, resize=False)],
    "a.npy": [read_npy, lambda path: read_images(path, digits.INFO, resize=True)],
    "a.png": [open_picture, load_picture, lambda path: read_images(path.parent, digits.INFO, resize=True)],
    "curves.json": [lambda path: load_curves(path, synthetic_record("diffusion"))],
    "metrics.csv": [load_log], "a.idx": [read_idx],
}
SENTENCES = (FileError, RecordError, SealError, ExternalError, DataNotFoundError)


@settings(max_examples=BYTES, **QUIET)
@given(name=st.sampled_from(sorted(READERS)), seed=st.integers(0, 2**32), which=st.integers(0, 9))
def test_any_bytes_are_read_or_refused_in_a_sentence(
    name: str, seed: int, which: int, valid: dict[str, bytes]
) -> None:
    read = READERS[name][which % len(READERS[name])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(damaged(valid[name], random.Random(seed)))
        try:
            read(path)
        except SENTENCES as error:
            assert str(error) and "\n" not in str(error) and str(folder) in str(error)


@pytest.mark.parametrize("name", sorted(READERS))
def test_whole_files_are_read(name: str, valid: dict[str, bytes], tmp_path: Path) -> None:
    """Otherwise the readers above would refuse everything."""
    (tmp_path / name).write_bytes(valid[name])
    READERS[name][0](tmp_path / name)


@pytest.mark.parametrize("seed", range(20))
def test_a_folder_of_damaged_runs_is_collected(seed: int, tmp_path: Path) -> None:
    standard(tmp_path, seeds=(0,))
    how = random.Random(seed)
    for path in [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and how.random() < 0.5]:
        path.write_bytes(damaged(path.read_bytes(), how))
    found = collect(tmp_path)
    assert all("\n" not in sentence for sentence in found.unreadable)


def test_a_damaged_data_set_is_one_sentence(tmp_path: Path) -> None:
    for stem in fashion_mnist.SHAPES:
        (tmp_path / f"{stem}.gz").write_bytes(zlib.compress(b"no idx"))
    with pytest.raises(DataNotFoundError, match="cannot be read"):
        fashion_mnist.load(fashion_mnist.Config(root=str(tmp_path)))
