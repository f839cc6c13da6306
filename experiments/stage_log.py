"""The training log of a stage, which is part of its checkpoints.

A resumed attempt writes the log anew from the rows in the checkpoint that it goes on from, so that no row
is there twice, none is of another attempt than the weights, and no file that was cut short is read.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from evaluation.atomic import write_atomic

Rows = list[dict[str, float]]
LOG_FILE = "metrics.csv"


class StageLog(Logger):
    """Keeps every row and hands it on, to a CSV file and to TensorBoard."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.rows: Rows = []
        # To a TensorBoard that is running the first step says that all it has seen so far is void.
        self.writers = [
            CSVLogger(folder, name="csv", version=0),
            TensorBoardLogger(folder, name="tensorboard", version=0, purge_step=0),
        ]

    @property
    def name(self) -> str:
        """Part of Lightning's contract; nothing is named by it."""
        return self.folder.name

    @property
    def version(self) -> int:
        """There is one version only."""
        return 0

    def clear(self) -> None:
        """Delete what former attempts have written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def restore(self, rows: Rows) -> None:
        """Write the rows of a checkpoint."""
        for row in rows:
            self.log_metrics({name: value for name, value in row.items() if name != "step"}, int(row["step"]))
        self.save()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None, "the trainer counts"
        self.rows.append({**metrics, "step": step})
        for writer in self.writers:
            writer.log_metrics(dict(metrics), step)

    def log_hyperparams(self, *args: Any, **options: Any) -> None:
        """They are in the cell's config.json."""

    def save(self) -> None:
        for writer in self.writers:
            writer.save()

    def finalize(self, status: str) -> None:
        for writer in self.writers:
            writer.finalize(status)


def write_log(path: Path, stages: Sequence[tuple[str, Rows]]) -> None:
    """Write the rows of all stages, by name, as one CSV file."""
    tables = []
    for name, rows in stages:
        table = pd.DataFrame(rows).sort_index(axis=1).drop(columns=["epoch", "step"])
        table.insert(0, "stage", name)
        tables.append(table)
    write_atomic(path, pd.concat(tables).to_csv(index=False).encode())
