"""The command ``curves`` on real tiny cells: what it writes, what it does not do twice, and how it refuses."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from evaluation.curves import CURVES_FILE, load_curves
from evaluation.record import RECORD_FILE, Record, load_record
from experiments import curves
from experiments.cell_files import CellState, faults, finished_record, state
from experiments.cli import main
from experiments.engine import run_cell
from experiments.locks import cell_lock
from models.gan.projection import Search
from tests.experiments.test_engine import folder_of, tiny_cell

FEW = ("--samplers", "heun", "dpmpp_2m", "--nfe", "1", "2", "--guidance", "1", "--num-samples", "60")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished cells of three models with curves."""
    out = tmp_path_factory.mktemp("runs")
    found = {}
    with pytest.MonkeyPatch.context() as patch:  # curves ask for no likelihood of the adversarial model
        patch.setattr("models.gan.likelihood.TEMPERATURES", 20)
        patch.setattr("models.gan.likelihood.TUNING_TEMPERATURES", 10)
        patch.setattr("models.gan.family.SEARCH", Search(steps=10, restarts=2))
        for name in ("diffusion", "vqvae", "gan"):
            cell = tiny_cell(name)
            run_cell(cell, out, console=Console(file=io.StringIO()))
            found[name] = folder_of(cell, out)
    return found


@pytest.fixture
def cell(cells: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the cell with curves, in its place."""
    out = cells["diffusion"].parents[3]
    shutil.copytree(out, tmp_path / "runs")
    return tmp_path / "runs" / cells["diffusion"].relative_to(out)


def record_of(cell: Path) -> Record:
    return load_record(cell / RECORD_FILE)


def test_curves_are_measured_once_and_leave_the_seal_whole(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curves", str(cell), *FEW]) == 0
    said = capsys.readouterr()
    found = load_curves(cell / CURVES_FILE, record_of(cell))
    places = [(p.sweep, p.series, p.nfe) for p in found.points]
    lines = [("nfe", "heun", 1), ("nfe", "dpmpp_2m", 1), ("nfe", "dpmpp_2m", 2)]
    assert places == [*lines, ("guidance", "dpmpp_2m, 3 steps", 3)]
    assert "4 points, n = 60 images each" in said.out and said.err == "" and str(cell / CURVES_FILE) in said.out
    assert [p.kind for p in found.profiles] == ["elbo"]
    assert faults(cell) == [] and finished_record(cell) is not None and state(cell) == CellState.DONE
    before = (cell / CURVES_FILE).read_bytes()
    assert main(["curves", str(cell), *FEW]) == 0
    assert capsys.readouterr().out.count("(measured before)") == 5
    assert (cell / CURVES_FILE).read_bytes() == before


def test_the_presets_own_point_is_the_record(cell: Path) -> None:
    assert main(["curves", str(cell), *FEW]) == 0
    record = record_of(cell)
    (point,) = [p for p in load_curves(cell / CURVES_FILE, record).points if p.sweep == "guidance"]
    assert point.value == record.metrics["fd_digits"]


def test_a_run_that_was_cut_goes_on(cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    whole = curves.Curves.save

    def cut(self: curves.Curves, path: Path) -> None:
        whole(self, path)
        saved.append(len(self.points))
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(curves.Curves, "save", cut)
        assert main(["curves", str(cell), *FEW]) == 130
    first = load_curves(cell / CURVES_FILE, record_of(cell)).points
    assert len(first) == 2
    assert main(["curves", str(cell), *FEW]) == 0
    assert load_curves(cell / CURVES_FILE, record_of(cell)).points[:2] == first


@pytest.mark.parametrize("content", ["{", '{"checksum": "a"}'])
def test_a_damaged_file_is_named_and_measured_again(
    cell: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (cell / CURVES_FILE).write_text(content)
    assert main(["curves", str(cell), *FEW]) == 0
    assert f"{cell / CURVES_FILE} is" in capsys.readouterr().err
    assert len(load_curves(cell / CURVES_FILE, record_of(cell)).points) == 4


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which a command line is refused."""
    assert main(["curves", *args]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    return said.err


def test_a_model_without_settings_is_one_sentence(
    cells: dict[str, Path], cell: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.gan.family.AdversarialFamily.sweep_options", ())
    sentence = "gan has no curves: its sampler has no settings to vary"
    assert sentence in refused([str(cells["gan"])], capsys)
    assert sentence in refused([str(cells["gan"]), "--guidance", "2"], capsys)
    assert main(["curves", str(cells["gan"]), str(cell), *FEW]) == 0  # the other is measured all the same
    assert sentence in capsys.readouterr().out


def test_the_truncation_of_an_adversarial_model(
    cells: dict[str, Path], cell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gan = cell.parents[3] / cells["gan"].relative_to(cells["gan"].parents[3])
    assert main(["curves", str(gan), "--psi", "0.5", "1", "0", "--num-samples", "60"]) == 0
    assert "3 points, n = 60 images each" in capsys.readouterr().out
    record = record_of(gan)
    found = load_curves(gan / CURVES_FILE, record)
    assert [(p.sweep, p.x, p.options) for p in found.points] == [("psi", x, {"psi": x}) for x in (0.0, 0.5, 1.0)]
    assert found.points[2].value == record.metrics["fd_digits"] != found.points[1].value
    assert found.points[2].beside == {name: record.metrics[name] for name in ("precision", "recall")}
    assert found.points[0].beside["recall"].value == 0, "ten different images cover nothing"
    assert "gan: there is no guidance to vary; allowed: psi" in refused([str(gan), "--guidance", "2"], capsys)


def test_the_temperature_of_a_model_of_codes(
    cells: dict[str, Path], cell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = cell.parents[3] / cells["vqvae"].relative_to(cells["vqvae"].parents[3])
    assert main(["curves", str(codes), "--temperature", "0.7", "1", "--num-samples", "60"]) == 0
    record = record_of(codes)
    found = load_curves(codes / CURVES_FILE, record)
    assert [(p.sweep, p.series, p.x) for p in found.points] == [("temperature", "code by code", x) for x in (0.7, 1.0)]
    assert found.points[1].value == record.metrics["fd_digits"] != found.points[0].value
    assert found.profiles == () and "2 points" in capsys.readouterr().out
    sentence = "there is no temperature to vary; allowed: samplers, nfe, guidance"
    assert f"diffusion: {sentence}" in refused([str(cell), "--temperature", "1"], capsys)
    assert "vqvae: there is no nfe to vary; allowed: temperature" in refused([str(codes), "--nfe", "1"], capsys)


def test_what_cannot_be_used_is_refused_before_anything_is_measured(
    cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is not a finished cell" in refused([str(cell), str(tmp_path)], capsys)
    assert "sampler must be one of heun, " in refused([str(cell), "--samplers", "hun"], capsys)
    assert "must be a whole number from 1 to 1000, not '0'" in refused([str(cell), "--nfe", "0"], capsys)
    assert "must be a number from 0 to 100, not 'nan'" in refused([str(cell), "--guidance", "nan"], capsys)
    assert "from 2 to 1000000, not '1'" in refused([str(cell), "--num-samples", "1"], capsys)
    checkpoint = cell / "checkpoints" / "model.ckpt"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-1])
    assert "is not the checkpoint that the record was made from" in refused([str(cell)], capsys)
    checkpoint.unlink()
    assert "model.ckpt cannot be read: it does not exist" in refused([str(cell)], capsys)
    checkpoint.write_bytes(whole)
    (cell / "done").unlink()
    assert "is not a finished cell" in refused([str(cell)], capsys)
    assert not (cell / CURVES_FILE).exists()


def test_what_fails_in_measuring_is_one_sentence(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curves", str(cell), "--num-samples", "10"]) == 1
    said = capsys.readouterr().err
    assert said == (
        "error: diffusion on digits, seed 0: there is no fd_digits to measure: 10 real images are too few; at least 50 "
        "are needed\n"
    )
    with cell_lock(cell):
        assert main(["curves", str(cell), *FEW]) == 1
    assert "is being worked on by process" in capsys.readouterr().err
