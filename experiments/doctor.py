"""What this machine has: versions, threads, device, data, shipped weights, disk."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil

from datamodules.base import DataNotFoundError
from evaluation.features import catalog
from evaluation.features.weights import present
from experiments.discovery import dataset_module, dataset_names

LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn", "tyro")
LEAST_DISK_GIB = 2.0


class Finding(NamedTuple):
    """One line of the examination; ``ok`` None is information, False a fault, True a pass."""

    name: str
    text: str
    ok: bool | None = None


def versions() -> Iterator[Finding]:
    """Python and the libraries that decide the numbers."""
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    for name in LIBRARIES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "not installed", False)


def compute() -> Iterator[Finding]:
    """Processor, memory, threads and accelerator as torch sees them."""
    import torch

    memory = psutil.virtual_memory().total / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cpu", f"{platform.machine()}, {cores} cores usable, {memory:.0f} GiB of memory")
    yield Finding("threads", str(torch.get_num_threads()))
    cuda = torch.cuda.is_available()
    yield Finding("device", torch.cuda.get_device_name(0) if cuda else "cpu (no CUDA device)")


def data() -> Iterator[Finding]:
    """Where each dataset would be read from."""
    for name in dataset_names():
        module = dataset_module(name)
        try:
            yield Finding(f"data {name}", module.locate(module.Config()), True)
        except DataNotFoundError as error:
            yield Finding(f"data {name}", str(error), None)


def weights() -> Iterator[Finding]:
    """Every shipped feature extractor, its checksum compared with its card, and which pretrained ones are here."""
    names = catalog.shipped()
    if not names:
        yield Finding("weights", f"none in {catalog.WEIGHTS}", False)
    for name in names:
        try:
            yield Finding(f"weights {name}", f"verified, SHA-256 {catalog.verify(name)[:12]}", True)
        except catalog.ExtractorError as error:
            yield Finding(f"weights {name}", str(error), False)
    here = [name for name in catalog.PRETRAINED if present(name)]
    text = f"{', '.join(here) or 'none'} on this machine; others are downloaded when asked for"
    yield Finding("pretrained", text)


def disk(out: Path) -> Iterator[Finding]:
    """Space where the runs go."""
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 2**30
    enough = free >= LEAST_DISK_GIB
    yield Finding("disk", f"{free:.1f} GiB free for {out}" + ("" if enough else ", too little"), enough)


def examine(out: Path) -> int:
    """Print every finding; 1 if one of them is a fault, else 0."""
    findings = [*versions(), *compute(), *data(), *weights(), *disk(out)]
    width = max(len(finding.name) for finding in findings)
    marks = {True: "ok", False: "FAULT", None: ""}
    for finding in findings:
        print(f"{marks[finding.ok]:<5}  {finding.name:<{width}}  {finding.text}")
    return int(any(finding.ok is False for finding in findings))
