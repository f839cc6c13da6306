"""The written report: files, numbers, self-containedness, robustness, speed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evaluation.record import load_record
from reports.page import ReportError, latex, markdown, write_report
from tests.reports import synthetic

VOID = {"meta", "br", "img", "link", "input", "hr", "wbr"}


class Reader(HTMLParser):
    """Checks that tags nest, and keeps text, links and table rows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-1:] != ["style"] and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def page(runs: Path) -> Reader:
    return Reader((runs / "report" / "index.html").read_text())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything a record may hold, images made elsewhere and a self-test; reported."""
    out = synthetic.full(tmp_path_factory.mktemp("full"), seeds=(0, 1))
    for path in out.glob("*/*/*/*/metrics.csv"):
        path.unlink()  # no training curves: they are drawn in the other report
    write_report(out)
    return out


def test_all_files_are_there(runs: Path) -> None:
    report = runs / "report"
    for name in ("index.html", "table.md", "table.tex", "results.csv", "results.parquet"):
        assert (report / name).stat().st_size > 500
    kinds = (
        "samples",
        "quality_vs_time",
        "quality_vs_compute",
        "training_curves",
        "recall_in_training",
        "trajectory_diffusion_dif000",
    )
    for kind in kinds:
        assert (report / "figures" / f"digits_{kind}.svg").read_bytes().startswith(b"<?xml")
        with Image.open(report / "figures" / f"digits_{kind}.png") as picture:
            assert min(picture.size) > 200
            assert np.asarray(picture.convert("L")).std() > 5  # not blank
    assert not list(report.rglob("*.tmp"))


def test_results_equal_the_records(runs: Path) -> None:
    csv = pd.read_csv(runs / "report" / "results.csv")
    parquet = pd.read_parquet(runs / "report" / "results.parquet")
    assert list(csv.columns) == list(parquet.columns)
    paths = [*runs.glob("*/*/*/seed=*/record.json"), *runs.glob("controls/*/*/*.json")]
    assert len(csv) == len(parquet) == len(paths) - 1  # one record is damaged
    for path in paths:
        if path.parts[-3] == "abc":
            continue
        record = load_record(path)
        same = (csv["model"] == record.model) & (csv["seed"] == record.seed)
        row = csv[same & (csv["config_hash"] == record.config_hash)]
        assert row["fd_digits"].item() == pytest.approx(record.metrics["fd_digits"].value)
        assert row["budget"].item() == record.config.get("budget", 0)


def test_the_page_is_self_contained(page: Reader) -> None:
    assert page.links
    for link in page.links:
        assert link.startswith(("data:image/", "#"))
        if link.startswith("#"):
            assert link[1:] in page.ids


def test_the_page_shows_the_numbers_of_the_records(page: Reader) -> None:
    rows = [row for row in page.rows if row and row[0].startswith("diffusion")]
    assert rows[0][0].endswith("training noise over 3 seeds")
    assert rows[0][1].startswith("4.00") and "±" in rows[0][1]
    assert any(row[0].startswith("real train images (floor)") for row in page.rows)


def test_the_page_tells_of_failures_damage_and_reasons(page: Reader) -> None:
    assert "failed: The loss became NaN after 320 images." in page.text
    assert "Could not be read" in page.text
    assert "vqvae/digits/abc/seed=9/record.json is not a valid Record" in page.text
    assert synthetic.GAN_REASON in page.text
    assert "It is not FID" in page.text


def test_no_column_mixes_n(page: Reader) -> None:
    assert "digits, 3 TFLOP of training, n = 359" in page.text
    assert "digits, 3 TFLOP of training, n = 200" in page.text
    assert "digits, 500 GFLOP of training, n = 359" in page.text


def test_no_path_of_this_machine_is_in_the_report(runs: Path) -> None:
    for name in ("index.html", "table.md", "table.tex", "results.csv"):
        assert str(runs) not in (runs / "report" / name).read_text()


def test_markdown_rows_have_equally_many_cells(runs: Path) -> None:
    tables = re.split(r"\n(?!\|)", (runs / "report" / "table.md").read_text())
    for table in (part for part in tables if part.startswith("|")):
        rows = [line for line in table.splitlines() if "failed:" not in line]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
        assert len(rows) >= 3


def test_bold_in_every_format(runs: Path) -> None:
    assert "**4.00**" in (runs / "report" / "table.md").read_text()
    assert r"\textbf{4.00}" in (runs / "report" / "table.tex").read_text()
    assert "<b>4.00</b>" in (runs / "report" / "index.html").read_text()


def test_latex_is_balanced_and_escaped(runs: Path) -> None:
    text = (runs / "report" / "table.tex").read_text()
    assert text.isascii()
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.replace(r"\{", "").replace(r"\}", "").count("{") == text.replace(r"\{", "").replace(
        r"\}", ""
    ).count("}")
    assert r"fd\_digits $\downarrow$" in text
    for body in re.findall(r"\\toprule(.*?)\\bottomrule", text.split(r"\begin{document}")[1], re.S):
        rows = [row for row in body.split(r"\\") if "&" in row and "multicolumn" not in row]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


@pytest.mark.parametrize("folder", ["runs", "full"])
def test_latex_compiles(folder: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tex = request.getfixturevalue(folder) / "report" / "table.tex"
    if shutil.which("pdflatex") is None:
        assert r"\documentclass" in tex.read_text()  # only the syntax tests above can judge it here
        return
    command = [
        "pdflatex",
        "-interaction=nonstopmode",
        "-halt-on-error",
        "-output-directory",
        str(tmp_path),
        str(tex),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").exists()


def test_details_are_in_every_format(full: Path) -> None:
    page = Reader((full / "report" / "index.html").read_text())
    markdown_text = (full / "report" / "table.md").read_text().replace("\\", "")
    tex = (full / "report" / "table.tex").read_text()
    for title in (
        "Likelihood: every kind with its self-check", "Against the truth", "Mode coverage",
        "Do the metrics rank as the truth does?", "Sampling speed", "All metrics", "How each number was made",
    ):  # fmt: skip
        for text in (page.text, markdown_text, tex):
            assert title in text
    stamp = f"Self-test: 3 of 3 checks passed on 2026-01-02, commit {'0' * 12}."
    for text in (page.text, markdown_text, tex):
        assert stamp in text
        assert "stranger (images made elsewhere)" in text
    assert "Self-test: every check" in page.text and "diagonal Gaussians" in page.text
    for figure in ("bound_gaps", "metrics_vs_truth", "speed_sweep"):
        assert f"digits_{figure}" in page.ids


def test_flat_results_hold_everything(full: Path) -> None:
    frame = pd.read_parquet(full / "report" / "results.parquet")
    row = frame[(frame["model"] == "diffusion") & (frame["seed"] == 1)].iloc[0]
    assert (row["bits_per_dim_kind"], row["bits_per_dim_ode_kind"]) == ("elbo", "ode")
    assert row["bits_per_dim_ode_standard_error"] == 0.01 and row["bits_per_dim_part_prior"] == 0.1
    assert row["truth_entropy"] == 2.0 and row["truth_gap_ode"] == 0.2
    assert row["truth_mode_kl_floor"] == 0.7 and 0 < row["truth_modes_hit"] < 0.34
    assert row["images_per_second_batch_256"] > row["images_per_second_batch_1"]
    assert '"resize": "none"' in row["fd_digits_fingerprint"]
    assert frame.loc[frame["model"] == "stranger", "source"].item() == "external"


def test_a_missing_and_a_damaged_selftest_are_said(runs: Path, tmp_path: Path) -> None:
    for name in ("index.html", "table.md", "table.tex"):
        assert "not run in this folder" in (runs / "report" / name).read_text()
    synthetic.write_failure(tmp_path)
    (tmp_path / "selftest.json").write_text("{")
    text = Reader(write_report(tmp_path).read_text()).text
    assert "selftest.json is not a valid self-test result" in text and str(tmp_path) not in text


def test_a_notice_of_unranked_numbers_is_in_every_format(tmp_path: Path) -> None:
    for made in (synthetic.record("gan", 0), synthetic.record("diffusion", 0)):
        odd = synthetic.made_with(made, "fd_digits", resize="16x16 bilinear") if made.model == "gan" else made
        synthetic.write_cell(tmp_path, odd, files=False)
    report = write_report(tmp_path).parent
    notice = "not ranked: resize differs (none for diffusion; 16x16 bilinear for gan)."
    for name in ("index.html", "table.md", "table.tex"):
        assert notice in (report / name).read_text()
    assert not list(report.glob("figures/*quality*"))  # an axis would show an order too


def test_escapes() -> None:
    assert latex("a_b & 50 % ± café 漢") == r"a\_b \& 50 \% $\pm$ cafe ?"
    assert markdown("a|b *c*\nd") == r"a\|b \*c\* d"


def test_markup_in_a_message_is_text(tmp_path: Path) -> None:
    out = synthetic.standard(tmp_path, seeds=(0,))
    path = next(out.glob("gan/*/*/seed=7/failure.json"))
    path.write_text(path.read_text().replace("The loss", "<script>alert(1)</script> & |"))
    page = write_report(out).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_writing_again_gives_the_same_bytes_and_drops_stale_figures(tmp_path: Path) -> None:
    out = synthetic.standard(tmp_path, seeds=(0,))
    first = write_report(out).read_bytes()
    stale = out / "report" / "figures" / "mnist_samples.png"
    stale.write_bytes(b"old")
    assert write_report(out).read_bytes() == first
    assert not stale.exists()


def test_without_records_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no records below") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()


def test_only_a_failure_still_makes_a_report(tmp_path: Path) -> None:
    synthetic.write_failure(tmp_path)
    page = Reader(write_report(tmp_path).read_text())
    assert "The loss became NaN after 320 images." in page.text


def test_only_controls_make_a_report(tmp_path: Path) -> None:
    synthetic.write_control(tmp_path, synthetic.control("gaussian"))
    assert "No trained model has been measured" in write_report(tmp_path).read_text()


def test_damaged_samples_logs_and_pictures_are_named(tmp_path: Path) -> None:
    out = synthetic.standard(tmp_path, seeds=(0,))
    for name, damage in (
        ("samples.npz", b"PK"),
        ("metrics.csv", b'a\n"1'),
        ("trajectory.png", b"\x89PNG"),
    ):
        for path in out.glob(f"diffusion/*/*/*/{name}"):
            path.write_bytes(damage)
    text = Reader(write_report(out).read_text()).text
    for name in ("samples.npz", "metrics.csv", "trajectory.png"):
        assert re.search(rf"diffusion/digits/\w+/seed=0/{name} cannot be read", text)
    assert (out / "report" / "figures" / "digits_samples.png").exists()  # of the others


def test_colour_images_without_labels(tmp_path: Path) -> None:
    folder = synthetic.write_cell(tmp_path, synthetic.record("gan", 0))
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    np.savez(folder / "samples.npz", images=images)
    assert (write_report(tmp_path).parent / "figures" / "digits_samples.svg").exists()


def test_of_many_configurations_the_best_of_each_model_is_drawn(tmp_path: Path) -> None:
    for i in range(20):
        made = synthetic.record("diffusion", 0, fd=5.0 + (i - 7) ** 2, config_hash=f"{i:0>12}")
        synthetic.write_cell(tmp_path, made, files=i == 7)
    text = Reader(write_report(tmp_path).read_text()).text
    assert "diffusion · 000000" in text
    assert not re.search(r"samples.npz cannot be read", text)  # only that of the best is opened


def test_a_thousand_records_take_seconds(tmp_path: Path) -> None:
    for seed in range(334):
        for model in synthetic.MODELS:
            made = synthetic.complete(synthetic.record(model, seed))
            path = tmp_path / model / "digits" / made.config_hash / f"seed={seed}" / "record.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(asdict(made)))
    started = time.process_time()
    write_report(tmp_path)
    assert time.process_time() - started < 30  # about 6 s on an idle machine
