"""Published tables against records: what is changed is found, named, and nothing is written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from datamodules import digits
from evaluation.record import load_record
from experiments.cli import main
from experiments.config import Cell, EvaluationConfig
from experiments.identity import identity, identity_fault
from experiments.presets import gan
from reports.differences import report_differences, table_difference, text_difference
from reports.page import write_report
from tests.experiments.sealed import cell_record, contents, write_cell, write_runs


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with its report; not to be changed."""
    out = write_runs(tmp_path_factory.mktemp("runs"))
    write_report(out)
    return out


@pytest.fixture
def runs(reported: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(reported, tmp_path / "runs"))


def said(out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code and lines of ``verify``, which writes nothing."""
    before = contents(out)
    code = main(["verify", str(out)])
    shown = capsys.readouterr()
    assert shown.err == "" and contents(out) == before
    return code, shown.out.splitlines()


def test_an_untouched_folder_agrees(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = runs / "report" / "index.html"
    page.write_text(page.read_text().replace("data:image/svg+xml;base64,PD", "data:image/svg+xml;base64,QQ"))
    code, lines = said(runs, capsys)
    assert code == 0 and len(lines) == 1
    assert "(8 records, 5 finished cells with seals)" in lines[0]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def published(reported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reported / "report", tmp_path / "report"))


EDITS = [
    ("table.md", "| 8.91", "| 8.92", ["(gan (", "column fd\\_digits ↓ (n = 359) is '8.92 ±", "'8.91"]),
    ("table.md", "gan with 8.91", "gan with 8.92", ["next is gan with 8.92", "next is gan with 8.91"]),
    ("table.tex", "& 8.91", "& 8.81", ["table.tex: line", "column fd\\_digits $\\downarrow$ is '8.81", "'8.91"]),
    ("results.csv", "8.82", "8.83", ["results.csv: row 1 (model gan,", "column fd_digits is '8.83' where", "'8.82'"]),
    ("index.html", "8.91", "8.01", ["index.html: line", "8.01", "8.91"]),
    ("index.html", "<footer>", "<footer >", ["index.html: line"]),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), EDITS, ids=[f"{e[0]}-{e[2]}" for e in EDITS])
def test_one_digit_is_found_and_named(
    name: str, old: str, new: str, expected: list[str], reported: Path, tmp_path: Path
) -> None:
    folder = published(reported, tmp_path)
    edit(folder / name, old, new)
    (sentence,) = report_differences(folder, reported / "report")
    assert all(part in sentence for part in expected), sentence
    assert "\n" not in sentence


def test_missing_superfluous_and_damaged_files_are_named(reported: Path, tmp_path: Path) -> None:
    folder = published(reported, tmp_path)
    (folder / "table.md").unlink()
    (folder / "table.tex").write_bytes(b"\xff")
    (folder / "old.csv").write_text("a\n1\n")
    (folder / "results.parquet").write_bytes(b"PAR1")
    (folder / "figures" / "digits_samples.png").unlink()
    (folder / "index.html").unlink()
    (folder / "index.html").symlink_to(reported / "report" / "index.html")
    found = "\n".join(report_differences(folder, reported / "report"))
    for part in (
        "table.md is missing", "table.tex: it is not UTF-8 text", "old.csv is not made from these records",
        "results.parquet: cannot be read", "figures/digits_samples.png is missing",
        "index.html: cannot be read: it is a link",
    ):
        assert part in found


def test_parquet_is_compared_as_a_table(reported: Path, tmp_path: Path) -> None:
    folder = published(reported, tmp_path)
    path = folder / "results.parquet"
    frame = pd.read_parquet(path)
    frame.to_parquet(path, index=False, compression="gzip")
    assert list(report_differences(folder, reported / "report")) == []
    frame.loc[2, "coverage"] += 1e-9
    frame.to_parquet(path, index=False)
    (sentence,) = report_differences(folder, reported / "report")
    assert "results.parquet: row 3 (" in sentence and "column coverage is" in sentence
    frame.iloc[1:].to_parquet(path, index=False)
    (sentence,) = report_differences(folder, reported / "report")
    assert "it has 7 rows and" in sentence


def test_edited_damaged_and_removed_files_are_found_by_seals(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = runs.glob("gan/digits/*/seed=1/record.json")
    (removed,) = runs.glob("vqvae/digits/*/seed=0/record.json")
    (picture,) = runs.glob("vqvae/digits/*/seed=1/samples.png")
    edit(path, "9.0", "9.5")
    removed.unlink()
    picture.write_bytes(picture.read_bytes()[:-1])
    code, lines = said(runs, capsys)
    assert code == 1
    assert any(f"{path.relative_to(runs)} is damaged: its content is not what was sealed" in line for line in lines)
    assert f"{removed.parent.relative_to(runs)} is finished, but its record.json is missing" in lines
    assert f"{picture.relative_to(runs)} is damaged: its checksum is not the sealed one" in lines
    assert any(line.startswith("report/results.csv: it has 8 rows where the records give 6") for line in lines)


def test_without_seals_an_edited_record_is_found_by_the_tables(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = runs.glob("gan/digits/*/seed=1/record.json")
    edit(path, "9.0", "9.5")
    path.with_name("done").unlink()
    code, lines = said(runs, capsys)
    assert code == 1
    for name in ("table.md", "table.tex", "results.csv", "results.parquet", "index.html"):
        assert any(line.startswith(f"report/{name}: ") for line in lines), name


def test_an_extra_record_is_found(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell(runs, cell_record("diffusion", 0))
    code, lines = said(runs, capsys)
    assert code == 1
    assert any("report/results.csv: it has 8 rows where the records give 9; the first" in line for line in lines)


def test_a_folder_without_report_lacks_every_table(reported: Path, tmp_path: Path) -> None:
    found = set(report_differences(tmp_path / "none", reported / "report"))
    assert {"table.md is missing", "table.tex is missing", "results.csv is missing", "index.html is missing"} <= found


def test_identity(tmp_path: Path) -> None:
    record = cell_record("gan", 3)
    path = write_cell(tmp_path, record) / "record.json"
    assert identity_fault(load_record(path), path, tmp_path) is None
    config = path.with_name("config.json")
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"budget": 1.0, "x": 1}))
    assert "differs from the configuration in the record: x" in str(identity_fault(record, path, tmp_path))
    config.write_text(json.dumps(told | {"budget": 1.0}))
    assert "differs from the configuration in the record: budget" in str(identity_fault(record, path, tmp_path))
    edit(path, '"width": 8', '"width": 9')
    assert "where its configuration and data give" in str(identity_fault(load_record(path), path, tmp_path))
    moved = Path(shutil.copytree(path.parent, path.parent.with_name("seed=4"))) / "record.json"
    assert "belongs to another place" in str(identity_fault(load_record(moved), moved, tmp_path))


def test_the_identity_of_a_record_is_that_of_its_cell() -> None:
    cell = Cell("gan", "digits", 1e9, 0, gan.preset(digits.INFO), digits.Config(), EvaluationConfig())
    record = cell_record("gan")
    data = record.provenance.dataset_sha256
    assert identity(replace(record, config=cell.resolved())) == cell.config_hash(data)


def test_where_texts_differ() -> None:
    table = "| | a | b |\n|---|---:|---:|\n| one | 1 | 2 |\n| two | 3 | 4 |\n"
    assert text_difference(table, table) is None
    assert text_difference(table.replace("4", "5"), table) == (
        "line 4 (two), column b is '5' where the records give '4'"
    )
    assert text_difference(table + "more\n", table) == "after line 4 it goes on where the records end"
    assert text_difference(table[:-16], table) == "after line 3 it ends where the records give more"
    assert text_difference("a\r\n", "a\n") == "its line ends are others"
    assert table_difference("a,b\n1,2\n", "a,c\n1,2\n") == "column 2 is 'b' where the records give 'c'"
    assert table_difference("a\n1\n", "a\n1\n2\n") == (
        "it has 1 rows where the records give 2; the first that differs is row 2"
    )
    assert table_difference('a\n"1\n', "a\n1\n") == "cannot be read as a table: unexpected end of data"


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "none")]) == 2
    assert main(["verify", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "none is not a folder of runs" in lines[0] and "no records below" in lines[1] and len(lines) == 2
