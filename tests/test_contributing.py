"""The worked examples of CONTRIBUTING.md, written into a copy of the program and run there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = re.compile(r"^`(?P<path>[\w/]+\.py)`:\n\n```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = {match["path"]: match["code"] for match in EXAMPLE.finditer(TEXT)}
ROOMS = ("datamodules", "evaluation", "experiments", "models", "reports")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with the examples' files added and nothing else changed."""
    folder = tmp_path_factory.mktemp("copy")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for path, code in EXAMPLES.items():
        assert not (folder / path).exists()
        (folder / path).write_text(code, encoding="utf-8")
    return folder


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy."""
    return subprocess.run([sys.executable, *args], cwd=folder, text=True, capture_output=True, timeout=240)


def test_each_example_touches_one_room() -> None:
    assert sorted(EXAMPLES) == [
        "datamodules/checkerboard.py",
        "evaluation/metrics/mean_distance.py",
        "experiments/presets/histogram.py",
        "models/histogram.py",
    ]


def test_the_examples_are_found(copy: Path) -> None:
    shown = run(copy, "run.py", "list").stdout
    for name in ("histogram", "checkerboard", "mean_distance_{features}"):
        assert f"\n  {name} " in shown


def test_a_bad_value_of_the_example_is_one_sentence(copy: Path) -> None:
    done = run(copy, "run.py", "--model", "histogram", "--data", "checkerboard", "--data.noise", "200")
    assert (done.returncode, done.stderr) == (2, "error: data.noise must be from 0 to 100, not 200.0\n")


@pytest.mark.parametrize("dataset", ["digits", "checkerboard"])
def test_the_examples_run_from_training_to_report(dataset: str, copy: Path, tmp_path: Path) -> None:
    options = ["--budget", "1e9", "--evaluation.num_samples", "100", "--evaluation.speed_repeats", "1"]
    done = run(copy, "run.py", "--model", "histogram", "--data", dataset, "--out", str(tmp_path), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob(f"histogram/{dataset}/*/seed=0/record.json")
    record = json.loads(path.read_text())
    assert 0 < record["likelihood"]["bits_per_dim"] < 8
    distances = [v for name, v in record["metrics"].items() if name.startswith("mean_distance_")]
    assert all((v["value"] is None) == bool(v["reason_missing"]) for v in distances)
    assert (tmp_path / "report" / "index.html").is_file()
    if dataset == "digits":
        assert record["metrics"]["mean_distance_digits"]["value"] > 0
