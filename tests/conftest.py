"""Shared by all tests: they run from the repository's root, on few threads, and leave it clean."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports NumPy or torch: two processes test side by side and must not fight for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# What is cached is the tests' own, and no weights of this machine make a test pass or fail.
_cache = tempfile.TemporaryDirectory(prefix="paragon-cache-")
os.environ["PARAGON_CACHE"] = _cache.name
os.environ.pop("PARAGON_WEIGHTS", None)


@pytest.fixture
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture
def short_likelihoods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Annealing and integration as short as tests of other things need; their own tests use them as they are."""
    monkeypatch.setattr("models.diffusion.family.ODE_TOLERANCE", 1e-2)
    monkeypatch.setattr("models.gan.likelihood.TEMPERATURES", 20)
    monkeypatch.setattr("models.gan.likelihood.TUNING_TEMPERATURES", 10)
