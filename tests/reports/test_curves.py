"""Curves in the report: figures, sentences computed from the points, tables, and files that cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evaluation.curves import CURVES_FILE, BitProfile, CurvePoint, Curves, Floor, SweepAxis, load_curves, of_cell
from evaluation.record import Likelihood, MetricValue, Record
from reports.collect import Run, collect
from reports.curves import Member, means, members_of, profile_sentences, sweep_sentences, sweeps_of
from reports.page import write_report
from reports.plots_curves import likelihood_bars, parts_figure
from reports.tables import Table, build_tables
from tests.reports import synthetic

N = 359
AXES = (
    SweepAxis("nfe", "network evaluations", "network evaluations per image (NFE)", True),
    SweepAxis("guidance", "guidance", "guidance scale", False),
)
BITS = (0.1, 1.0, 1.5, 0.4)


def score(value: float, n: int = N) -> MetricValue:
    return synthetic.metric(value, n=n)


def point(sweep: str, series: str, x: float, nfe: int, value: float, *, n: int = N, seed: int = 0) -> CurvePoint:
    options = {"sampler": series, "num_steps": nfe, "guidance_scale": x if sweep == "guidance" else 1.0}
    return CurvePoint(sweep, series, x, options, nfe, "fd_digits", score(value, n), seed, 1.5)


def profile(scale: float = 1.0) -> BitProfile:
    bits, parts = tuple(scale * b for b in BITS), {"prior": 0.001, "reconstruction": 0.13}
    return BitProfile(
        "elbo", "noise level sigma", "mean squared error per pixel", (0.01, 0.1, 1.0, 10.0), bits, (0.01,) * 4,
        (1e-5, 1e-3, 0.1, 0.3), parts, sum(bits) + sum(parts.values()), 200, 0,
    )


def curves(record: Record, scale: float = 1.0) -> Curves:
    """Two samplers at up to 250 evaluations and three guidance scales."""
    values = {"heun": [(1, 40.0), (3, 20.0), (9, 8.0), (249, 4.0)], "dpmpp_2m": [(1, 40.0), (3, 12.0), (10, 4.3)]}
    points = [point("nfe", name, nfe, nfe, scale * v) for name, line in values.items() for nfe, v in line]
    points += [point("guidance", "heun, 10 steps", x, 19, scale * v) for x, v in ((0.0, 9.0), (1.0, 5.0), (2.0, 6.0))]
    return replace(
        of_cell(record), axes=AXES, points=tuple(points), floors=(Floor("fd_digits", score(0.8)),),
        profiles=(profile(scale),),
    )


def write(out: Path, record: Record, scale: float = 1.0) -> Path:
    folder = synthetic.write_cell(out, record, files=False)
    curves(record, scale).save(folder / CURVES_FILE)
    return folder / CURVES_FILE


def table_of(out: Path) -> Table:
    return build_tables(collect(out))[0]


def read(run: Run) -> Curves | None:
    return load_curves(run.curves_path, run.record)


def nfe_sentences(points: list[CurvePoint], out: Path) -> list[str]:
    record = synthetic.record("diffusion")
    folder = synthetic.write_cell(out, record, files=False)
    replace(of_cell(record), axes=AXES, points=tuple(points)).save(folder / CURVES_FILE)
    (found,) = sweeps_of(members_of(table_of(out), read), "fd_digits")
    return sweep_sentences(found)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report over two seeds of one model and one of another with curves, one without, and damaged ones."""
    folder = tmp_path_factory.mktemp("curves")
    for seed in (0, 1):
        write(folder, synthetic.record("diffusion", seed), 1.0 + seed)
    write(folder, synthetic.record("vqvae"))
    synthetic.write_cell(folder, synthetic.record("gan"), files=False)
    write(folder, synthetic.record("gan", 1)).write_text("{")
    foreign = next(folder.glob(f"diffusion/*/*/*/{CURVES_FILE}")).read_bytes()
    write(folder, synthetic.record("vqvae", 1)).write_bytes(foreign)
    write(folder, synthetic.record("diffusion", 0, budget=5e11))
    write_report(folder)
    return folder


def test_figures_and_tables_are_there(out: Path) -> None:
    report = out / "report"
    for name in ("quality_vs_nfe", "quality_vs_guidance", "bits_elbo", "quality_vs_nfe_2"):
        assert (report / "figures" / f"digits_{name}.svg").read_bytes().startswith(b"<?xml")
        with Image.open(report / "figures" / f"digits_{name}.png") as picture:
            assert min(picture.size) > 200 and np.asarray(picture.convert("L")).std() > 5
    points, bits = pd.read_csv(report / "curves.csv"), pd.read_csv(report / "bits.csv")
    assert len(points) == 4 * 10 and len(bits) == 4 * 4
    row = points[(points["series"] == "dpmpp_2m") & (points["nfe"] == 10)].iloc[0]
    assert (row["metric"], row["value"], row["n"]) == ("fd_digits", 4.3, N)


def test_the_page_says_what_the_points_say(out: Path) -> None:
    page = (out / "report" / "index.html").read_text()
    for title in ("Quality against network evaluations", "Quality against guidance", "Where the bits are"):
        assert f"<h3>{title}</h3>" in page and page.count(title) >= 2  # of both budgets
    assert "vqvae: heun at 249 NFE comes closest, fd_digits 4.00; dpmpp_2m at 10 NFE is within 8 % of it" in page
    assert "The floor (dashed), as many real training images, is 0.800." in page
    assert "n = 359 generated images at every point" in page
    assert 'alt="fd_digits against network evaluations per image (NFE). diffusion: ' in page
    assert ", curves.csv, bits.csv, figures/" in page.replace("results.parquet", "")


def test_damaged_and_foreign_files_are_named_and_left_out(out: Path) -> None:
    page = (out / "report" / "index.html").read_text()
    assert "seed=1/curves.json is not a valid file of curves: " in page
    assert "seed=1/curves.json belongs to another cell or checkpoint: its model is not that of the record" in page
    assert "gan: heun" not in page and str(out) not in page


def test_seeds_are_averaged(out: Path) -> None:
    found = next(iter(sweeps_of(members_of(table_of(out), readable), "fd_digits")))
    rows = means(found.points).set_index(["label", "series", "x"])
    assert rows.loc[("diffusion", "heun", 249.0), "value"] == pytest.approx(6.0)
    assert rows.loc[("diffusion", "heun", 249.0), "runs"] == 2


def readable(run: Run) -> Curves | None:
    return read(run) if run.record.model == "diffusion" else None


def test_numbers_of_other_conditions_are_left_out(tmp_path: Path) -> None:
    points = [point("nfe", "heun", x, int(x), 5.0 - x) for x in (1.0, 3.0)]
    sentences = nfe_sentences([*points, point("nfe", "heun", 5.0, 5, 0.1, n=100)], tmp_path)
    assert sentences == [
        "diffusion: heun at 3 NFE comes closest, fd_digits 2.00; nothing cheaper comes within 10 % of it.",
        "One point measured under other conditions (n, versions, weights) left out.",
    ]


def test_sentences_of_guidance_and_of_an_open_end(tmp_path: Path) -> None:
    points = [point("guidance", "heun", x, 19, v) for x, v in ((0.0, 9.0), (1.0, 4.0), (2.0, 5.0))]
    assert nfe_sentences(points, tmp_path / "a") == [
        "diffusion: fd_digits is lowest, 4.00, at guidance 1; 9.00 at 0, 5.00 at 2."
    ]
    (open_end,) = nfe_sentences(points[:2], tmp_path / "b")
    assert open_end.endswith("at guidance 1; 9.00 at 0, so that more than was tried may be better still.")


def test_the_sentence_of_a_profile() -> None:
    run = Run(synthetic.record("diffusion"), Path("record.json"), False)
    member = Member("diffusion", run, curves(run.record))
    (sentence,) = profile_sentences([(member, profile())])
    assert sentence == (
        "diffusion: 3.13 bits/dim (elbo), 3.00 of them spread over noise level sigma, four fifths of these between "
        "0.10 and 10; prior 0.0010; reconstruction 0.13."
    )


def test_without_curves_there_is_no_section_and_stale_tables_go(tmp_path: Path) -> None:
    path = write(tmp_path, synthetic.record("diffusion"))
    page = write_report(tmp_path)
    assert "Quality against network evaluations" in page.read_text()
    path.unlink()
    text = write_report(tmp_path).read_text()
    assert "Quality against network evaluations" not in text and "Where the bits are" not in text
    assert not (page.parent / "curves.csv").exists() and not list(page.parent.glob("figures/*nfe*"))


def test_parts_are_stacked_and_add_up(tmp_path: Path) -> None:
    ode = {"prior density": 2.0, "divergence": -2.9, "dequantisation": 7.0}
    bounds = (
        Likelihood(3.2, None, None, "elbo", {"prior": 0.0, "diffusion": 3.0, "reconstruction": 0.2}, 359),
        Likelihood(6.1, None, None, "ode", ode, 32, self_check_passed=False),
    )
    record = synthetic.record("diffusion")
    synthetic.write_cell(tmp_path, replace(record, likelihood=bounds[0], likelihoods=bounds), files=False)
    table = table_of(tmp_path)
    bars = likelihood_bars(table)
    assert [label for label, _, _ in bars] == [
        "diffusion: elbo, n = 359", "diffusion: ode, n = 32, self-check failed",
    ]
    assert all(sum(parts.values()) == pytest.approx(total) for _, parts, total in bars)
    figure = parts_figure(table)
    assert figure is not None
    boxes = [patch.get_window_extent() for patch in figure.axes[0].patches]
    assert len(boxes) == 6
    ends = [patch.get_x() + patch.get_width() for patch in figure.axes[0].patches[3:]]
    assert ends == pytest.approx([2.0, -2.9, 9.0])  # what is taken off goes to the left of 0


def test_nothing_with_parts_is_no_figure(tmp_path: Path) -> None:
    synthetic.write_cell(tmp_path, synthetic.record("gan"), files=False)
    assert parts_figure(table_of(tmp_path)) is None
