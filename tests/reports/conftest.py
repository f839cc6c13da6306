"""One report over a small but complete folder of runs, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.page import write_report
from tests.reports import synthetic


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, three seeds, controls, a failure, a damaged record; the report is written."""
    out = synthetic.standard(tmp_path_factory.mktemp("runs"))
    for seed in (0, 1):
        synthetic.write_cell(out, synthetic.record("gan", seed, budget=5e11, fd=20.0), files=False)
    synthetic.write_cell(out, synthetic.record("vqvae", 0, n=200), files=False)
    write_report(out)
    return out
