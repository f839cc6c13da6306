"""Records: what they hold, that they survive a round trip, and that a damaged one is refused."""

from __future__ import annotations

import resource
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from evaluation.machine import versions
from evaluation.provenance import git_state, provenance
from evaluation.record import (
    SCHEMA_VERSION,
    Budget,
    Failure,
    Likelihood,
    MetricValue,
    Parameters,
    Record,
    RecordError,
    Speed,
    StageBudget,
    load_failure,
    load_record,
    write_atomic,
    write_json,
)


def record() -> Record:
    made = provenance(
        dataset_sha256="d" * 64, extractor_sha256=None, checkpoint_sha256="c" * 64, ema=True, sampler="heun",
        wall_seconds=2.5, cpu_seconds=3.5,
    )  # fmt: skip
    return Record(
        model="gan", dataset="digits", seed=3, config={"lr": 1e-3, "levels": [8, 5]}, config_hash="0123456789ab",
        budget=Budget(3e9, 800, 100, (StageBudget("a", 1e9, 300, 1.5), StageBudget("b", 2e9, 500, 2.0))),
        parameters=Parameters(10, 5),
        metrics={
            "fd_digits": MetricValue(1.5, 1.0, 2.0, 500, 500, "digits", False),
            "recall": MetricValue(None, None, None, 2, 2, "digits", True, "too few"),
        },
        likelihood=Likelihood(3.0, 2.9, 3.1, "elbo", {"prior": 0.5, "diffusion": 2.5}, 100),
        speed=Speed(100.0, 2.0, 3.0, 19, 64, 900.0, 1e6, 0.4),
        provenance=made,
    )  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    record().save(tmp_path / "record.json")
    assert load_record(tmp_path / "record.json") == record() or replace(
        load_record(tmp_path / "record.json"), provenance=record().provenance
    ) == record()
    failure = Failure("gan", "digits", 3, "0123456789ab", "out of memory", "2026-01-01")
    failure.save(tmp_path / "failure.json")
    assert load_failure(tmp_path / "failure.json") == failure


def test_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    replace(record(), likelihood=Likelihood(value, None, None, None)).save(tmp_path / "r.json")
    assert load_record(tmp_path / "r.json").likelihood.bits_per_dim == value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(record(), budget=Budget(value, 0, 0)).save(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def damage(tmp_path: Path, **changes: object) -> Path:
    """A record file with some of its top-level values replaced (None: left out)."""
    content = {k: v for k, v in (asdict(record()) | changes).items() if v is not None}
    write_json(tmp_path / "r.json", content)
    return tmp_path / "r.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "three"}, "seed"),
        ({"metrics": None}, "metrics"),
        ({"schema_version": SCHEMA_VERSION + 1}, f"schema version {SCHEMA_VERSION + 1}; this version reads"),
        ({"parameters": {"total": 1}}, "parameters.sampling"),
    ],
)
def test_damaged_records_are_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = damage(tmp_path, **changes)
    with pytest.raises(RecordError, match=message) as caught:
        load_record(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    record().save(tmp_path / "r.json")
    whole = (tmp_path / "r.json").read_bytes()
    for length in range(0, len(whole) - 2, 97):
        (tmp_path / "r.json").write_bytes(whole[:length])
        with pytest.raises(RecordError):
            load_record(tmp_path / "r.json")
    with pytest.raises(RecordError, match="cannot be read"):
        load_record(tmp_path / "none.json")


def test_writing_replaces_all_or_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert path.read_bytes() == b"two" and list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_atomic(tmp_path / "file", b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_bytes() == b"old"


def test_a_place_that_cannot_be_taken_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file" / "below").mkdir(parents=True)
    with pytest.raises(OSError):
        write_atomic(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_provenance_names_versions_and_commit() -> None:
    made = record().provenance
    assert {"python", "torch", "pytorch-lightning", "numpy"} <= set(versions())
    assert made.versions == versions() and made.threads >= 1 and made.precision == "float32"
    assert made.peak_memory_mib > 10 and made.cpu
    commit, dirty = git_state()
    assert (made.git_commit, made.dirty_diff_hash) == (commit, dirty) or commit is None
    assert commit is None or len(commit) == 40
    assert dirty is None or len(dirty) == 64
