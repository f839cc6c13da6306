"""Numbers that were made differently are told apart, named, and neither ranked nor averaged."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from evaluation.record import Fingerprint, Record
from reports.conditions import Conditions, condition_key, fingerprint_differences, mixture
from reports.details import fingerprint_grid
from reports.verdict import verdict
from tests.reports.synthetic import PRINT, control, made_with, record
from tests.reports.test_tables import best, cell, tables_of

OTHERS = {
    "features": "inception", "weights_sha256": "9" * 64, "dtype": "float16", "resize": "16x16 bilinear",
    "quantiser": "truncated", "n_real": 7, "n_fake": 8, "reference_split": "train", "reference_sha256": None,
    "versions": {"numpy": "2.4.0", "torch": "2.15.0"}, "seed": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Fingerprint)])
def test_every_field_is_compared(name: str) -> None:
    other = replace(PRINT, **{name: OTHERS[name]})
    assert len(fingerprint_differences(PRINT, other)) == 1
    assert condition_key(PRINT) != condition_key(other)


def test_equal_fingerprints_do_not_differ() -> None:
    again = replace(PRINT, versions=dict(reversed(PRINT.versions.items())))
    assert fingerprint_differences(PRINT, again) == {}
    assert condition_key(PRINT) == condition_key(again)
    assert fingerprint_differences(None, None) == {}


def test_differences_name_both_values() -> None:
    other = replace(PRINT, resize="16x16 bilinear", versions={"torch": "2.15.0", "scipy": "1.18"})
    assert fingerprint_differences(PRINT, other) == {
        "resize": ("none", "16x16 bilinear"),
        "version of numpy": ("2.4.0", "none"),
        "version of torch": ("2.14.1", "2.15.0"),
        "version of scipy": ("none", "1.18"),
    }
    assert fingerprint_differences(PRINT, None) == {"fingerprint": ("recorded", "none recorded")}


def test_the_mixture_says_who_holds_what() -> None:
    held = [Conditions(name, PRINT) for name in ("diffusion", "gan", "gan")]
    assert mixture(held) == ""
    held.append(Conditions("vqvae", replace(PRINT, resize="16x16 bilinear")))
    assert mixture(held) == "resize differs (none for diffusion, gan; 16x16 bilinear for vqvae)"
    bare = mixture([Conditions("gan", PRINT), Conditions("vqvae", None)])
    assert bare == "no fingerprint was recorded for vqvae"


def three(changed: Record) -> list[Record]:
    return [record("diffusion", 1), record("gan", 1), changed]


def test_a_column_of_mixed_fingerprints_has_no_best_and_a_notice() -> None:
    same = tables_of(*three(record("vqvae", 1)))[0]
    assert best(same, "fd_digits") == ["diffusion"] and same.notices == ()
    mixed = tables_of(*three(made_with(record("vqvae", 1), "fd_digits", resize="16x16 bilinear")))[0]
    assert best(mixed, "fd_digits") == []
    assert best(mixed, "kd_digits") == ["diffusion"]  # the others are as they were
    assert mixed.notices == (
        "fd_digits: not ranked: resize differs (none for diffusion, gan; 16x16 bilinear for vqvae).",
    )


def test_the_verdict_ranks_no_mixed_numbers() -> None:
    records = three(made_with(record("vqvae", 1), "fd_digits", versions={"torch": "1.0"}))
    text = " ".join(verdict(tables_of(*records, controls=(control("real_train"),))[0].summary))
    assert "fd_digits is not ranked here: version of numpy differs" in text
    for phrase in ("has the lowest", "closest to", "with the lowest distance", "as far from the test images"):
        assert phrase not in text


def test_seeds_of_different_fingerprints_are_not_averaged() -> None:
    first, second = record("gan", 1, fd=9.0), record("gan", 2, fd=9.0)
    second = made_with(second, "fd_digits", dtype="float64")
    table = tables_of(first, second)[0]
    printed = cell(table, "gan", "fd_digits")
    assert printed.text == "9.00 / 9.18"
    reason = dict(table.footnotes)[printed.mark]
    assert reason == "not averaged over seeds: dtype differs (float32 for gan, seed 1; float64 for gan, seed 2)"
    assert cell(table, "gan", "recall").text == "0.700"


def test_a_control_made_differently_is_no_yardstick() -> None:
    floor = made_with(control("real_train"), "fd_digits", quantiser="truncated")
    table = tables_of(record("gan", 1), record("diffusion", 1), controls=(floor,))[0]
    assert best(table, "fd_digits") == ["diffusion"]  # models agree among themselves
    assert any(notice.startswith("fd_digits: controls are no yardstick: the quantiser") for notice in table.notices)
    assert "No floor was measured" in " ".join(verdict(table.summary))


def test_the_extractor_of_a_group_is_that_of_the_main_fingerprint() -> None:
    other = made_with(record("vqvae", 1), "fd_digits", weights_sha256="9" * 64)
    assert len(tables_of(record("gan", 1), other)) == 2


def test_every_number_shows_how_it_was_made() -> None:
    table = tables_of(*three(made_with(record("vqvae", 1), "recall", resize="16x16 bilinear")))[0]
    grid = fingerprint_grid(table)
    assert grid is not None
    listed = ", ".join(row.cells[0] for row in grid.rows)
    for column in table.columns:
        assert column.section != "Quality" or column.title in listed
    odd = next(row for row in grid.rows if "16x16 bilinear" in row.cells)
    assert odd.cells[0] == "recall of vqvae" and odd.flagged
    texts = " ".join(odd.cells)
    for part in ("e" * 12, "float32", "359 / 359", "rounded", "delete-a-group jackknife, 20 groups"):
        assert part in texts
    assert "e" * 13 not in texts
    assert grid.intro.endswith("Versions: numpy 2.4.0, torch 2.14.1.")
