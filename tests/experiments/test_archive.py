"""Archives: the round trip, what is not exported, and what is there already."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.curves import CURVES_FILE, load_curves
from evaluation.record import load_record
from evaluation.seal import faults, read_seal
from experiments.archive.importing import import_archive
from experiments.cli import main
from experiments.locks import cell_lock
from reports.page import write_report
from tests.experiments.sealed import (
    cell_record,
    contents,
    identified,
    members,
    small_archive,
    write_cell,
    write_runs,
)
from tests.reports import synthetic
from tests.reports.test_curves import curves


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs; not to be changed."""
    return write_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exported(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its archive, without checkpoints; not to be changed."""
    path = tmp_path_factory.mktemp("archives") / "a.zip"
    assert main(["export", str(runs), "--out", str(path)]) == 0
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The archive of a single cell without controls."""
    return small_archive(tmp_path)


# The way there and back.


def test_the_same_cells_give_the_same_bytes(runs: Path, exported: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs, copy)
    for path in copy.rglob("*"):
        path.touch()
    assert main(["export", str(copy), "--out", str(tmp_path / "b.zip")]) == 0
    assert (tmp_path / "b.zip").read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("checkpoints", [False, True])
def test_round_trip(checkpoints: bool, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--checkpoints"] if checkpoints else []
    first, second, out = tmp_path / "a.zip", tmp_path / "b.zip", tmp_path / "new"
    assert main(["export", str(runs), "--out", str(first), *options]) == 0
    assert "(5 cells, 3 controls)" in capsys.readouterr().out
    assert main(["import", str(first), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "8 added, 0 there already, 0 conflicts" in shown and f"run.py report {out}" in shown
    expected = contents(runs)
    found = contents(out)
    assert {n for n in expected if checkpoints or "/checkpoints/" not in n} == set(found)
    assert all(found[n] == expected[n] for n in found if checkpoints or not n.endswith("/done"))
    assert all(faults(folder) == [] and read_seal(folder) for folder in out.glob("*/*/*/seed=*"))
    assert main(["export", str(out), "--out", str(second), *options]) == 0
    assert first.read_bytes() == second.read_bytes()
    capsys.readouterr()
    assert main(["import", str(first), "--out", str(out)]) == 0
    assert "0 added, 8 there already, 0 conflicts" in capsys.readouterr().out
    assert contents(out) == found


def test_curves_travel_with_their_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = cell_record("diffusion")
    path = write_cell(tmp_path / "runs", record) / CURVES_FILE
    measured = curves(record)
    measured.save(path)
    assert main(["export", str(tmp_path / "runs"), "--out", str(tmp_path / "a.zip")]) == 0
    assert main(["import", str(tmp_path / "a.zip"), "--out", str(tmp_path / "new")]) == 0
    (found,) = (tmp_path / "new").glob(f"*/*/*/*/{CURVES_FILE}")
    assert load_curves(found, record) == measured and faults(found.parent) == []
    replace(measured, seed=1).save(path)
    assert main(["export", str(tmp_path / "runs"), "--out", str(tmp_path / "b.zip")]) == 1
    assert "curves.json belongs to another cell or checkpoint" in capsys.readouterr().err


def test_what_was_imported_is_reported_and_verified(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(exported), "--out", str(tmp_path / "runs")]) == 0
    write_report(tmp_path / "runs")
    assert main(["verify", str(tmp_path / "runs")]) == 0
    table = (tmp_path / "runs" / "report" / "results.csv").read_bytes()
    assert members(exported)["results.csv"] == table


def test_checksums_as_everybody_checks_them(exported: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(members(exported)) - 1


def test_the_description(exported: Path) -> None:
    content = members(exported)
    card = json.loads(content["metadata.json"])
    assert card["@type"] == "sc:Dataset" and card["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    files = {item["@id"]: item for item in card["distribution"]}
    assert all(hashlib.sha256(content[name]).hexdigest() == item["sha256"] for name, item in files.items())
    header = content["results.csv"].decode().splitlines()[0].split(",")
    (table,) = card["recordSet"]
    assert [f["source"]["extract"]["column"] for f in table["field"]] == header
    assert {f["source"]["fileObject"]["@id"] for f in table["field"]} == {"results.csv"} <= set(files)
    kinds = {f["source"]["extract"]["column"]: f["dataType"] for f in table["field"]}
    assert (kinds["model"], kinds["seed"], kinds["control"]) == ("sc:Text", "sc:Integer", "sc:Boolean")
    page = content["README.md"].decode()
    assert all(part in page for part in ("| gan | digits |", "import FILE.zip", "verify runs", "## Licence"))


# What is not exported.


def test_damaged_cells_are_named_and_nothing_is_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(runs, tmp_path / "runs"))
    (record,) = out.glob("gan/digits/*/seed=0/record.json")
    (samples,) = out.glob("vqvae/digits/*/seed=1/samples.npz")
    (control,) = out.glob("controls/digits/*/copycat.npz")
    (old,) = out.glob("gan/digits/*/seed=1/done")
    record.write_text(record.read_text().replace("0.7", "0.8", 1))
    samples.write_bytes(samples.read_bytes()[:-3])
    control.unlink()
    old.write_bytes(b"")
    assert main(["export", str(out), "--out", str(tmp_path / "a.zip")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("error: ") for line in lines)
    for path, reason in (
        (record, "is damaged"), (samples, "is damaged"), (control, "does not exist"), (old.parent, "no checksums"),
    ):
        assert any(str(path) in line and reason in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_unfinished_cells_stay_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_cell(tmp_path / "runs", cell_record("gan", 0))
    (write_cell(tmp_path / "runs", cell_record("gan", 1)) / "done").unlink()
    synthetic.write_failure(tmp_path / "runs")
    assert main(["export", str(tmp_path / "runs"), "--out", str(tmp_path / "a.zip")]) == 0
    assert "(1 cells, 0 controls, 2 unfinished left out)" in capsys.readouterr().out
    names = set(members(tmp_path / "a.zip"))
    assert not any("failure" in name or "seed=1" in name or "checkpoints" in name for name in names)
    (folder / "done").unlink()
    assert main(["export", str(tmp_path / "runs"), "--out", str(tmp_path / "b.zip")]) == 1
    assert "has no finished cells" in capsys.readouterr().err


def test_nothing_is_overwritten(runs: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "a.zip"
    shutil.copy(exported, target)
    assert main(["export", str(runs), "--out", str(target)]) == 0
    assert "the very same" in capsys.readouterr().out
    target.write_text("mine")
    assert main(["export", str(runs), "--out", str(target)]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    assert target.read_text() == "mine" and list(tmp_path.iterdir()) == [target]


def test_refused_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, reason in (
        (["export", str(tmp_path / "none"), "--out", "a.zip"], "is not a folder of runs"),
        (["export", str(tmp_path), "--out", "a.tar"], "must end in .zip"),
        (["export", str(tmp_path)], "arguments are required: --out"),
        (["import", str(tmp_path / "none.zip")], "there is no archive at"),
        (["import", str(tmp_path)], "there is no archive at"),
    ):
        assert main(args) == 2
        assert reason in capsys.readouterr().err


# What is there already.


def test_conflicts_are_named_and_left(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    other = cell_record("gan", 0)
    other = replace(other, provenance=replace(other.provenance, wall_seconds=1.0))
    mine = write_cell(out, other)
    damaged_cell = write_cell(out, cell_record("gan", 1))
    (damaged_cell / "record.json").write_text("{")
    control = identified(synthetic.control("copycat", fd=3.0))
    synthetic.write_control(out, control)
    before = contents(out)
    assert main(["import", str(exported), "--out", str(out)]) == 1
    shown = capsys.readouterr()
    assert "5 added, 0 there already, 3 conflicts" in shown.out
    lines = shown.err.splitlines()
    assert len(lines) == 3 and all(line.startswith("conflict: ") for line in lines)
    for part in (f"{mine} has another record", f"{damaged_cell} is damaged", "copycat.json has other numbers"):
        assert any(part in line for line in lines)
    after = contents(out)
    assert {name: after[name] for name in before} == before


def test_a_control_of_another_machine_is_the_same_if_its_numbers_are(exported: Path, tmp_path: Path) -> None:
    control = identified(synthetic.control("copycat"))
    synthetic.write_control(tmp_path, replace(control, provenance=replace(control.provenance, cpu="another")))
    found = import_archive(exported, tmp_path)
    assert (found.added, found.present, found.conflicts) == (7, 1, [])
    (path,) = tmp_path.glob("controls/digits/*/copycat.json")
    assert load_record(path).provenance.cpu == "another"


def test_unfinished_cells_are_replaced_and_held_ones_left(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    folder = write_cell(out, cell_record("gan"))
    (folder / "done").unlink()
    (folder / "failure.json").write_text("{}")
    (folder / "logs").mkdir()
    (folder / "logs" / "old").write_text("old")
    before = contents(out)
    with cell_lock(folder):
        found = import_archive(small, out)
    assert (found.added, found.present) == (0, 0)
    assert "is being worked on by process" in found.conflicts[0] and contents(out) == before
    assert import_archive(small, out).added == 1
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        "record.json", "config.json", "samples.npz", "samples.png", "metrics.csv", "done",
    }  # fmt: skip
    assert faults(folder) == [] and [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_cannot_be_placed_is_put_back(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "runs"
    folder = write_cell(out, cell_record("gan"))
    (folder / "done").unlink()
    before, real = contents(out), shutil.os.replace

    def full(source: Path, target: Path) -> None:
        if Path(source).name == "record.json" and ".paragon-import" in str(source):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr("os.replace", full)
    found = import_archive(small, out)
    assert found.added == 0 and "No space left on device" in found.conflicts[0]
    assert contents(out) == before and [path.name for path in folder.parent.iterdir()] == [folder.name]
