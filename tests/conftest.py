"""Shared by all tests: they run from the repository's root, on few threads, and leave it clean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports NumPy or torch: parallel test jobs must not fight for cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def root() -> Path:
    """The repository's root folder."""
    return ROOT
