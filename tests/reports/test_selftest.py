"""The self-test's stamp says what its file says, and never more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports.selftest import read_stamp
from tests.reports.synthetic import write_selftest

HERE = ("0" * 40,)


def test_all_passed(tmp_path: Path) -> None:
    write_selftest(tmp_path)
    stamp, damaged = read_stamp(tmp_path, HERE)
    assert stamp.text == f"Self-test: 3 of 3 checks passed on 2026-01-02, commit {'0' * 12}."
    assert stamp.passed is True and damaged == []
    assert stamp.checks is not None and len(stamp.checks.rows) == 3
    assert stamp.checks.rows[0].cells[1:6] == ("diagonal Gaussians", "1", "1", "1e-10 relative", "✓")


def test_failures_are_named_and_come_first(tmp_path: Path) -> None:
    write_selftest(tmp_path, failing=("kid", "coverage"))
    stamp, _ = read_stamp(tmp_path, HERE)
    assert stamp.text.startswith("Self-test: 1 of 3 checks passed, 2 FAILED: kid, coverage; on")
    assert stamp.passed is False and stamp.checks is not None
    assert [row.flagged for row in stamp.checks.rows] == [True, True, False]


def test_a_claim_that_its_checks_contradict_is_not_believed(tmp_path: Path) -> None:
    path = write_selftest(tmp_path, failing=("kid",))
    path.write_text(path.read_text().replace('"passed": false,\n  "checks"', '"passed": true,\n  "checks"'))
    assert json.loads(path.read_text())["passed"] is True
    assert read_stamp(tmp_path, HERE)[0].passed is False
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checks": []}))
    stamp = read_stamp(tmp_path, HERE)[0]
    assert stamp.passed is False and "NOT pass" in stamp.text


def test_another_commit_is_pointed_out(tmp_path: Path) -> None:
    write_selftest(tmp_path, commit="1" * 40)
    assert read_stamp(tmp_path, HERE)[0].text.endswith("at another commit than the records.")
    assert "another commit" not in read_stamp(tmp_path, ("1" * 40,))[0].text


def test_not_run(tmp_path: Path) -> None:
    stamp, damaged = read_stamp(tmp_path, HERE)
    assert stamp.text == "Self-test: not run in this folder (python run.py selftest)."
    assert (stamp.passed, stamp.checks, damaged) == (None, None, [])


@pytest.mark.parametrize("content", ["", '{"version": 1', "[]", '{"version": 1, "date": "x"}'])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "selftest.json").write_text(content)
    stamp, damaged = read_stamp(tmp_path, HERE)
    assert "damaged" in stamp.text and stamp.passed is None
    assert len(damaged) == 1 and "\n" not in damaged[0] and "selftest.json is not a valid" in damaged[0]


def test_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    path = write_selftest(tmp_path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    stamp, damaged = read_stamp(tmp_path, HERE)
    assert stamp.passed is None and "has version 2" in damaged[0]
