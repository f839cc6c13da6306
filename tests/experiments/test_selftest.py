"""The self-test's own workings: what fails is reported, what passes is stamped, and it is all green."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.selftest import base, stamp
from experiments.selftest.base import Check, Finding, all_checks, perform
from experiments.selftest.command import listing, main, select
from tests.mutations.catalogue import MUTATIONS
from tests.mutations.run import main as run_mutations
from tests.mutations.run import mutated

QUICK = ("quantiser", "manifolds", "vqvae")


def passes() -> Finding:
    """One is one."""
    return base.close(1.0, 1.0, absolute=0.0)


def fails() -> Finding:
    """One is not two."""
    return base.close(1.0, 2.0, relative=0.5, note="they differ")


def raises() -> Finding:
    """Never gets there."""
    raise ValueError("no such\nthing")


def infinite() -> Finding:
    """Not a number."""
    return base.close(1.0, float("nan"), absolute=float("inf"))


GOOD, BAD, BROKEN, ENDLESS = (
    Check(run.__name__, group, run)
    for group, run in (("one", passes), ("one", fails), ("two", raises), ("two", infinite))
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache in a folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PARAGON_CACHE", str(folder))
    return folder


@pytest.mark.parametrize(("checks", "code"), [([GOOD], 0), ([GOOD, BAD], 1), ([BROKEN], 1), ([ENDLESS], 1)])
def test_exit_code(checks: list[Check], code: int, tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path)], checks) == code
    assert json.loads((tmp_path / "selftest.json").read_text())["passed"] is (code == 0)


def test_the_table_and_the_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--out", str(tmp_path)], [GOOD, BAD, BROKEN])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("expected", "got", "tolerance", "✓", "✗", "0.5 relative"))
    assert "FAILED fails: expected 1, got 2; they differ" in shown
    assert "FAILED raises: ValueError: no such thing" in shown
    assert shown.splitlines()[-1].startswith("1 of 3 checks passed in ")


def test_the_file(tmp_path: Path, cache: Path) -> None:
    main(["--out", str(tmp_path)], [GOOD, BAD, BROKEN, ENDLESS])
    content = json.loads((tmp_path / "selftest.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert set(content) == {"version", "date", "commit", "code_sha256", "versions", "seconds", "passed", "checks"}
    assert content["version"] == 1 and content["code_sha256"] == stamp.code_sha256()
    assert content["versions"]["numpy"] == np.__version__
    good, bad, broken, endless = content["checks"]
    assert good | {"seconds": 0} == {
        "name": "passes", "group": "one", "expected": 1.0, "got": 1.0, "tolerance": 0.0, "passed": True,
        "seconds": 0, "note": "",
    }  # fmt: skip
    assert (bad["passed"], bad["note"], bad["tolerance"]) == (False, "they differ", "0.5 relative")
    assert broken["note"] == "ValueError: no such thing" and broken["got"] is None
    assert (endless["got"], endless["tolerance"], endless["passed"]) == ("nan", "inf", False)
    assert json.loads((cache / "selftest.json").read_text()) == content


def test_part_of_the_checks_leaves_no_stamp(tmp_path: Path, cache: Path) -> None:
    assert main(["--only", "passes", "--out", str(tmp_path)], [GOOD, BAD]) == 0
    assert main(["--only", "one", "--out", str(tmp_path)], [GOOD, BAD]) == 1
    assert not list(tmp_path.rglob("*.json"))


def test_an_unknown_name_is_answered_with_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "quantizer"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'quantiser'?" in error and "distances" in error and error.count("\n") == 1
    with pytest.raises(ValueError, match="unknown check 'nothing'"):
        select([GOOD], ["nothing"])


def test_the_list_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"], [BAD, BROKEN]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "one", "  fails   One is not two.", "two", "  raises  Never gets there.",
    ]  # fmt: skip


def test_an_exception_is_a_failed_check() -> None:
    outcome = perform(BROKEN)
    assert not outcome.finding.passed and outcome.finding.note == "ValueError: no such thing"


@pytest.mark.parametrize(
    ("finding", "passed"),
    [
        (base.close(100, 100.9, relative=0.01), True),
        (base.close(100, 101.1, relative=0.01), False),
        (base.close(-100, -100.9, relative=0.01), True),
        (base.close(0, 1e-9, relative=1), False),
        (base.close(0, float("nan"), absolute=1), False),
        (base.within(1, 2, 2), True),
        (base.within(1, float("nan"), 2), False),
        (base.at_least(1, 0.9), False),
        (base.at_least(1, float("nan")), False),
        (base.at_most(1, 0.9), True),
        (base.at_most(1, float("nan")), False),
        (base.same("a", "a"), True),
        (base.same("a", "b"), False),
        (base.largest_deviation([1, 2, 3], [1, 2, 3], absolute=0), True),
        (base.largest_deviation([1, 2, 3], [1, 2, 3.1], absolute=0.05), False),
        (base.largest_deviation([1, 2, 100], [1, 2, 101], relative=0.02), True),
        (base.largest_deviation([1, 2, 100], [1, 2.1, 100], relative=0.02), False),
        (base.largest_deviation([1, 2], [1, float("nan")], absolute=1), False),
        (base.largest_deviation([1, 0], [1, float("nan")], relative=1), False),
        (base.mean_within_error(0, [-1, 1, 1, -1, 0.1], largest_error=1), True),
        (base.mean_within_error(0, [-1, 1, 1, -1, 0.1], largest_error=0.1), False),
        (base.mean_within_error(9, [-1, 1, 1, -1, 0.1], largest_error=1), False),
        (base.all_of(passes(), fails(), passes()), False),
        (base.all_of(passes(), passes()), True),
    ],
)  # fmt: skip
def test_comparisons(finding: Finding, passed: bool) -> None:
    assert finding.passed is passed


def test_comparisons_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="either"):
        base.close(1, 1)
    with pytest.raises(ValueError, match="either"):
        base.close(1, 1, relative=1, absolute=1)
    with pytest.raises(ValueError, match="shape"):
        base.largest_deviation([1, 2], [1], absolute=1)


def test_the_stamp_goes_where_the_code_is_the_same(tmp_path: Path, cache: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    stamp.stamp(second)
    assert not second.exists()
    main(["--out", str(first)], [GOOD])
    stamp.stamp(second)
    assert (second / "selftest.json").read_bytes() == (first / "selftest.json").read_bytes()
    kept = json.loads((second / "selftest.json").read_text())
    for date, expected in (("2000-01-01T00:00:00+00:00", kept["date"]), ("2999-01-01T00:00:00+00:00", None)):
        (second / "selftest.json").write_text(json.dumps(kept | {"date": date}))
        stamp.stamp(second)
        assert json.loads((second / "selftest.json").read_text())["date"] == (expected or date)
    (second / "selftest.json").write_text("{ damaged")
    stamp.stamp(second)
    assert json.loads((second / "selftest.json").read_text()) == kept
    (cache / "selftest.json").write_text(json.dumps(kept | {"code_sha256": "of other code"}))
    stamp.stamp(tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARAGON_CACHE", str(tmp_path / "file"))
    assert main(["--out", str(tmp_path)], [GOOD]) == 0
    assert (tmp_path / "selftest.json").is_file()


def test_where_the_copy_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stamp.cached_file().parts[-2:] == ("cache", "selftest.json")
    monkeypatch.delenv("PARAGON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cached")
    assert stamp.cached_file() == Path("/cached/paragon/selftest.json")


def test_the_code_hash_sees_every_change(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "a.py"
    hashes = set()
    for name, text in (("a.py", "x"), ("a.py", "y"), ("b.py", "y"), ("b.txt", "y")):
        path = path.rename(path.with_name(name)) if path.exists() else path
        path.write_text(text)
        hashes.add(stamp.code_sha256(tmp_path))
    assert len(hashes) == 4


def test_checks_are_named_once_and_say_what_they_do() -> None:
    checks = all_checks()
    assert len({c.name for c in checks}) == len(checks) >= 34
    for check in checks:
        assert check.run.__module__ == f"experiments.selftest.checks_{check.group}"
        assert check.summary.endswith((".", "...", ":")), check.name
    assert not {c.name for c in checks} & {c.group for c in checks}
    assert all(check.name in listing(checks) for check in checks)


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from experiments.selftest.command import main; code = main(['--list']);"
        "sys.exit(code or 3 * ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("check", [c for c in all_checks() if c.group in QUICK], ids=lambda c: c.name)
def test_quick_checks_pass(check: Check) -> None:
    finding = perform(check).finding
    assert finding.passed, finding


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.what}")
def test_mutations_fit_the_program(mutation: object, root: Path) -> None:
    assert isinstance(mutation, type(MUTATIONS[0]))
    text = (root / mutation.file).read_text(encoding="utf-8")
    changed = mutated(mutation, text)
    assert changed != text
    compile(changed, mutation.file, "exec")
    select(all_checks(), mutation.checks)


def test_there_are_mutations_of_everything() -> None:
    assert len(MUTATIONS) >= 24
    rooms = {Path(m.file).parent.as_posix() for m in MUTATIONS}
    assert {"evaluation/metrics", "evaluation", "evaluation/likelihood", "models/diffusion", "models/gan",
            "models/vqvae", "datamodules"} <= rooms  # fmt: skip


@pytest.mark.slow
def test_the_whole_selftest_is_green(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "selftest.json").read_text())
    assert content["passed"] and content["seconds"] <= 180


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_mutation_is_caught() -> None:
    assert run_mutations([]) == 0
