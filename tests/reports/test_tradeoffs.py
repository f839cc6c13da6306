"""Precision against recall along sweeps, likelihoods against what was tried, and the pictures of latent spaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.curves import CURVES_FILE, CurvePoint, Curves, Floor, SweepAxis, of_cell
from evaluation.record import Record, load_record
from reports.collect import collect
from reports.curves import SweepCurves, mean_shares, members_of, points_frame, share_sentences, sweeps_of
from reports.figures_latents import PICTURES
from reports.page import write_report
from reports.plots import looks
from reports.plots_tradeoffs import share_figure, tried_figure, tried_values
from reports.tables import Table, build_tables
from tests.reports import synthetic
from tests.reports.test_curves import point, read

PSI = SweepAxis("psi", "truncation", "truncation psi (1: as trained, 0: the mean latent)", False)
LINE = ((0.5, 9.0, 0.95, 0.3), (0.8, 4.0, 0.9, 0.6), (1.0, 3.0, 0.8, 0.7))  # psi, distance, precision, recall
TRIED = {"sigma": {0.1: 6.0, 0.2: 4.5, 0.4: 5.0}}


def share(value: float) -> object:
    return synthetic.metric(value, up=True)


def psi_point(x: float, distance: float, precision: float, recall: float) -> CurvePoint:
    value = synthetic.metric(distance)
    beside = {"precision": share(precision), "recall": share(recall)}
    return CurvePoint("psi", "generator", x, {"psi": x}, 1, "fd_digits", value, 0, 1.0, beside)


def psi_curves(record: Record, shift: float = 0.0) -> Curves:
    points = tuple(psi_point(x, d, p, r + shift) for x, d, p, r in LINE)
    floors = [Floor("fd_digits", synthetic.metric(0.8)), Floor("precision", share(0.75)), Floor("recall", share(0.72))]
    return replace(of_cell(record), axes=(PSI,), points=points, floors=tuple(floors))


def calibrated(record: Record) -> Record:
    bound = synthetic.bound(4.5, "ais", tried=TRIED)
    return replace(record, likelihood=bound, likelihoods=(bound,))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a model with a sweep of psi, what its calibration tried, and pictures of its latent space."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        record = calibrated(synthetic.record("gan", seed))
        cell = synthetic.write_cell(folder, record, files=False)
        psi_curves(record, 0.1 * seed).save(cell / CURVES_FILE)
        for name in PICTURES:
            pixels = np.random.default_rng(seed).integers(0, 256, (40, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(cell / f"{name}.png")
    synthetic.write_cell(folder, synthetic.record("diffusion"), files=False)
    write_report(folder)
    return folder


@pytest.fixture
def table(out: Path) -> Table:
    return build_tables(collect(out))[0]


@pytest.fixture
def sweep(table: Table) -> SweepCurves:
    (found,) = sweeps_of(members_of(table, read), "fd_digits")
    return found


def test_shares_are_averaged_over_seeds_and_drawn_where_they_are(sweep: SweepCurves) -> None:
    rows = mean_shares(sweep.points)
    assert rows["recall"].to_list() == pytest.approx([0.35, 0.65, 0.75])
    assert rows["precision"].to_list() == pytest.approx([0.95, 0.9, 0.8]) and sweep.shares == (0.75, 0.72)
    figure = share_figure(sweep, looks(["gan", "diffusion"]))
    assert figure is not None
    line, cross = figure.axes[0].lines
    assert list(line.get_xdata()) == pytest.approx([0.35, 0.65, 0.75])
    assert list(line.get_ydata()) == pytest.approx([0.95, 0.9, 0.8])
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([0.72], [0.75])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.5", "0.8", "1"]


def test_the_sentence_names_both_ends_of_the_trade(sweep: SweepCurves) -> None:
    assert share_sentences(sweep) == [
        "gan: precision is highest, 0.950, at 0.5 (recall 0.350); recall is highest, 0.750, at 1 (precision 0.800).",
        "As many real training images (cross) have precision 0.750, recall 0.720.",
    ]


def test_no_figure_where_the_axis_is_cost_or_shares_are_unknown(sweep: SweepCurves, tmp_path: Path) -> None:
    look = looks(["gan", "diffusion"])
    assert share_figure(replace(sweep, points=sweep.points.assign(precision=None)), look) is None
    assert share_figure(replace(sweep, points=sweep.points.assign(nfe=sweep.points["x"])), look) is None
    record = synthetic.record("diffusion")
    folder = synthetic.write_cell(tmp_path, record, files=False)
    plain = [point("guidance", "heun", x, 19, 5.0 - x) for x in (0.0, 1.0)]
    axis = SweepAxis("guidance", "guidance", "guidance scale", False)
    replace(of_cell(record), axes=(axis,), points=tuple(plain)).save(folder / CURVES_FILE)
    members = members_of(build_tables(collect(tmp_path))[0], read)
    (found,) = sweeps_of(members, "fd_digits")
    assert share_figure(found, look) is None and share_sentences(found) == []
    assert points_frame(members)["recall"].isna().all()


def test_what_was_tried_survives_the_file_and_is_drawn(out: Path, table: Table) -> None:
    (path,) = out.glob("gan/*/*/seed=0/record.json")
    assert load_record(path).likelihood.tried == TRIED
    assert [(label, kind, name) for label, _, kind, name, _ in tried_values(table)] == [("gan", "ais", "sigma")] * 2
    figure = tried_figure(table, looks(["gan", "diffusion"]))
    assert figure is not None and len(figure.axes) == 1
    curve, best = figure.axes[0].lines[:2]
    assert list(curve.get_xdata()) == [0.1, 0.2, 0.4] and list(curve.get_ydata()) == [6.0, 4.5, 5.0]
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([0.2], [4.5])
    assert figure.axes[0].get_xscale() == "log" and figure.axes[0].get_xlabel() == "sigma (ais)"


@pytest.mark.parametrize("tried", [{}, {"sigma": {0.1: 5.0}}, {"sigma": {-1.0: 5.0, 0.0: 4.0, 0.3: 3.0}}])
def test_what_has_no_place_on_the_axes_is_no_figure(tried: dict[str, dict[float, float]], tmp_path: Path) -> None:
    bound = synthetic.bound(4.5, "ais", tried=tried)
    record = replace(synthetic.record("gan"), likelihood=bound, likelihoods=(bound,))
    synthetic.write_cell(tmp_path, record, files=False)
    assert tried_figure(build_tables(collect(tmp_path))[0], looks(["gan"])) is None


def test_the_page_has_all_of_it(out: Path) -> None:
    page = (out / "report" / "index.html").read_text()
    for title in ("Quality against truncation", "Precision against recall by truncation",
                  "Bits per dimension against what was calibrated"):  # fmt: skip
        assert f"<h3>{title}</h3>" in page
    assert "gan: precision is highest, 0.950, at 0.5 (recall 0.350)" in page
    for name, (what, caption) in PICTURES.items():
        assert f'<figure id="digits_{name}_gan' in page and f"gan: {what}" in page and caption[:40] in page
        assert caption.count(". ") == 1 and caption.endswith("."), "two sentences"
    assert "Lowest of what was tried: gan: 4.50 bits/dim at sigma 0.2" in page
    for name in ("precision_recall_by_psi", "likelihood_by_setting"):
        with Image.open(out / "report" / "figures" / f"digits_{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
