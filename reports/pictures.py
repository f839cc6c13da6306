"""Figures made of images: sample sheets side by side, and samples coming out of static.

Small images are enlarged by whole factors without smoothing, so that what is seen is what
the model produced, pixel for pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reports.plots import INK, MUTED, WIDTH, style

ROWS, PER_ROW, PANELS_PER_LINE = 10, 6, 5
MAX_HEIGHT = 7.5  # inches
GAP = 1  # pixels of the original size between two images
TARGET_PIXELS = 60  # every image is enlarged to about this size


@dataclass(frozen=True)
class Panel:
    """The samples of one model under its name: images uint8 (N, C, H, W), labels int64 (N,) or None."""

    title: str
    subtitle: str
    colour: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None


def sample_sheets(panels: Sequence[Panel]) -> Figure | None:
    """Panels side by side; row by row the same class wherever the images have classes."""
    if not panels:
        return None
    classes = _classes(panels)
    lines = math.ceil(len(panels) / PANELS_PER_LINE)
    columns = math.ceil(len(panels) / lines)
    sheets = [_sheet(panel, classes) for panel in panels]
    ratio = max(sheet.shape[0] / sheet.shape[1] for sheet in sheets)
    width = WIDTH * columns / max(4, columns)
    with style():
        figure = Figure(figsize=(width, lines * (width / columns * ratio + 0.5)), layout="constrained")
        grid = list(figure.subplots(lines, columns, squeeze=False).flat)
        for position, (axes, panel, sheet) in enumerate(zip(grid, panels, sheets, strict=False)):
            axes.imshow(sheet, interpolation="none", aspect="equal")
            axes.set_title(panel.title, color=panel.colour, fontsize=11, pad=18)
            small = {"fontsize": 8, "color": MUTED}
            axes.text(0, 1.012, panel.subtitle, transform=axes.transAxes, va="bottom", **small)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set_visible(False)
            if position % columns == 0 and classes is not None and panel.labels is not None:
                step = sheet.shape[0] / len(classes)
                axes.set_yticks([(i + 0.5) * step for i in range(len(classes))], [str(c) for c in classes])
                axes.tick_params(axis="y", length=0, labelsize=8, colors=INK)
                axes.set_ylabel("class", **small)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
    return figure


def _classes(panels: Sequence[Panel]) -> list[int] | None:
    """Up to ROWS classes that every labelled panel shares; None if nothing is labelled."""
    labelled = [set(p.labels.tolist()) for p in panels if p.labels is not None]
    shared = sorted(set.intersection(*labelled)) if labelled else []
    return shared[:ROWS] if len(shared) > 1 else None


def _sheet(panel: Panel, classes: list[int] | None) -> NDArray[np.uint8]:
    """A sheet of ROWS x PER_ROW images as RGB (H, W, 3), white where there are too few."""
    if classes is None or panel.labels is None:
        rows = np.array_split(np.arange(min(len(panel.images), ROWS * PER_ROW)), ROWS)
    else:
        rows = [np.flatnonzero(panel.labels == c)[:PER_ROW] for c in classes]
    _, channels, height, width = panel.images.shape
    cell_h, cell_w = height + GAP, width + GAP
    sheet = np.full((len(rows) * cell_h, PER_ROW * cell_w, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, index in enumerate(row[:PER_ROW]):
            image = np.repeat(panel.images[index], 3 // channels, axis=0).transpose(1, 2, 0)
            sheet[i * cell_h : i * cell_h + height, j * cell_w : j * cell_w + width] = image
    factor = max(1, round(TARGET_PIXELS / height))
    return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def picture(image: NDArray[np.uint8], title: str) -> Figure:
    """A finished picture, RGB (H, W, 3), at the page's width."""
    height, width = image.shape[:2]
    factor = max(1, round(1200 / width))
    with style():
        shown = min(WIDTH, MAX_HEIGHT * width / height)
        figure = Figure(figsize=(shown, shown * height / width + 0.4), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(image.repeat(factor, axis=0).repeat(factor, axis=1), interpolation="none")
        axes.set_title(title)
        axes.set_axis_off()
    return figure
