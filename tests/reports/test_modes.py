"""Mode coverage in the report: the record's numbers beside their floors, over seeds, and of records without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from evaluation.record import Truth
from reports.modes import mode_grid
from tests.reports.synthetic import control, record, truth
from tests.reports.test_tables import tables_of


def test_the_table_shows_the_numbers_of_the_record_beside_their_floors() -> None:
    floor = replace(control("real_train"), truth=truth(0.0, 0.3))
    grid = mode_grid(tables_of(replace(record("gan", 1), truth=truth(0.1, 0.5)), controls=(floor,))[0])
    assert grid is not None and grid.header[2] == "of 900 modes hit, %"
    model = next(row for row in grid.rows if not row.control)
    assert model.cells == ("gan", "359", "16.7 (32.9)", "1.00 (0.700)", "0.500 (0.300)", "25.0 (0.100)")
    assert [row.cells[3] for row in grid.rows if row.control] == ["0.600 (0.700)"]


def test_several_seeds_have_a_mean_and_half_a_t_interval() -> None:
    distances = [0.2, 0.3, 0.4]
    records = [replace(record("gan", i), truth=truth(0.1, d)) for i, d in enumerate(distances)]
    grid = mode_grid(tables_of(*records)[0])
    assert grid is not None
    half = t.ppf(0.975, 2) * np.std(distances, ddof=1) / np.sqrt(3)
    assert grid.rows[0].cells[4] == f"0.300 ± {half:.3f} (0.300)"
    assert half == pytest.approx(0.248, abs=1e-3)


def test_a_record_from_before_says_so_and_other_data_have_no_such_table() -> None:
    old = Truth(2.0, 0.001, 2.1, 0.004, 900, 250, 290.0, 0.4, 0.3)
    grid = mode_grid(tables_of(replace(record("gan", 1), truth=old))[0])
    assert grid is not None
    assert grid.rows[0].cells == ("gan", "—", "—", "—", "0.400 (0.300)", "—")
    assert grid.notes[0] == "Records that are older than some of these numbers: gan."
    assert mode_grid(tables_of(record("gan", 1))[0]) is None
