"""Recall in training: the lines are those of the log, and only of logs that have them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.plots import looks
from reports.plots_recall import recall_in_training
from tests.reports.synthetic import MODELS, record
from tests.reports.test_tables import tables_of


def test_lines_are_those_of_the_log() -> None:
    runs = [tables_of(record(model, 1))[0].runs[0] for model in ("gan", "diffusion")]
    log = pd.DataFrame({
        "images_seen": [32.0, 64.0, 64.0, 96.0, 128.0, 128.0], "g_loss": [1.0, 1.0, np.nan, 1.0, 1.0, np.nan],
        "recall_0": [np.nan, np.nan, 0.1, np.nan, np.nan, 0.7], "recall_1": [np.nan, np.nan, 0.3, np.nan, np.nan, 0.1],
        "recall_mean": [np.nan, np.nan, 0.2, np.nan, np.nan, 0.4],
        "recall_min": [np.nan, np.nan, 0.1, np.nan, np.nan, 0.1],
    })  # fmt: skip
    without = log[["images_seen", "g_loss"]]
    figure = recall_in_training([(runs[0], log), (runs[1], without)], looks(MODELS))
    assert figure is not None and [axes.get_title("left") for axes in figure.axes] == ["gan"]
    lines = [list(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_xdata())]
    assert lines == [[0.1, 0.7], [0.3, 0.1], [0.2, 0.4]]
    assert all(list(line.get_xdata()) == [64, 128] for line in figure.axes[0].lines if len(line.get_xdata()))
    assert recall_in_training([(runs[1], without)], looks(MODELS)) is None
    assert recall_in_training([(runs[0], log.assign(recall_1="words"))], looks(MODELS)) is None
