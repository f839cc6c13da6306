"""The figures that every comparison has for itself: curves along sweeps, where bits lie, parts of likelihoods."""

from __future__ import annotations

import re
from collections.abc import Iterator

from evaluation.curves import load_curves
from reports import plots_curves, plots_tradeoffs
from reports.columns import number
from reports.curves import (
    Member,
    SweepCurves,
    members_of,
    profile_groups,
    profile_sentences,
    share_sentences,
    sweep_sentences,
    sweeps_of,
)
from reports.figures import Reader, ReportFigure
from reports.plots import Look
from reports.tables import Table

PARTS_CAPTION = (
    "What each bound or estimate is the sum of. What is left of 0 is taken off, and the black mark is the sum, that "
    "of the tables. Parts of different kinds are different quantities; kinds are not ranked against each other."
)
TRIED_CAPTION = (
    "A likelihood that depends on a setting is taken at the value (marked) that is best for a few validation images, "
    "never for the test images that it is printed for. Of annealed importance sampling this is sigma, the noise that "
    "is assumed around what the generator makes: too little is surprised by every pixel, too much knows nothing."
)
SHARES_NOTE = (
    "Precision is the share of generated images that look real, recall the share of real images that are covered; "
    "numbers beside the points are values of the setting. To the upper right is better, and moving along a line trades "
    "one for the other."
)


def read_members(table: Table, unreadable: list[str]) -> list[Member]:
    """The runs of a comparison that have curves; what cannot be read is added to ``unreadable`` as sentences."""
    reader = Reader(unreadable)
    return members_of(table, lambda run: reader(lambda path: load_curves(path, run.record), run.curves_path))


def curve_figures(
    table: Table, members: list[Member], look: dict[str, Look], suffix: str
) -> Iterator[ReportFigure]:
    """All figures of one comparison; ``suffix`` ends their names, so that several of one dataset differ."""
    stem = table.group.dataset
    for found in sweeps_of(members, table.primary):
        sentences = " ".join(sweep_sentences(found))
        yield ReportFigure(
            f"{stem}_quality_vs_{found.axis.name}{suffix}", f"Quality against {found.axis.title}",
            f"{sentences} {_sweep_note(found)}", plots_curves.sweep_figure(found, look),
            alt=f"{found.metric} against {found.axis.label}. {sentences}",
        )  # fmt: skip
        yield from _shares(found, look, stem, suffix)
    for (kind, label, _), profiles in profile_groups(members).items():
        sentences = " ".join(profile_sentences(profiles))
        n = profiles[0][1].n_images
        yield ReportFigure(
            f"{stem}_bits_{re.sub(r'[^A-Za-z0-9]+', '_', kind)}{suffix}", "Where the bits are",
            f"{sentences} Left: what the model does wrong at each {label}. Right: what that costs; the pieces are of "
            f"equal width in its logarithm, and with the other parts they add up to the bound. n = {n:,} test images.",
            plots_curves.profile_figure(profiles, look), alt=f"Contribution to {kind} against {label}. {sentences}",
        )  # fmt: skip
    parts = plots_curves.parts_figure(table)
    if parts is not None:
        bars = "; ".join(label for label, _, _ in plots_curves.likelihood_bars(table))
        yield ReportFigure(
            f"{stem}_likelihood_parts{suffix}", "What the bits per dimension are made of", PARTS_CAPTION, parts,
            alt=f"Bits per dimension split into parts: {bars}"[:600],
        )
    yield from _tried(table, look, suffix)


def _sweep_note(found: SweepCurves) -> str:
    settings = found.points.drop_duplicates(["seed", "config_hash", "sampling_seed"])
    strokes = "A line joins means over seeds, a dot is one seed."
    if len(settings) == found.points["label"].nunique():
        strokes = "Thin strokes are intervals of evaluation noise."
    return f"n = {found.n:,} generated images at every point, of one checkpoint per seed. {strokes}"


def _shares(found: SweepCurves, look: dict[str, Look], stem: str, suffix: str) -> Iterator[ReportFigure]:
    """Precision against recall along a sweep, where its points have both."""
    figure = plots_tradeoffs.share_figure(found, look)
    if figure is not None:
        sentences = " ".join(share_sentences(found))
        yield ReportFigure(
            f"{stem}_precision_recall_by_{found.axis.name}{suffix}",
            f"Precision against recall by {found.axis.title}", f"{sentences} {SHARES_NOTE} n = {found.n:,}.", figure,
            alt=f"Precision against recall along {found.axis.label}. {sentences}",
        )  # fmt: skip


def _tried(table: Table, look: dict[str, Look], suffix: str) -> Iterator[ReportFigure]:
    """Likelihoods against the settings that were chosen on validation images."""
    figure = plots_tradeoffs.tried_figure(table, look)
    if figure is not None:
        told = "; ".join(
            f"{label}: {number(min(values.values()))} bits/dim at {name} {min(values, key=values.__getitem__):g}"
            for label, _, _, name, values in plots_tradeoffs.tried_values(table)
        )
        yield ReportFigure(
            f"{table.group.dataset}_likelihood_by_setting{suffix}", "Bits per dimension against what was calibrated",
            TRIED_CAPTION, figure, alt=f"Lowest of what was tried: {told}"[:600],
        )
