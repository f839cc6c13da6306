"""Small folders of runs as the program leaves them: finished cells under their true hashes, sealed, with controls."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.record import Record, write_json
from evaluation.seal import seal
from experiments.cli import main
from experiments.identity import identity
from tests.reports import synthetic

CONTROLS = ("real_train", "gaussian", "copycat")


def identified(record: Record) -> Record:
    """The record under the hash that its configuration and data give."""
    return replace(record, config_hash=identity(record))


def cell_record(model: str, seed: int = 0, *, fd: float | None = None, width: int = 8) -> Record:
    """A record of a trained model with a whole configuration."""
    made = synthetic.record(model, seed, fd=fd)
    config = made.config | {"dataset": made.dataset, "model_config": {"width": width}, "data_config": {}}
    return identified(replace(made, config=config))


def write_cell(out: Path, record: Record) -> Path:
    """A finished cell with samples, picture, log and something in the place of a checkpoint."""
    folder = out / record.model / record.dataset / record.config_hash / f"seed={record.seed}"
    record.save(folder / "record.json")
    images, labels = synthetic.digits()
    np.savez_compressed(folder / "samples.npz", images=images[:20], labels=labels[:20])
    pixels = np.random.default_rng(record.seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "samples.png")
    if record.source == "trained":
        write_json(folder / "config.json", record.config | {
            "seed": record.seed, "dataset_sha256": record.provenance.dataset_sha256,
        })
        rows = "".join(f"main,{32 * i},{1 / (i + 1):.4f}\n" for i in range(1, 20))
        (folder / "metrics.csv").write_text("stage,images_seen,loss\n" + rows)
        (folder / "checkpoints").mkdir()
        weights = b"weights" * 10 + bytes([record.seed])
        (folder / "checkpoints" / "model.ckpt").write_bytes(weights)
        (folder / "checkpoints" / "model.ckpt.sha256").write_text(hashlib.sha256(weights).hexdigest() + "\n")
    seal(folder)
    return folder


def write_runs(out: Path, models: tuple[str, ...] = ("gan", "vqvae"), seeds: tuple[int, ...] = (0, 1)) -> Path:
    """Cells of some models and seeds, images made elsewhere, and the controls."""
    for model in models:
        for seed in seeds:
            write_cell(out, cell_record(model, seed))
    write_cell(out, identified(synthetic.external()))
    for name in CONTROLS:
        synthetic.write_control(out, identified(synthetic.control(name)))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks, by its relative name."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def small_archive(folder: Path) -> Path:
    """The archive of a single cell without controls."""
    write_cell(folder / "one", cell_record("gan"))
    assert main(["export", str(folder / "one"), "--out", str(folder / "small.zip")]) == 0
    return folder / "small.zip"


def members(path: Path) -> dict[str, bytes]:
    """What a ZIP file holds, by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
