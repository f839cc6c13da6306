"""Grouping, means over seeds, intervals, the best: against independent arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evaluation.record import Likelihood, Record, Speed
from reports.collect import CONTROL_TITLES, Collection, Run, collect
from reports.summary import observations, summarise
from reports.tables import MISSING, Table, TableCell, build_tables
from tests.reports.synthetic import control, metric, record


def tables_of(*records: Record, controls: tuple[Record, ...] = ()) -> list[Table]:
    runs = [Run(r, Path(r.model, r.config_hash, f"{r.seed}", "record.json"), False) for r in records]
    runs += [Run(r, Path("controls", f"{r.model}.json"), True) for r in controls]
    return build_tables(Collection(tuple(runs), (), ()))


def cell(table: Table, model: str, key: str) -> TableCell:
    place = [column.key for column in table.columns].index(key)
    return next(row for row in table.rows if row.model == model).cells[place]


def best(table: Table, key: str) -> list[str]:
    return [row.model for row in table.rows if cell(table, row.model, key).best]


def test_seeds_become_mean_and_t_interval() -> None:
    records = [record("gan", seed) for seed in range(3)]
    table = tables_of(*records)[0]
    values = [r.metrics["fd_digits"].value for r in records]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    row = table.summary[table.summary["key"] == "fd_digits"].iloc[0]
    assert (row["value"], row["low"], row["high"]) == pytest.approx((np.mean(values), low, high))
    assert row["noise"] == "training"
    assert table.rows[0].note == "training noise over 3 seeds"
    assert cell(table, "gan", "fd_digits").note == f"± {(high - low) / 2:.2g}"


def test_one_seed_keeps_the_interval_of_its_evaluation() -> None:
    table = tables_of(record("gan", 1))[0]
    assert cell(table, "gan", "fd_digits") == TableCell("9.00", "[8.10, 9.90]")
    assert table.rows[0].note == "evaluation noise, one seed"


@pytest.mark.parametrize(("other", "winner"), [(4.0, ["diffusion"]), (8.0, []), (9.0, []), (20.0, ["gan"])])
def test_best_only_if_no_interval_overlaps(other: float, winner: list[str]) -> None:
    table = tables_of(record("gan", 1, fd=9.0), record("diffusion", 1, fd=other))[0]
    assert best(table, "fd_digits") == winner


def test_higher_is_better_turns_the_direction() -> None:
    good, bad = record("gan", 1), record("vqvae", 1)
    bad = replace(bad, metrics=bad.metrics | {"recall": metric(0.2, up=True)})
    assert best(tables_of(good, bad)[0], "recall") == ["gan"]


def test_nothing_is_best_without_intervals_or_alone() -> None:
    table = tables_of(record("gan", 1), record("diffusion", 1))[0]
    assert best(table, "density") == []  # no interval
    assert best(tables_of(record("gan", 1))[0], "fd_digits") == []


def test_controls_are_rows_but_never_best() -> None:
    table = tables_of(
        record("gan", 1), record("vqvae", 1), controls=(control("real_train"), control("gaussian"))
    )[0]
    assert [row.label for row in table.rows] == ["gan", "vqvae", *list(CONTROL_TITLES.values())[:2]]
    assert [row.control for row in table.rows] == [False, False, True, True]
    assert best(table, "fd_digits") == ["gan"]  # though the floor is lower


def test_bounds_of_different_kinds_are_not_ranked() -> None:
    def with_bits(model: str, bits: float, kind: str) -> Record:
        return replace(record(model, 1), likelihood=Likelihood(bits, bits - 0.01, bits + 0.01, kind, {}, 100))

    assert (
        best(tables_of(with_bits("gan", 2, "ais"), with_bits("diffusion", 3, "elbo"))[0], "bits_per_dim")
        == []
    )
    same = tables_of(with_bits("gan", 2, "elbo"), with_bits("diffusion", 3, "elbo"))[0]
    assert best(same, "bits_per_dim") == ["gan"]


def test_speeds_of_different_machines_are_not_ranked() -> None:
    records = [record(model, seed) for model in ("gan", "vqvae") for seed in (0, 1, 2)]
    assert best(tables_of(*records)[0], "images_per_second") == ["gan"]
    moved = [
        replace(r, provenance=replace(r.provenance, threads=64)) if r.model == "gan" else r for r in records
    ]
    assert best(tables_of(*moved)[0], "images_per_second") == []


def test_different_n_or_budget_or_data_never_share_a_table() -> None:
    base = record("gan", 0)
    other = replace(
        base, model="vqvae", config_hash="x", provenance=replace(base.provenance, dataset_sha256="f" * 64)
    )
    records = (base, record("diffusion", 0, n=500), record("diffusion", 0, budget=6e12), other)
    tables = tables_of(*records, controls=(control("real_train"), control("gaussian", n=500)))
    assert len(tables) == 4
    for table in tables:
        sizes = {(m.n_real, m.n_fake) for run in table.runs for m in run.record.metrics.values()}
        assert sizes == {(table.group.n_real, table.group.n_fake)}
        assert len({run.budget for run in table.runs if not run.control}) == 1
        assert len({run.record.provenance.dataset_sha256 for run in table.runs}) == 1
    names = [{run.name for run in table.runs} for table in tables]
    for together in (
        {"gan", "real_train"},
        {"diffusion", "gaussian"},
        {"diffusion", "real_train"},
        {"vqvae"},
    ):
        assert together in names


def test_one_metric_with_two_n_has_two_columns() -> None:
    first, second = record("gan", 1), record("vqvae", 1)
    second = replace(second, metrics=second.metrics | {"extra": metric(1.0, n=50)})
    first = replace(first, metrics=first.metrics | {"extra": metric(2.0, n=60)})
    table = tables_of(first, second)[0]
    assert [(c.title, c.n) for c in table.columns if c.key == "extra"] == [
        ("extra", "n = 50"),
        ("extra", "n = 60"),
    ]
    assert best(table, "extra") == []


def test_unknown_metrics_get_a_column_with_their_own_direction() -> None:
    made = record("gan", 1)
    table = tables_of(replace(made, metrics=made.metrics | {"surprise": metric(0.5, up=True)}))[0]
    column = next(c for c in table.columns if c.key == "surprise")
    assert (column.arrow, column.n, column.section) == ("↑", "n = 359", "Quality")


def test_missing_numbers_keep_their_reason_as_a_footnote() -> None:
    speed = Speed(None, None, None, None, None, None, None, None, "the clock stopped")
    made = replace(record("gan", 1), speed=speed)
    lost = made.metrics | {"recall": metric(None, n=0, up=True, reason="too few samples")}
    table = tables_of(replace(made, metrics=lost), record("vqvae", 1))[0]
    notes = dict(table.footnotes)
    for key, reason in (("recall", "too few samples"), ("images_per_second", "the clock stopped")):
        printed = cell(table, "gan", key)
        assert printed.text == MISSING
        assert notes[printed.mark] == reason
    assert len([c for c in table.columns if c.key == "recall"]) == 1  # n = 0 makes no column of its own


def test_a_number_missing_for_some_seeds_says_so() -> None:
    lost = record("gan", 1)
    lost = replace(lost, metrics=lost.metrics | {"recall": metric(None, up=True, reason="it broke")})
    table = tables_of(record("gan", 0), lost, record("gan", 2))[0]
    printed = cell(table, "gan", "recall")
    assert printed.text == "0.700"
    assert dict(table.footnotes)[printed.mark] == "missing for 1 of 3 seeds: it broke"


def test_two_configurations_of_a_model_are_two_rows() -> None:
    table = tables_of(record("gan", 1, config_hash="a" * 12), record("gan", 1, config_hash="b" * 12, fd=99))[
        0
    ]
    assert [row.label for row in table.rows] == ["gan · aaaaaa", "gan · bbbbbb"]


def test_the_newest_of_two_controls_is_taken() -> None:
    old, new = control("gaussian", fd=50.0), control("gaussian", fd=60.0)
    new = replace(new, provenance=replace(new.provenance, date="2027-01-01T00:00:00Z"))
    table = tables_of(record("gan", 1), controls=(new, old))[0]
    value = new.metrics["fd_digits"].value
    assert value is not None
    assert float(cell(table, "gaussian", "fd_digits").text) == pytest.approx(value, rel=5e-3)


def test_failures_stand_under_their_configuration(runs: Path) -> None:
    tables = build_tables(collect(runs))
    assert [len(table.failed) for table in tables] == [1, 0, 0]
    assert [table.group.budget for table in tables] == [3e12, 3e12, 5e11]


def test_summary_of_many_records_agrees_with_pandas() -> None:
    records = [record(model, seed) for model in ("gan", "vqvae", "diffusion") for seed in range(5)]
    seen = observations(Run(r, Path("record.json"), False) for r in records)
    summary = summarise(seen).set_index(["model", "key"])["value"]
    expected = seen.dropna(subset="value").astype({"value": float}).groupby(["model", "key"])["value"].mean()
    pd.testing.assert_series_equal(summary[expected.index].astype(float), expected, check_names=False)
