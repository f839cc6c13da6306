"""The tables of detail: every likelihood, every metric, speed; and rows of images made elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from evaluation.record import Likelihood, Record
from reports.details import likelihood_grid, metric_grid, speed_grid
from reports.grid import Grid, GridRow
from reports.plots import looks, points, quality_vs_compute
from reports.plots_details import speed_sweep
from reports.tables import MISSING, Table
from reports.verdict import verdict
from tests.reports.synthetic import MODELS, bound, complete, control, external, made_with, record
from tests.reports.test_tables import best, cell, tables_of


def with_bounds(made: Record, *bounds: Likelihood) -> Record:
    return replace(made, likelihood=bounds[0], likelihoods=tuple(bounds))


def test_a_likelihood_row_per_model_and_kind() -> None:
    slow = bound(3.05, "ode", nfe=231.5, n_images=32, settings={"trace": "exact"})
    grid = likelihood_grid(tables_of(with_bounds(record("diffusion", 1), bound(3.1, "elbo"), slow))[0])
    assert grid is not None
    first, second = (row.cells for row in grid.rows)
    assert first[:6] == ("diffusion", "elbo", "3.100 ± 0.010", "[3.080, 3.120]", "359", "32")
    assert first[6] == "prior 0.100; rest 3.00"
    assert first[7] == "✓ two independent estimates agree within 0.004 bits/dim"
    assert first[8] == "noise levels = 32; variance = posterior"
    assert second[1:6] == ("ode", "3.050 ± 0.010", "[3.030, 3.070]", "32", "232") and second[8] == "trace = exact"


def test_seeds_become_a_mean_and_the_worst_check_is_shown() -> None:
    values = (3.0, 3.2, 3.1)
    records = [with_bounds(record("gan", s), bound(v, "ais", settings={"variance": v / 10}))
               for s, v in enumerate(values)]  # fmt: skip
    failed = bound(3.1, "ais", self_check="the sandwich is too wide", self_check_passed=False)
    records[2] = with_bounds(records[2], replace(failed, settings={"variance": 0.31}))
    grid = likelihood_grid(tables_of(*records)[0])
    assert grid is not None and len(grid.rows) == 1
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    cells = grid.rows[0].cells
    assert cells[2:4] == ("3.100 ± 0.010", f"[{low:.3f}, {high:.3f}]")
    assert cells[7] == "✗ 2 of 3 seeds: the sandwich is too wide" and grid.rows[0].flagged
    assert cells[8] == "variance = 0.3 / 0.32 / 0.31"


def test_a_failed_self_check_is_never_best_and_is_said() -> None:
    def table(**changes: object) -> Table:
        return tables_of(with_bounds(record("gan", 1), bound(2.0, "elbo", **changes)),
                         with_bounds(record("diffusion", 1), bound(3.0, "elbo")))[0]  # fmt: skip

    assert best(table(), "bits_per_dim") == ["gan"]
    doubted = table(self_check_passed=False)
    assert best(doubted, "bits_per_dim") == []
    assert dict(doubted.footnotes)[cell(doubted, "gan", "bits_per_dim").mark] == "its self-check failed"
    assert "The likelihood of gan is not used: its self-check failed." in verdict(doubted.summary)


def test_a_missing_likelihood_keeps_its_reason() -> None:
    broken = bound(1.0, "ode", bits_per_dim=None, reason_missing="it took too long")
    grid = likelihood_grid(tables_of(with_bounds(record("diffusion", 1), bound(3.1, "elbo"), broken))[0])
    assert grid is not None
    assert len(grid.rows) == 1 and grid.notes == ("diffusion, ode: none (it took too long).",)


def test_the_first_table_is_short_and_the_second_holds_every_metric() -> None:
    table = tables_of(complete(record("gan", 1)), complete(record("vqvae", 1)))[0]
    shown = [table.columns[place].key for place in table.places(["Quality"])]
    assert shown == ["fd_digits", "kd_digits", "precision", "recall", "density", "coverage", "class_agreement",
                     "memorization_gap_pixels"]  # fmt: skip
    grid = metric_grid(table)
    assert grid is not None
    assert [row.cells[0] for row in grid.rows] == [
        "fd_digits ↓", "fd_digits_train ↓", "fd_efficientnet_lite0 ↓", "fd_infinity_digits ↓", "kd_digits ↓",
        "fd_class_digits ↓", "precision ↑", "precision (efficientnet_lite0) ↑", "recall ↑", "density ↑", "coverage ↑",
        "vendi ↑", "class agreement ↑", "memorisation gap (digits) ↓", "memorisation gap (pixels) ↓",
        "C_T (digits) ↑", "AuthPct (digits) ↑",
    ]  # fmt: skip
    assert grid.header == ("metric", "n", "gan", "vqvae")
    assert grid.rows[0].cells[2] == "9.00 [8.10, 9.90] ★"


def test_speed_has_its_details() -> None:
    grid = speed_grid(tables_of(complete(record("diffusion", 1)))[0])
    assert grid is not None
    assert grid.rows[0].cells == (
        "diffusion", "50.0", "[48.5, 51.5]", "250", "20.0 / 22.0 / 24.0 ms", "35", "1.00 GFLOP", "50.0 %",
        "300 MiB", "0.400 s", "denoiser 90 %, other 10 %",
    )  # fmt: skip
    assert "Some CPU, 2 threads" in grid.intro
    assert speed_grid(tables_of(external())[0]) is None


def test_the_sweep_is_drawn_at_its_numbers() -> None:
    runs = tables_of(complete(record("gan", 1)))[0].runs
    figure = speed_sweep(runs, looks(MODELS))
    assert figure is not None
    x, y = figure.axes[0].lines[-1].get_data()
    sweep = runs[0].record.speed.sweep
    assert dict(zip(map(int, x), y, strict=True)) == pytest.approx({int(k): v for k, v in sweep.items()})
    assert speed_sweep(tables_of(record("gan", 1))[0].runs, looks(MODELS)) is None


def test_images_made_elsewhere_are_ranked_with_the_models() -> None:
    models = [record(model, seed) for model in ("gan", "diffusion") for seed in range(3)]
    tables = tables_of(*models, external(fd=1.0), controls=(control("real_train"),))
    assert len(tables) == 1
    rows = tables[0].rows
    assert [row.label for row in rows] == ["diffusion", "gan", "stranger (images made elsewhere)",
                                           "real train images (floor)"]  # fmt: skip
    assert best(tables[0], "fd_digits") == ["stranger"]
    for key in ("train_flops", "parameters_total", "wall_seconds"):
        printed = cell(tables[0], "stranger", key)
        assert printed.text == MISSING
        assert dict(tables[0].footnotes)[printed.mark] == "made elsewhere: its training is unknown"
    text = " ".join(verdict(tables[0].summary))
    assert "stranger has the lowest fd_digits" in text
    assert "one seed only" not in text  # nothing was trained with one seed


def test_they_stand_in_every_table_of_their_conditions() -> None:
    tables = tables_of(record("gan", 1), record("gan", 1, budget=5e11), record("gan", 1, n=200), external())
    assert [any(run.external for run in table.runs) for table in tables] == [True, True, False]


def test_made_differently_they_stand_apart_with_the_reason() -> None:
    odd = made_with(external(), "fd_digits", resize="16x16 bilinear")
    main, apart = tables_of(record("gan", 1), odd, controls=(control("real_train"),))
    assert [row.model for row in main.rows] == ["gan", "real_train"]
    assert [row.model for row in apart.rows] == ["stranger", "real_train"]
    assert apart.notices[0] == (
        "stranger stands in a table of its own: resize differs (none for gan; 16x16 bilinear for stranger)."
    )


def test_alone_they_have_a_table_with_the_controls() -> None:
    table = tables_of(external(), controls=(control("gaussian"),))[0]
    assert [row.control for row in table.rows] == [False, True]
    assert verdict(table.summary)[0].startswith("On digits, only stranger has been measured")


def test_figures_draw_them_as_lines() -> None:
    table = tables_of(record("gan", 1), external(fd=6.0))[0]
    figure = quality_vs_compute(points(table.runs, "fd_digits"), "fd_digits", looks(("gan", "stranger")))
    assert figure is not None
    assert any(np.allclose(np.asarray(line.get_ydata()), 5.88) for line in figure.axes[0].lines)


def test_a_grid_has_rows_of_one_length() -> None:
    with pytest.raises(ValueError, match="another length"):
        Grid("t", "", ("a", "b"), (GridRow(("1",)),))
