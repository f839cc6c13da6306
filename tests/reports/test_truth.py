"""Bounds and metrics against the truth: flags, rank agreement against scipy, figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata

from evaluation.record import BoundGap, Record
from reports.plots import looks
from reports.plots_details import bound_gaps, metrics_vs_truth
from reports.tables import Table
from reports.truth import QUALITIES, agreement, agreement_grid, agreement_with, impossible, truth_grid
from tests.reports.synthetic import MODELS, complete, control, made_with, metric, record, truth
from tests.reports.test_tables import tables_of

FIDELITY, REACHED, DISTANCE = QUALITIES
LOOK = looks(MODELS)


def known(model: str, seed: int, fd: float, fidelity: float, recall: float = 0.7) -> Record:
    made = record(model, seed)
    values = made.metrics | {"fd_digits": metric(fd), "recall": metric(recall, up=True)}
    return replace(made, metrics=values, truth=truth(fidelity, fidelity / 10, {"elbo": 0.2}))


def four() -> list[Record]:
    data = [(1.0, 0.1, 0.9), (2.0, 0.2, 0.8), (3.0, 0.4, 0.5), (4.0, 0.3, 0.6)]
    return [known("gan", seed, *row) for seed, row in enumerate(data)]


def only(*records: Record) -> Table:
    return tables_of(*records)[0]


def test_agreement_is_spearman_by_hand_and_knows_directions() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, 30).tolist(), rng.integers(0, 8, 30).tolist()  # with ties
    expected = np.corrcoef(rankdata(x), rankdata(y))[0, 1]
    assert agreement(x, y, True) == pytest.approx(expected)
    assert agreement(x, y, False) == pytest.approx(-expected)
    assert np.isnan(agreement([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0], True))


def test_metrics_that_see_the_truth_get_a_positive_sign() -> None:
    table = only(*four())
    for name in ("fd_digits", "recall"):  # one is lower-is-better, the other higher
        rho, n, why = agreement_with(table, name, FIDELITY)
        assert (rho, n, why) == (pytest.approx({"fd_digits": 0.8, "recall": 1.0}[name]), 4, "")
    assert agreement_with(table, "recall", REACHED)[0] == pytest.approx(1.0)
    assert agreement_with(table, "recall", DISTANCE)[0] == pytest.approx(1.0)
    grid = agreement_grid(table)
    assert grid is not None
    assert grid.rows[0].cells == ("fd_digits", "4", "+0.80", "+0.80", "+0.80")


def test_controls_count_as_rows_and_three_rows_are_too_few() -> None:
    three = four()[:3]
    assert agreement_with(only(*three), "fd_digits", FIDELITY)[1:] == (3, "too few rows (3)")
    floor = replace(control("real_train"), truth=truth(0.01, 0.02))
    assert agreement_with(tables_of(*three, controls=(floor,))[0], "fd_digits", FIDELITY)[1:] == (4, "")


def test_mixed_fingerprints_are_not_ranked_against_the_truth() -> None:
    records = four()
    records[3] = made_with(records[3], "fd_digits", resize="other")
    assert agreement_with(only(*records), "fd_digits", FIDELITY)[2].startswith("not ranked: resize differs")


def test_a_bound_that_beats_the_truth_is_flagged() -> None:
    assert impossible(BoundGap("elbo", -0.031, 0.01, 10))
    assert not impossible(BoundGap("elbo", -0.029, 0.01, 10))
    assert not impossible(BoundGap("elbo", 5.0, 0.01, 10))
    cheat = replace(record("gan", 1), truth=truth(0.1, 0.1, {"elbo": -0.5}))
    grid = truth_grid(only(cheat, known("vqvae", 1, 3.0, 0.2)))
    assert grid is not None
    assert [row.flagged for row in grid.rows] == [True, False]
    assert grid.rows[0].cells[-1] == "✗ elbo -0.5000 ± 0.010"
    assert "claims 0.500 bits/dim less than the true density assigns" in grid.notes[0]


def test_the_table_shows_the_numbers_of_the_record() -> None:
    grid = truth_grid(only(known("gan", 1, 3.0, 0.2)))
    assert grid is not None
    assert "2.000 ± 0.0010" in grid.intro
    assert grid.rows[0].cells[1:] == ("2.200 ± 0.0040", "0.2000 ± 0.0041", "elbo 0.2000 ± 0.010")


def test_without_truth_there_is_nothing() -> None:
    table = only(record("gan", 1))
    assert truth_grid(table) is None and agreement_grid(table) is None
    assert metrics_vs_truth(table, LOOK) is None and bound_gaps(table.runs, LOOK) is None


def test_figures_show_every_run_at_its_numbers() -> None:
    table = tables_of(*(complete(record(m, s)) for m in MODELS for s in range(3)))[0]
    figure = metrics_vs_truth(table, LOOK)
    assert figure is not None
    dots = np.concatenate([np.asarray(c.get_offsets()) for c in figure.axes[0].collections])
    expected = [(r.record.truth.cross_entropy - r.record.truth.entropy, r.record.metrics["fd_digits"].value)
                for r in table.runs if r.record.truth]  # fmt: skip
    np.testing.assert_allclose(sorted(map(tuple, dots)), sorted(expected))
    gaps = bound_gaps(table.runs, LOOK)
    assert gaps is not None
    labels = [tick.get_text() for tick in gaps.axes[0].get_yticklabels()]
    assert labels == ["diffusion: elbo", "diffusion: ode", "gan: ais", "vqvae: two-part code"]
    low, high = gaps.axes[0].get_xlim()
    assert low < 0 < 0.2 < high
