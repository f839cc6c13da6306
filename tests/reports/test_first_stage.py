"""Tables and figures of first stages: with the exam, without it, with parts of it; the floor beside the distance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evaluation.record import Budget, CodeGrid, FirstStage, Likelihood, MetricValue, Record, StageBudget
from reports.collect import collect
from reports.details import fingerprint_grid, metric_grid
from reports.first_stage import first_stage_grid, stage_grid
from reports.page import write_report
from reports.plots import looks
from reports.plots_codes import code_use, codes_in_training
from reports.tables import MISSING
from reports.verdict import verdict
from tests.reports.synthetic import MODELS, complete, metric, record, write_cell
from tests.reports.test_tables import best, cell, tables_of


def examined(made: Record, rfd: float = 2.0, **changes: object) -> Record:
    """The record with a first stage of 60 used codes of 64, two stages of training and their latencies."""
    values = {
        "rfd_digits": metric(rfd, width=None), "psnr": metric(21.0, width=0.01, up=True),
        "ssim": metric(0.88, width=0.01, up=True), "codebook_usage": metric(60 / 64, width=None, up=True),
        "perplexity": replace(metric(40.0, width=None), higher_is_better=None),
        "dead_codes": replace(metric(4.0, width=None), higher_is_better=None),
    }  # fmt: skip
    counts = tuple(range(120, 60, -1))
    first = replace(FirstStage(values, 359, 64, (CodeGrid(4, 4, 60, 40.0),), counts), **changes)
    stages = (StageBudget("autoencoder", 1e12, 8000, 10.0), StageBudget("prior", 3e12, 5000, 90.0))
    speed = replace(
        made.speed, stage_latency_ms={"prior": 6.0, "autoencoder.decoder": 1.5, "other": 0.5},
        stage_seconds={"prior": 3e-3, "autoencoder.decoder": 1e-3, "other": 0.0},
    )  # fmt: skip
    bound = Likelihood(3.4, 3.3, 3.5, "two-part code", {"code": 1.0, "pixels": 2.4}, 359)
    return replace(
        made, reconstruction=first, speed=speed, budget=Budget(4e12, 13_000, 100, stages), likelihood=bound,
        likelihoods=(bound,),
    )  # fmt: skip


def test_no_table_where_no_record_has_the_exam() -> None:
    table = tables_of(record("vqvae", 1), record("gan", 1))[0]
    assert first_stage_grid(table) is None and stage_grid(table) is None
    assert not any(column.section == "First stage" for column in table.columns)


def test_a_row_per_first_stage_and_the_reason_for_those_without() -> None:
    table = tables_of(examined(record("vqvae", 1)), record("gan", 1))[0]
    grid = first_stage_grid(table)
    assert grid is not None
    assert grid.header == (
        "model", "fd_digits of samples ↓", "rfd_digits ↓", "PSNR (dB) ↑", "SSIM ↑", "codebook usage ↑", "perplexity",
        "dead codes", "codes of an image", "bits/dim by part",
    )  # fmt: skip
    assert [row.cells for row in grid.rows] == [(
        "vqvae", "15.0 [13.5, 16.5]", "2.00", "21.0 [20.8, 21.2]", "0.880 [0.871, 0.889]", "0.938", "40.0", "4",
        "4 × 4 of 64", "code 1.00; pixels 2.40",
    )]  # fmt: skip
    assert grid.notes == (
        "gan: no first stage was examined; the model has none, or its record is older than this exam.",
    )
    assert "n = 359 test images" in grid.intro


def test_the_first_table_is_as_before_but_for_the_floor_beside_the_distance() -> None:
    plain, table = tables_of(record("vqvae", 1))[0], tables_of(examined(record("vqvae", 1)))[0]
    assert table.places(["Quality"]) == plain.places(["Quality"])
    assert cell(table, "vqvae", "fd_digits").note == cell(plain, "vqvae", "fd_digits").note + "; first stage: 2.00"
    assert cell(table, "vqvae", "kd_digits").note == cell(plain, "vqvae", "kd_digits").note
    grid = metric_grid(table)
    assert grid is not None and not [row for row in grid.rows if "rfd" in row.cells[0]]


def test_missing_numbers_have_their_reason_and_models_without_a_first_stage_no_footnote() -> None:
    made = examined(record("vqvae", 1))
    assert made.reconstruction is not None
    perfect = MetricValue(None, None, None, 359, 359, None, True, "every image came back exactly")
    odd = replace(made.reconstruction, metrics=made.reconstruction.metrics | {"psnr": perfect})
    table = tables_of(replace(made, reconstruction=odd), record("gan", 1))[0]
    printed = cell(table, "vqvae", "psnr")
    assert printed.text == MISSING and dict(table.footnotes)[printed.mark] == "every image came back exactly"
    assert cell(table, "gan", "psnr").mark == "" and cell(table, "gan", "psnr").text == MISSING
    grid = first_stage_grid(table)
    assert grid is not None and f"{MISSING} ({printed.mark})" in grid.rows[0].cells


def test_seeds_become_a_mean_and_those_without_are_counted() -> None:
    made = [examined(record("vqvae", seed), rfd=rfd) for seed, rfd in ((0, 1.0), (1, 3.0))]
    table = tables_of(*made, record("vqvae", 2))[0]
    grid = first_stage_grid(table)
    assert grid is not None and grid.rows[0].cells[2] == "2.00 ± 13"  # t of one degree of freedom
    assert grid.notes == ("vqvae: 2 of 3 records have the exam of the first stage.",)


def test_of_several_grids_each_is_described_and_continuous_codes_are_called_so() -> None:
    two = examined(record("vqvae", 1), grids=(CodeGrid(2, 2, 20, 11.0), CodeGrid(4, 4, 60, 40.0)))
    smooth = examined(record("gan", 1), grids=(), codebook_size=0, code_counts=())
    grid = first_stage_grid(tables_of(two, smooth)[0])
    assert grid is not None
    assert [row.cells[-2] for row in grid.rows] == [
        "continuous",
        "2 × 2 and 4 × 4 of 64; 2 × 2: 20 used, perplexity 11.0, 4 × 4: 60 used, perplexity 40.0",
    ]


def test_first_stages_are_ranked_among_themselves_and_no_reason_to_prefer_samples() -> None:
    models = [examined(record("vqvae", s), rfd=2.0 + s / 100) for s in range(3)]
    models += [examined(record("gan", s), rfd=9.0 + s / 100) for s in range(3)]
    table = tables_of(*models)[0]
    assert best(table, "rfd_digits") == ["vqvae"] and best(table, "fd_digits") == ["gan"]
    text = " ".join(verdict(table.summary))
    assert "separably best in rfd_digits" not in text
    assert (
        "The first stage of vqvae alone has rfd_digits = 2.01, the floor of what a prior over its codes can reach; its "
        "samples have fd_digits = 15.0." in text
    )


def test_conditions_of_the_numbers_are_told() -> None:
    grid = fingerprint_grid(tables_of(examined(record("vqvae", 1)))[0])
    assert grid is not None and "rfd_digits" in " ".join(row.cells[0] for row in grid.rows)


def test_stages_apart_with_the_networks_that_they_train() -> None:
    grid = stage_grid(tables_of(examined(record("vqvae", 1)), record("gan", 1))[0])
    assert grid is not None
    assert [row.cells for row in grid.rows] == [
        ("vqvae", "autoencoder", "1.00 TFLOP", "25 %", "10.0 s", "8.00 k", "1.50 ms", "1.00 ms"),
        ("vqvae", "prior", "3.00 TFLOP", "75 %", "1.50 min", "5.00 k", "6.00 ms", "3.00 ms"),
        ("vqvae", "other", MISSING, MISSING, MISSING, MISSING, "0.500 ms", "0 ms"),
    ]


def test_an_interval_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    made = examined(record("vqvae", 1))
    assert made.reconstruction is not None
    odd = replace(made.reconstruction.metrics["psnr"], ci_low=3.0, ci_high=2.0)
    wrong = replace(made.reconstruction, metrics=made.reconstruction.metrics | {"psnr": odd})
    write_cell(tmp_path, replace(made, reconstruction=wrong), files=False)
    found = collect(tmp_path)
    assert not found.runs and "'psnr' has an interval that ends before it begins" in found.unreadable[0]


def test_the_use_of_codes_is_drawn_at_its_numbers() -> None:
    runs = tables_of(examined(record("vqvae", 1)))[0].runs
    figure = code_use(runs, looks(MODELS), ["vqvae"])
    assert figure is not None
    axes = figure.axes[0]
    counts = np.arange(120, 60, -1)
    heights = {round(y, 9) for y in axes.collections[0].get_paths()[0].vertices[:, 1]}
    assert {round(share, 9) for share in counts / counts.sum()} <= heights
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["equal use: 1 / 64", "4 dead codes"]
    assert axes.get_yscale() == "log"
    assert code_use(tables_of(record("gan", 1))[0].runs, looks(MODELS), ["gan"]) is None


def test_codes_over_training_are_those_of_the_log() -> None:
    run = tables_of(examined(record("vqvae", 1)))[0].runs[0]
    seen = np.arange(5) * 32.0
    log = pd.DataFrame({"images_seen": seen, "loss": seen, "codes_used": [1, 5, np.nan, 7, 8], "perplexity": "words"})
    figure = codes_in_training([(run, log)], looks(MODELS))
    assert figure is not None and len(figure.axes) == 1  # a column of words is no curve
    x, y = figure.axes[0].lines[0].get_data()
    assert list(x) == [0, 32, 96, 128] and list(y) == [1, 5, 7, 8]
    assert codes_in_training([(run, log[["images_seen", "loss"]])], looks(MODELS)) is None


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two models, one of which has a first stage and its pictures."""
    runs = tmp_path_factory.mktemp("runs")
    folder = write_cell(runs, examined(complete(record("vqvae", 0))))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    for name in ("reconstructions", "codes", "inpainting"):
        picture.save(folder / f"{name}.png")
    write_cell(runs, record("gan", 0))
    write_report(runs)
    return runs


def test_every_format_has_the_tables(out: Path) -> None:
    for name in ("index.html", "table.md", "table.tex"):
        text = (out / "report" / name).read_text()
        assert "First stages: what comes back of an image" in text and "Stages apart" in text
        assert "first stage: 2.00" in text
    frame = pd.read_csv(out / "report" / "results.csv").set_index("model")
    row = frame.loc["vqvae"]
    assert (row["rfd_digits"], row["psnr"], row["codebook_size"], row["codes_per_image"]) == (2.0, 21.0, 64, 16)
    assert (row["train_flops_autoencoder"], row["train_seconds_prior"]) == (1e12, 90.0)
    assert row["stage_latency_ms_autoencoder.decoder"] == 1.5
    assert pd.isna(frame.loc["gan", "rfd_digits"])


def test_the_page_has_the_pictures_of_the_first_stage(out: Path) -> None:
    page = (out / "report" / "index.html").read_text()
    for name in ("code_use", "reconstructions_vqvae", "codes_vqvae", "inpainting_vqvae"):
        assert f'<figure id="digits_{name}' in page
    assert "60 of 64 codes occur, 4 are dead" in page
