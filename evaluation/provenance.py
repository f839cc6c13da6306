"""Where a number comes from: code, versions, machine."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import torch

from evaluation.machine import cpu_name, versions
from evaluation.record import Provenance
from evaluation.speed import peak_memory_mib


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        run = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout


@lru_cache(maxsize=1)
def git_state() -> tuple[str | None, str | None]:
    """Commit of this checkout, and the SHA-256 of what differs from it (None if nothing does).

    Asked once, when a process begins its work: files edited later are not what it runs.
    """
    commit, diff = _git("rev-parse", "HEAD"), _git("diff", "HEAD")
    if commit is None:
        return None, None
    return commit.strip(), hashlib.sha256(diff.encode()).hexdigest() if diff else None


def provenance(
    *, dataset_sha256: str, extractor_sha256: str | None, checkpoint_sha256: str | None, ema: bool,
    sampler: str | None, wall_seconds: float, cpu_seconds: float, processes: int = 1, strategy: str | None = None,
) -> Provenance:
    """Everything else that a record must carry."""
    commit, dirty = git_state()
    return Provenance(
        git_commit=commit,
        dirty_diff_hash=dirty,
        versions=versions(),
        cpu=cpu_name(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        threads=torch.get_num_threads(),
        precision="float32",
        dataset_sha256=dataset_sha256,
        extractor_sha256=extractor_sha256,
        checkpoint_sha256=checkpoint_sha256,
        ema=ema,
        sampler=sampler,
        wall_seconds=wall_seconds,
        cpu_seconds=cpu_seconds,
        peak_memory_mib=peak_memory_mib(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processes=processes,
        strategy=strategy,
        hostname=socket.gethostname(),
    )
