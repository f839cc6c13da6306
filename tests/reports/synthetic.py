"""Folders of runs made of real record classes, with numbers that are known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from evaluation.record import (
    Budget,
    Failure,
    Likelihood,
    MetricValue,
    Parameters,
    Provenance,
    Record,
    Speed,
    StageBudget,
)

MODELS = ("diffusion", "gan", "vqvae")
FD = {"diffusion": 4.0, "gan": 9.0, "vqvae": 15.0, "real_train": 0.8, "gaussian": 96.0, "copycat": 0.9}
RATE = {"diffusion": 50.0, "gan": 4000.0, "vqvae": 250.0}
GAN_REASON = "a GAN defines no density; annealed importance sampling was not run"
PLACE = Provenance(
    git_commit="0" * 40,
    dirty_diff_hash=None,
    versions={"torch": "2.14.1", "python": "3.11"},
    cpu="Some CPU",
    gpu=None,
    threads=2,
    precision="float32",
    dataset_sha256="d" * 64,
    extractor_sha256="e" * 64,
    checkpoint_sha256=None,
    ema=True,
    sampler=None,
    wall_seconds=31.5,
    cpu_seconds=60.0,
    peak_memory_mib=512.0,
    date="2026-01-02T03:04:05Z",
)


def metric(
    value: float | None,
    *,
    width: float | None = 0.1,
    n: int = 359,
    up: bool = False,
    reason: str | None = None,
) -> MetricValue:
    """A metric with an interval of value * (1 ± width), or without one."""
    low, high = (None, None) if width is None or value is None else (value * (1 - width), value * (1 + width))
    return MetricValue(value, low, high, n, n, "digits", up, reason)


def record(
    model: str,
    seed: int = 0,
    *,
    fd: float | None = None,
    n: int = 359,
    budget: float = 3e12,
    dataset: str = "digits",
    rate: float | None = None,
    config_hash: str | None = None,
) -> Record:
    """A record of a trained model; the seed moves its numbers a little."""
    wobble = 1 + 0.02 * (seed - 1)
    distance = (FD[model] if fd is None else fd) * wobble
    bits = {"diffusion": 3.1, "vqvae": 3.4}.get(model)
    kind = {"diffusion": "elbo", "vqvae": "two-part code"}.get(model)
    reason = None if bits else GAN_REASON
    speed = (rate or RATE[model]) * wobble
    return Record(
        model=model,
        dataset=dataset,
        seed=seed,
        config={"budget": budget, "model": model},
        config_hash=config_hash or f"{model[:3]:0<6}{budget:.0e}{n}".replace("+", "")[:12],
        budget=Budget(budget * 1.01, int(1e4), 100, (StageBudget("main", budget, int(1e4), 30.0),)),
        parameters=Parameters(1_712_345, 1_712_345),
        metrics={
            f"fd_{dataset}": metric(distance, n=n),
            f"fd_{dataset}_train": metric(distance * 0.9, n=n),
            f"kd_{dataset}": metric(distance * 3e-4, n=n),
            "precision": metric(0.9 * wobble, n=n, up=True),
            "recall": metric(0.7, n=n, up=True),
            "density": metric(1.02, width=None, n=n, up=True),
            "coverage": metric(0.93, n=n, up=True),
            "class_agreement": metric(0.981, width=0.01, n=n, up=True),
        },
        likelihood=Likelihood(bits, bits and bits - 0.01, bits and bits + 0.01, kind, {}, 359, reason),
        speed=Speed(
            speed, 1000 / speed, 1200 / speed, 35 if model == "diffusion" else 1, 250, 300.0, 1e9, 0.5
        ),
        provenance=PLACE,
    )


def control(name: str, *, n: int = 359, dataset: str = "digits", fd: float | None = None) -> Record:
    """A record of a row that was not trained."""
    base = record("gan", fd=FD[name] if fd is None else fd, n=n, dataset=dataset)
    return replace(
        base,
        model=name,
        config={"control": name},
        config_hash="c" * 12,
        budget=Budget(0, 0, 0),
        parameters=Parameters(0, 0),
        likelihood=Likelihood(None, None, None, None, {}, 0, "a control has no likelihood"),
        speed=Speed(
            None, None, None, None, None, None, None, None, "a control is not sampled from a network"
        ),
    )


@cache
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Scikit-learn's digits, uint8 (N, 1, 8, 8), with labels."""
    data = load_digits()
    return (data.images * 15.9).astype(np.uint8)[:, None], data.target.astype(np.int64)


def write_samples(path: Path, noise: float, seed: int = 0) -> None:
    """Digits with noise, as a model would leave them."""
    images, labels = digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))[:200]
    noisy = images[order] + rng.normal(0, noise, images[order].shape)
    np.savez(path, images=noisy.clip(0, 255).astype(np.uint8), labels=labels[order])


def write_cell(out: Path, made: Record, *, files: bool = True) -> Path:
    """A finished cell in its folder, with samples, log and (diffusion) trajectory if ``files``."""
    folder = out / made.model / made.dataset / made.config_hash / f"seed={made.seed}"
    made.save(folder / "record.json")
    if files:
        write_samples(folder / "samples.npz", {"diffusion": 10, "gan": 35}.get(made.model, 60), made.seed)
        _write_log(folder / "metrics.csv", made)
        if made.model == "diffusion":
            rng = np.random.default_rng(made.seed)
            Image.fromarray(rng.integers(0, 256, (16 * 9, 12 * 9), dtype=np.uint8)).save(
                folder / "trajectory.png"
            )
    return folder


def _write_log(path: Path, made: Record) -> None:
    rng = np.random.default_rng(made.seed)
    lines = ["epoch,stage,images_seen,flops,loss,g_loss,d_loss"]
    stages = ("autoencoder", "prior") if made.model == "vqvae" else (made.model,)
    for stage in stages:
        for step in range(300):
            seen, level = step * 32, np.exp(-step / 80) + 0.1 + 0.02 * rng.normal()
            losses = f",{level:.4f},{0.69 + 0.1 * level:.4f}" if made.model == "gan" else f"{level:.4f},,"
            lines.append(f"0,{stage},{seen},{step * 1e10:.3e},{losses}")
            lines.append("0,,,,,,")  # Lightning's logs are sparse
    path.write_text("\n".join(lines) + "\n")


def write_control(out: Path, made: Record) -> None:
    """A control with its samples."""
    folder = out / "controls" / made.dataset / made.config_hash
    made.save(folder / f"{made.model}.json")
    write_samples(folder / f"{made.model}.npz", 90 if made.model == "gaussian" else 0)


def write_failure(out: Path, model: str = "gan", seed: int = 7) -> None:
    """A cell that did not finish, beside finished ones of the same configuration."""
    made = record(model, seed)
    folder = out / model / made.dataset / made.config_hash / f"seed={seed}"
    message = "The loss became NaN after 320 images."
    Failure(model, made.dataset, seed, made.config_hash, message, "2026-01-02").save(folder / "failure.json")


def standard(out: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Three models, some seeds, three controls, a failure and a damaged record."""
    for model in MODELS:
        for seed in seeds:
            write_cell(out, record(model, seed))
    for name in ("real_train", "gaussian", "copycat"):
        write_control(out, control(name))
    write_failure(out)
    damaged = out / "vqvae" / "digits" / "abc" / "seed=9" / "record.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text('{"model": "vqvae", ')
    return out
