"""What the figures show: every seed, the controls, the right classes, the same colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from reports.collect import Run
from reports.pictures import PER_ROW, Panel, picture, sample_sheets
from reports.plots import MARKERS, looks, points, quality_vs_compute, quality_vs_time, render, training_curves
from tests.reports.synthetic import MODELS, control, record

RUNS = [Run(record(m, seed), Path(m, str(seed)), False) for m in MODELS for seed in range(3)]
RUNS += [Run(control(name), Path(f"{name}.json"), True) for name in ("real_train", "gaussian")]
LOOK = looks(MODELS)


def test_looks_are_stable_and_distinct() -> None:
    assert looks(reversed(MODELS)) == LOOK
    many = looks(f"model {i}" for i in range(25))
    assert len(set(many.values())) == 25
    assert len(MARKERS) == 10


def test_every_seed_is_a_dot_at_its_numbers() -> None:
    figure = quality_vs_time(points(RUNS, "fd_digits"), "fd_digits", LOOK)
    assert figure is not None
    dots = np.concatenate([np.asarray(c.get_offsets()) for c in figure.axes[0].collections])
    expected = [
        (1 / run.record.speed.images_per_second, run.record.metrics["fd_digits"].value)
        for run in RUNS
        if run.record.speed.images_per_second
    ]
    np.testing.assert_allclose(sorted(map(tuple, dots)), sorted(expected))
    assert {to_hex(c) for c in figure.axes[0].collections[0].get_facecolors()} == {
        look.colour for look in LOOK.values()
    }


def test_the_floor_is_a_line_at_its_height() -> None:
    figure = quality_vs_compute(points(RUNS, "fd_digits"), "fd_digits", LOOK)
    assert figure is not None
    levels = [run.record.metrics["fd_digits"].value for run in RUNS if run.control]
    lines = [line.get_ydata() for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert sorted(float(np.asarray(y)[0]) for y in lines) == pytest.approx(sorted(levels))


def test_without_numbers_there_is_no_figure() -> None:
    nothing = points(RUNS, "fid")
    assert nothing.empty
    assert quality_vs_time(nothing, "fid", LOOK) is None
    assert quality_vs_compute(nothing, "fid", LOOK) is None
    assert training_curves([], LOOK) is None
    assert sample_sheets([]) is None


@pytest.mark.parametrize("values", [[0.0, -1.0, 2.0], [5.0, 5.0, 5.0], [1e-9, 1.0, 1e9]])
def test_odd_distances_can_be_drawn(values: list[float]) -> None:
    runs = [Run(record("gan", i, fd=value), Path(str(i)), False) for i, value in enumerate(values)]
    figure = quality_vs_time(points(runs, "fd_digits"), "fd_digits", LOOK)
    assert figure is not None
    svg, png = render(figure)
    assert svg.startswith(b"<?xml") and png.startswith(b"\x89PNG")


def test_rows_of_a_sheet_are_classes() -> None:
    labels = np.repeat(np.arange(3), PER_ROW)[::-1].copy()
    images = (labels * 100).astype(np.uint8)[:, None, None, None] * np.ones((1, 1, 6, 6), dtype=np.uint8)
    figure = sample_sheets([Panel("gan", "seed 0", "#000000", images, labels)])
    assert figure is not None
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    height = sheet.shape[0] // 3
    assert [int(sheet[i * height, 0, 0]) for i in range(3)] == [0, 100, 200]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]


def test_curves_have_a_panel_per_stage_and_survive_gaps() -> None:
    log = pd.DataFrame({
        "stage": ["autoencoder"] * 4 + ["prior"] * 4, "images_seen": [1, 2, None, 4] * 2,
        "loss": [3.0, None, 2.0, 1.0] * 2, "note": "text",
    })  # fmt: skip
    figure = training_curves([(Run(record("vqvae"), Path("a"), False), log)], LOOK)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["vqvae: autoencoder", "vqvae: prior"]
    line = figure.axes[0].lines[0]
    np.testing.assert_array_equal(np.asarray(line.get_xydata()), [[1, 3], [4, 1]])


def test_a_wide_picture_fits_the_page() -> None:
    figure = picture(np.zeros((10, 300, 3), dtype=np.uint8), "steps")
    assert figure.get_figwidth() == 11
    assert picture(np.zeros((300, 10, 3), dtype=np.uint8), "steps").get_figheight() < 8.5
