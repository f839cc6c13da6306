"""Finding records, and surviving damaged files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluation.record import Failure
from reports.collect import FileError, collect, load_log, load_picture, load_samples, results_frame
from tests.reports import synthetic


def test_everything_is_found(runs: Path) -> None:
    found = collect(runs)
    assert sum(not run.control for run in found.runs) == 12
    assert {run.name for run in found.runs if run.control} == {"real_train", "gaussian", "copycat"}
    assert [(f.failure.model, f.failure.seed, f.budget) for f in found.failed] == [("gan", 7, 3e12)]
    assert len(found.unreadable) == 1
    assert found.unreadable[0].startswith("vqvae/digits/abc/seed=9/record.json is not a valid Record")


def test_a_failure_that_was_mended_is_forgotten(tmp_path: Path) -> None:
    synthetic.write_failure(tmp_path, "gan", 7)
    assert len(collect(tmp_path).failed) == 1
    synthetic.write_cell(tmp_path, synthetic.record("gan", 7), files=False)
    assert collect(tmp_path).failed == ()


def test_the_budget_of_a_failure_is_read_from_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "gan" / "digits" / "h" / "seed=0"
    Failure("gan", "digits", 0, "h", "broken", "today").save(folder / "failure.json")
    assert collect(tmp_path).failed[0].budget is None
    (folder / "config.json").write_text('{"budget": 5e11}')
    assert collect(tmp_path).failed[0].budget == 5e11


def test_flat_results_hold_the_numbers_of_the_records(runs: Path) -> None:
    found = collect(runs)
    frame = results_frame(found.runs)
    assert len(frame) == len(found.runs)
    for row, run in zip(frame.to_dict("records"), found.runs, strict=True):
        record = run.record
        assert (row["model"], row["seed"], row["control"]) == (run.name, record.seed, run.control)
        assert row["train_flops"] == record.budget.train_flops
        for name, metric in record.metrics.items():
            assert row[name] == metric.value
            assert row[f"{name}_n_fake"] == metric.n_fake


def test_samples_round_trip(tmp_path: Path) -> None:
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    np.savez(tmp_path / "s.npz", images=images, labels=np.array([1, 0]))
    loaded, labels = load_samples(tmp_path / "s.npz")
    np.testing.assert_array_equal(loaded, images)
    assert labels is not None and labels.tolist() == [1, 0]
    np.savez(tmp_path / "u.npz", images=images)
    assert load_samples(tmp_path / "u.npz")[1] is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive"])
@pytest.mark.parametrize("load", [load_samples, load_picture, load_log])
def test_damaged_files_give_one_sentence(
    tmp_path: Path, content: bytes, load: Callable[[Path], object]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"file (cannot be read|needs a column)") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_missing_and_misshapen_samples(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="it does not exist"):
        load_samples(tmp_path / "none.npz")
    np.savez(tmp_path / "f.npz", images=np.zeros((2, 1, 4, 4)))
    with pytest.raises(FileError, match="must hold uint8 images"):
        load_samples(tmp_path / "f.npz")
    np.savez(tmp_path / "k.npz", pictures=np.zeros(3))
    with pytest.raises(FileError, match="images"):
        load_samples(tmp_path / "k.npz")
