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
    BoundGap,
    Budget,
    Failure,
    Fingerprint,
    Likelihood,
    MetricValue,
    Parameters,
    Provenance,
    Record,
    Speed,
    StageBudget,
    Truth,
    write_json,
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


PRINT = Fingerprint(
    features="digits",
    weights_sha256="e" * 64,
    dtype="float32",
    resize="none",
    quantiser="rounded",
    n_real=359,
    n_fake=359,
    reference_split="test",
    reference_sha256="a" * 64,
    versions={"numpy": "2.4.0", "torch": "2.14.1"},
)


def metric(
    value: float | None,
    *,
    width: float | None = 0.1,
    n: int = 359,
    up: bool = False,
    reason: str | None = None,
    made: Fingerprint | None = PRINT,
) -> MetricValue:
    """A metric with an interval of value * (1 ± width), or without one."""
    ends = (None, None) if width is None or value is None else sorted((value * (1 - width), value * (1 + width)))
    low, high = ends
    method = None if low is None else "delete-a-group jackknife, 20 groups"
    own = None if made is None or value is None else replace(made, n_real=n, n_fake=n)
    return MetricValue(value, low, high, n, n, "digits", up, reason, method, own)


def more_metrics(distance: float, dataset: str, n: int) -> dict[str, MetricValue]:
    """The many metrics that the first table does not show, and one that it does."""
    values = {
        f"fd_infinity_{dataset}": distance * 0.8, f"fd_class_{dataset}": distance * 3, "vendi": 8.1,
        f"memorization_gap_{dataset}": 0.02, "memorization_gap_pixels": 0.01, f"ct_{dataset}": -0.3,
        f"authpct_{dataset}": 51.0, "fd_efficientnet_lite0": distance * 5, "precision_efficientnet_lite0": 0.8,
    }  # fmt: skip
    up = {"vendi", f"ct_{dataset}", f"authpct_{dataset}", "precision_efficientnet_lite0"}
    return {key: metric(value, n=n, up=key in up) for key, value in values.items()}


def made_with(record: Record, key: str, **changes: object) -> Record:
    """The record with other conditions in the fingerprint of one metric."""
    value = record.metrics[key]
    assert value.fingerprint is not None
    changed = replace(value, fingerprint=replace(value.fingerprint, **changes))
    return replace(record, metrics=record.metrics | {key: changed})


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


def bound(bits: float, kind: str, **changes: object) -> Likelihood:
    """A likelihood with its error, its parts and a self-check that held."""
    parts = {"prior": 0.1, "rest": bits - 0.1}
    made = Likelihood(
        bits, bits - 0.02, bits + 0.02, kind, parts, 359, None, 0.01,
        "two independent estimates agree within 0.004 bits/dim", True, {"noise levels": 32.0, "variance": "posterior"},
        32.0,
    )  # fmt: skip
    return replace(made, **changes)


def truth(fidelity: float, distance: float, gaps: dict[str, float] | None = None) -> Truth:
    """Samples ``fidelity`` bits/dim above the entropy at ``distance`` from the modes, and bounds above the truth."""
    made = tuple(BoundGap(kind, gap, 0.01, 359) for kind, gap in (gaps or {}).items())
    reached = int(300 * (1 - distance))
    return Truth(
        2.0, 0.001, 2.0 + fidelity, 0.004, 900, reached, 290.0, distance, 0.3, made, n_samples=359,
        modes_hit=reached / 900, modes_hit_expected=0.329, mode_kl=2 * distance, mode_kl_floor=0.7,
        off_mode=distance / 2, off_mode_floor=0.001,
    )  # fmt: skip


def complete(made: Record) -> Record:
    """The record with everything that may be in it: many metrics, all likelihoods, a sweep, the truth."""
    wobble, distance = 1 + 0.02 * (made.seed - 1), made.metrics[f"fd_{made.dataset}"]
    assert distance.value is not None
    kinds = {"diffusion": {"elbo": 3.1, "ode": 3.05}, "vqvae": {"two-part code": 3.4}}.get(made.model, {})
    slow = {"trace": "hutchinson", "rtol": 1e-4}
    bounds = [bound(bits * wobble, kind, **({"settings": slow, "nfe": 231.5, "n_images": 32} if kind == "ode" else {}))
              for kind, bits in kinds.items()]  # fmt: skip
    if made.model == "gan":
        bounds = [bound(4.5 * wobble, "ais", self_check="the sandwich is 0.3 bits/dim wide", self_check_passed=False)]
    rate = made.speed.images_per_second
    if rate is not None:
        sweep = {str(size): rate * size / (size + 20) for size in (1, 4, 16, 64, 256)}
        speed = replace(
            made.speed, ci_low=rate * 0.97, ci_high=rate * 1.03, latency_ms_p90=1100 / rate, warm_up_seconds=0.4,
            matmul_peak_flops=1.3e11, sweep=sweep, stage_seconds={"denoiser": 0.9 / rate, "other": 0.1 / rate},
        )  # fmt: skip
        made = replace(made, speed=speed)
    exact = truth(distance.value / 20, min(0.9, distance.value / 30), {b.kind or "": 0.2 * wobble for b in bounds})
    more = more_metrics(distance.value, made.dataset, distance.n_fake)
    first = bounds[0] if bounds else made.likelihood
    return replace(made, likelihood=first, likelihoods=tuple(bounds), truth=exact, metrics=made.metrics | more)


def external(name: str = "stranger", *, fd: float = 6.0, n: int = 359, dataset: str = "digits") -> Record:
    """A record of images made elsewhere."""
    reason = "made elsewhere: its training is unknown"
    return replace(
        record("gan", 0, fd=fd, n=n, dataset=dataset),
        model=name,
        config={"name": name, "images_sha256": "b" * 64},
        config_hash=f"{name[:6]:x<12}",
        budget=Budget(None, None, None, (), reason),
        parameters=Parameters(None, None),
        likelihood=Likelihood(None, None, None, None, {}, 0, "made elsewhere: there is no model to ask"),
        speed=Speed.missing("made elsewhere: its sampler is unknown"),
        source="external",
    )


def write_selftest(out: Path, *, failing: tuple[str, ...] = (), commit: str = "0" * 40) -> Path:
    """A self-test's result with three checks."""
    checks = [
        {"name": name, "group": "distances", "expected": 1.0, "got": 1.0 + 1e-12, "tolerance": "1e-10 relative",
         "passed": name not in failing, "seconds": 0.1, "note": ""}
        for name in ("diagonal Gaussians", "kid", "coverage")
    ]  # fmt: skip
    result = {
        "version": 1, "date": "2026-01-02T03:00:00+00:00", "commit": commit, "code_sha256": "5" * 64,
        "versions": {"torch": "2.14.1"}, "seconds": 71.0, "passed": not failing, "checks": checks,
    }  # fmt: skip
    write_json(out / "selftest.json", result)
    return out / "selftest.json"


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
        speed=Speed.missing("a control is not sampled from a network"),
        source="control",
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
    if made.model == "gan":
        lines[0] += ",recall_0,recall_1,recall_mean,recall_min"
        for look, recall in zip(range(1, 21), np.linspace(0, 0.9, 20), strict=True):
            summary = f"{recall:.3f},0.5,{(recall + 0.5) / 2:.3f},{min(recall, 0.5):.3f}"
            lines.append(f"0,gan,{look * 480},{look * 1.5e11:.3e},,,,{summary}")
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


def full(out: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """As ``standard`` with everything in the records, images made elsewhere, and a self-test."""
    standard(out, seeds)
    for model in MODELS:
        for seed in seeds:
            write_cell(out, complete(record(model, seed)), files=False)
    for name in ("real_train", "gaussian", "copycat"):
        write_control(out, replace(complete(control(name)), likelihoods=()))
    folder = write_cell(out, external(), files=False)
    write_samples(folder / "samples.npz", 20)
    write_selftest(out)
    return out
