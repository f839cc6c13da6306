"""The figures of latent spaces: ways through them, one latent as every class, test images sought in them."""

from __future__ import annotations

from collections.abc import Iterator

from reports.figures import Reader, ReportFigure, one_per_row, run_pictures, run_titles
from reports.tables import Table

PICTURES = {
    "interpolation": (
        "from one latent to another",
        "Each row is a walk within one class, from the noise that makes the left image to the noise that makes the "
        "right one. If all that lies between looks real too, the generator has learned more than single images.",
    ),
    "mixing": (
        "the same latent as every class",
        "Each row is one and the same noise, drawn as every class in turn. What stays alike along a row (slant, "
        "weight) is what the noise means; what changes is the class.",
    ),
    "inversion": (
        "test images sought in the latent space",
        "Real test images above, and below each the nearest likely image that the generator can make of its class. "
        "What differs is what the generator cannot make, whatever noise it is given.",
    ),
}


def latent_figures(table: Table, unreadable: list[str]) -> Iterator[ReportFigure]:
    """Pictures of a comparison's latent spaces, one run per configuration; ``unreadable`` as in ``reports.figures``."""
    read, runs = Reader(unreadable), [run for run in one_per_row(table.runs) if run.trained]
    for run, title in zip(runs, run_titles(runs), strict=True):
        yield from run_pictures(run, title, table.group.dataset, read, PICTURES)
