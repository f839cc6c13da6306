"""A cell from start to record: what it leaves, what it does not do twice, and how it fails."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import models
from datamodules import digits
from evaluation.config import EvaluationConfig
from evaluation.controls import CONTROLS
from evaluation.record import RECORD_FILE, Record, load_failure, load_record
from evaluation.seal import read_seal
from experiments.archive.layout import CELL_FILES
from experiments.cell_files import DONE_FILE, finished_record
from experiments.checkpoints import checksum_path
from experiments.config import Cell
from experiments.discovery import model_names
from experiments.engine import CellError, run_cell
from models.gan.projection import Search
from tests.models.tiny import tiny_config

EXAM = EvaluationConfig(
    num_samples=60, num_likelihood_images=8, num_slow_likelihood_images=2, batch_size=50, speed_repeats=1
)
MODELS = model_names()

# The schema as it was decided, not as it is in the code.
KEYS = {
    "": "model dataset seed config config_hash budget parameters metrics likelihood speed provenance "
    "likelihoods truth reconstruction source schema_version",
    "budget": "train_flops images_seen steps stages reason_missing",
    "parameters": "total sampling",
    "likelihood": "bits_per_dim ci_low ci_high kind parts n_images reason_missing standard_error self_check "
    "self_check_passed settings nfe tried",
    "speed": "images_per_second latency_ms_p50 latency_ms_p95 nfe batch_size peak_memory_mib flops_per_image "
    "utilisation reason_missing ci_low ci_high latency_ms_p90 warm_up_seconds matmul_peak_flops sweep stage_seconds "
    "stage_latency_ms",
    "provenance": "git_commit dirty_diff_hash versions cpu gpu threads precision dataset_sha256 extractor_sha256 "
    "checkpoint_sha256 ema sampler wall_seconds cpu_seconds peak_memory_mib date processes strategy hostname",
}
METRIC_KEYS = "value ci_low ci_high n_real n_fake features higher_is_better reason_missing ci_method fingerprint"
FINGERPRINT_KEYS = (
    "features weights_sha256 dtype resize quantiser n_real n_fake reference_split reference_sha256 versions seed"
)
STAGE_KEYS = "name flops images_seen seconds"


def tiny_cell(name: str, **changes: object) -> Cell:
    config = tiny_config(name, digits.INFO)
    return replace(Cell(name, "digits", 2e8, 0, config, digits.Config(), EXAM), **changes)


def folder_of(cell: Cell, out: Path) -> Path:
    return cell.folder(out, digits.load(cell.data_config).sha256)


@pytest.fixture(scope="module", autouse=True)
def short_annealing() -> Iterator[None]:
    """Cells run in fixtures of the module, so the annealing is short for all of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.gan.likelihood.TEMPERATURES", 20)
        patch.setattr("models.gan.likelihood.TUNING_TEMPERATURES", 10)
        patch.setattr("models.gan.family.SEARCH", Search(steps=10, restarts=2))
        yield


def run(cell: Cell, out: Path) -> tuple[Record, str]:
    console = Console(file=io.StringIO(), width=500)
    return run_cell(cell, out, console=console), console.file.getvalue()


def times(folder: Path, pattern: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Cell, Path, Record]]:
    """Runs a tiny cell of a model once, and remembers it."""
    out, made = tmp_path_factory.mktemp("runs"), {}

    def get(name: str) -> tuple[Cell, Path, Record]:
        if name not in made:
            made[name] = run(tiny_cell(name), out)[0]
        return tiny_cell(name), out, made[name]

    return get


Finished = Callable[[str], tuple[Cell, Path, Record]]


@pytest.mark.parametrize("name", MODELS)
def test_the_record_has_the_agreed_keys(name: str, finished: Finished) -> None:
    cell, out, record = finished(name)
    content = json.loads((folder_of(cell, out) / RECORD_FILE).read_text())
    for part, keys in KEYS.items():
        assert set(content[part] if part else content) == set(keys.split())
    assert all(set(m) == set(METRIC_KEYS.split()) for m in content["metrics"].values())
    prints = [m["fingerprint"] for m in content["metrics"].values() if m["value"] is not None]
    assert prints and all(set(p) == set(FINGERPRINT_KEYS.split()) for p in prints)
    assert all(set(s) == set(STAGE_KEYS.split()) for s in content["budget"]["stages"])
    assert load_record(folder_of(cell, out) / RECORD_FILE) == record


def test_a_cell_with_codes_has_the_exam_of_its_first_stage_and_its_pictures(finished: Finished) -> None:
    cell, out, record = finished("vqvae")
    first = record.reconstruction
    assert first is not None and first.n_images == EXAM.num_samples == record.metrics["fd_digits"].n_fake
    assert first.metrics["rfd_digits"].fingerprint == record.metrics["fd_digits"].fingerprint
    assert first.metrics["psnr"].value > 0 and first.metrics["psnr"].ci_low < first.metrics["psnr"].value
    assert sum(first.code_counts) == first.n_images * sum(g.rows * g.columns for g in first.grids)
    assert len(first.code_counts) + first.metrics["dead_codes"].value == first.codebook_size
    assert {"prior", "autoencoder.decoder", "other"} == set(record.speed.stage_latency_ms)
    assert {"reconstructions.png", "codes.png"} <= set(read_seal(folder_of(cell, out)).files)
    assert finished("gan")[2].reconstruction is None
    assert not (folder_of(finished("gan")[0], out) / "codes.png").exists()


def test_a_cell_with_a_latent_space_has_its_pictures_and_what_calibration_tried(finished: Finished) -> None:
    cell, out, record = finished("gan")
    names = {"interpolation.png", "mixing.png", "inversion.png"}
    assert names <= set(read_seal(folder_of(cell, out)).files) and names <= set(CELL_FILES)
    assert not any((folder_of(finished("vqvae")[0], out) / name).exists() for name in names)
    tried = record.likelihood.tried["sigma"]
    assert len(tried) > 3 and record.likelihood.settings["sigma"] == min(tried, key=tried.__getitem__)
    assert finished("vqvae")[2].likelihood.tried == {}


@pytest.mark.parametrize("name", MODELS)
def test_the_record_says_what_was_done(name: str, finished: Finished) -> None:
    cell, out, record = finished(name)
    folder = folder_of(cell, out)
    model = models.load(folder / "checkpoints" / "model.ckpt")
    assert (record.model, record.dataset, record.seed) == (name, "digits", 0)
    assert record.config == json.loads(json.dumps(cell.resolved()))
    assert 0.7 * cell.budget < record.budget.train_flops <= cell.budget
    assert [s.name for s in record.budget.stages] == [s.name for s in model.stages()]
    assert record.budget.images_seen == sum(s.images_seen for s in record.budget.stages)
    (batch,) = {stage.batch_size for stage in model.stages()}  # images of a step, of all the updates in it
    assert record.budget.images_seen == record.budget.steps * batch
    assert record.parameters.total == sum(p.numel() for p in model.parameters()) >= record.parameters.sampling > 0
    assert record.likelihood == record.likelihoods[0]
    assert [found.kind for found in record.likelihoods] == list(model.likelihood_kinds)
    assert all(found.bits_per_dim and found.standard_error and found.self_check for found in record.likelihoods)
    assert record.source == "trained" and record.truth is None
    assert record.metrics["fd_digits"].value is not None
    assert all((value.value is None) == bool(value.reason_missing) for value in record.metrics.values())
    assert record.provenance.checkpoint_sha256 == hashlib.sha256(
        (folder / "checkpoints" / "model.ckpt").read_bytes()
    ).hexdigest()
    assert record.provenance.dataset_sha256 == digits.load(cell.data_config).sha256
    assert record.provenance.ema == model.averages_weights and record.provenance.sampler == model.sampler
    assert record.provenance.wall_seconds > sum(s.seconds for s in record.budget.stages)


@pytest.mark.parametrize("name", MODELS)
def test_the_folder_of_a_finished_cell(name: str, finished: Finished) -> None:
    cell, out, record = finished(name)
    folder = folder_of(cell, out)
    config = json.loads((folder / "config.json").read_text())
    assert config == record.config | {"seed": 0, "dataset_sha256": record.provenance.dataset_sha256}
    with np.load(folder / "samples.npz") as samples:
        assert set(samples) == {"images", "labels"}
        assert samples["images"].dtype == np.uint8 and samples["images"].shape == (60, 1, 8, 8)
        assert (samples["labels"] == digits.load(cell.data_config).test.labels[:60]).all()
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    has_path = models.model_class(name).has_trajectory
    assert [(folder / f"trajectory.{ending}").exists() for ending in ("png", "gif")] == [has_path] * 2
    log = pd.read_csv(folder / "metrics.csv")
    assert {"stage", "images_seen", "flops"} <= set(log.columns)
    assert log["stage"].unique().tolist() == [s.name for s in record.budget.stages]
    done = folder / DONE_FILE
    written = {p: t for p, t in times(folder, "**/*").items() if p.is_file() and p.name != ".lock"}
    assert written[done] == max(written.values())
    assert not (folder / "lock.json").exists() and not list(folder.glob("**/*.tmp"))


@pytest.mark.parametrize("name", MODELS)
def test_a_finished_cell_is_not_touched(name: str, finished: Finished) -> None:
    cell, out, record = finished(name)
    before = times(folder_of(cell, out), "**/*.*")
    again, said = run(cell, out)
    assert again == record and "finished before" in said
    assert {p: t for p, t in times(folder_of(cell, out), "**/*.*").items() if p.suffix != ".lock"} == {
        p: t for p, t in before.items() if p.suffix != ".lock"
    }


def test_a_damaged_record_is_made_again_without_training(finished: Finished) -> None:
    cell, out, record = finished("gan")
    folder = folder_of(cell, out)
    path = folder / RECORD_FILE
    whole, before = path.read_bytes(), times(folder, "checkpoints/**/*")
    path.write_bytes(whole[:-20])
    assert finished_record(folder) is None
    again, _ = run(cell, out)
    assert (again.metrics, again.likelihood, again.budget) == (record.metrics, record.likelihood, record.budget)
    assert times(folder, "checkpoints/**/*") == before
    path.write_bytes(whole)


def test_a_damaged_generator_is_made_again_and_is_the_same(tmp_path: Path) -> None:
    cell = tiny_cell("vqvae")
    record, _ = run(cell, tmp_path)
    folder = folder_of(cell, tmp_path)
    generator = folder / "checkpoints" / "model.ckpt"
    generator.write_bytes(generator.read_bytes()[:-100])
    (folder / DONE_FILE).unlink()
    again, said = run(cell, tmp_path)
    assert said.count("is damaged") == 1 and str(generator) in said
    assert (again.metrics, again.likelihood) == (record.metrics, record.likelihood)
    assert again.budget.train_flops == record.budget.train_flops
    assert checksum_path(generator).read_text().strip() == record.provenance.checkpoint_sha256


def test_the_same_cell_elsewhere_gives_the_same(finished: Finished, tmp_path: Path) -> None:
    cell, out, record = finished("gan")
    failure = folder_of(cell, tmp_path) / "failure.json"
    failure.parent.mkdir(parents=True)
    failure.write_text("{}")
    again, _ = run(cell, tmp_path)
    assert again.metrics == record.metrics and not failure.exists()
    samples = [(folder_of(cell, o) / "samples.npz").read_bytes() for o in (out, tmp_path)]
    arrays = [np.load(io.BytesIO(content))["images"] for content in samples]
    assert (arrays[0] == arrays[1]).all()


def test_controls_are_scored_once(finished: Finished) -> None:
    _, out, _ = finished("gan")
    before = times(out, "controls/digits/*/*")
    assert {p.stem for p in before if p.suffix == ".json"} == set(CONTROLS)
    finished("vqvae")
    run(tiny_cell("gan"), out)
    assert times(out, "controls/digits/*/*") == before
    rows = {p.stem: load_record(p) for p in before if p.suffix == ".json"}
    assert all(r.model == name and r.budget.train_flops == 0 for name, r in rows.items())
    assert all(r.source == "control" for r in rows.values())
    assert all((m.value is None) == bool(m.reason_missing) for r in rows.values() for m in r.metrics.values())
    assert rows["real_train"].metrics["fd_digits"].value < rows["gaussian"].metrics["fd_digits"].value / 3
    assert all(r.likelihood.reason_missing and r.speed.reason_missing for r in rows.values())


def test_training_that_diverges_is_one_sentence_and_a_failure_file(tmp_path: Path) -> None:
    config = replace(tiny_config("gan", digits.INFO), lr=1.0, blocks=4, r1_gamma=1e6)
    cell = tiny_cell("gan", model_config=config, budget=2e9)
    with pytest.raises(CellError, match=r"^gan on digits, seed 0: training diverged: \w+ became") as caught:
        run(cell, tmp_path)
    folder = folder_of(cell, tmp_path)
    failure = load_failure(folder / "failure.json")
    assert failure.message == str(caught.value) and "\n" not in failure.message
    assert failure.config_hash == folder.parent.name
    assert not (folder / RECORD_FILE).exists() and not (folder / DONE_FILE).exists()
    assert not (folder / "lock.json").exists()
