"""The figures of first stages: what comes back, the codes, a half drawn anew, and use of the codebook."""

from __future__ import annotations

from collections.abc import Iterator

from reports import plots_codes
from reports.collect import Run, load_log
from reports.figures import Reader, ReportFigure, one_per_row, run_pictures, run_titles
from reports.plots import Look
from reports.tables import Table

PICTURES = {
    "reconstructions": (
        "reconstructions",
        "Test images above, and below each what the first stage gives back of it. Nobody picked these: they are the "
        "first of the test split. What is lost here, no prior over the codes can bring back.",
    ),
    "codes": (
        "codes",
        "Test images in the first row, below them the codes that stand for them, a row per grid of codes. A code has "
        "the same colour wherever it stands; in a large codebook some colours look alike.",
    ),
    "inpainting": (
        "a half drawn anew",
        "Test images, the same without their lower half, and three drawings of that half: the upper half and the class "
        "are given, the codes below are drawn by the prior.",
    ),
}
USE_CAPTION = (
    "How often each code of the codebook occurs in the codes of the test images, the most frequent first. The dashed "
    "line is equal use. Dead codes, which never occur, cost nothing but are capacity that is not used."
)
TRAINING_CAPTION = (
    "How many different codes the batches of the first stage's training hold, and their perplexity (how many are in "
    "use, in effect). Both are bounded by the batch's number of codes. A curve that falls for good is a codebook that "
    "collapses."
)  # fmt: skip


def code_figures(table: Table, look: dict[str, Look], unreadable: list[str]) -> Iterator[ReportFigure]:
    """Figures of a comparison's first stages, one run per configuration; ``unreadable`` as in ``reports.figures``."""
    read, dataset = Reader(unreadable), table.group.dataset
    runs = [run for run in one_per_row(table.runs) if run.record.reconstruction]
    titles = run_titles(runs)
    use = plots_codes.code_use(runs, look, titles)
    if use is not None:
        told = "; ".join(_told(run, title) for run, title in zip(runs, titles, strict=True))
        yield ReportFigure(f"{dataset}_code_use", "Use of the codebook", USE_CAPTION, use, alt=told[:600])
    logs = [(run, log) for run in runs if (log := read(load_log, run.log_path)) is not None]
    training = plots_codes.codes_in_training(logs, look)
    if training is not None:
        yield ReportFigure(f"{dataset}_codes_in_training", "Codes in use during training", TRAINING_CAPTION, training)
    for run, title in zip(runs, titles, strict=True):
        yield from run_pictures(run, title, dataset, read, PICTURES)


def _told(run: Run, title: str) -> str:
    first = run.record.reconstruction
    if first is None or not first.codebook_size:
        return f"{title}: continuous codes"
    used = len(first.code_counts)
    return f"{title}: {used} of {first.codebook_size} codes occur, {first.codebook_size - used} are dead"
