"""Which figures a dataset gets, from which runs, and the caption that explains each.

Every figure shows one comparison only (the first table of the dataset), except quality
against compute, which joins all budgets that were measured under the same conditions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pandas as pd
from matplotlib.figure import Figure

from reports import pictures, plots, plots_details, plots_recall
from reports.collect import FileError, Run, load_log, load_picture, load_samples
from reports.columns import budget_text
from reports.conditions import condition_key
from reports.tables import Table, main_metric

MAX_LOGS_PER_MODEL = 5
MAX_SHEETS = 12
PANEL_TITLES = {"real_train": "real images", "gaussian": "fitted Gaussian"}

CAPTIONS = {
    "samples": (
        "Nobody picked these: they are the first images of each class that every model drew, enlarged "
        "without smoothing. A row shows one class wherever images have classes; the seed stands above. "
        "Compare with the real images: are the shapes right, are they sharp, do the images in a row differ?"
    ),
    "quality_vs_time": (
        "Each dot is one training run (one seed). Lower is closer to the real images, further left is "
        "faster, so the best corner is the lower left. A dashed line is the floor: the distance between "
        "real images and other real images, which nothing honest can beat by more than luck. A dotted "
        "line is a Gaussian fitted to the pixels: whoever is above it has learned less than averages "
        "and correlations. A coloured line stands for images made elsewhere, whose sampling time is unknown."
    ),
    "quality_vs_compute": (
        "The same distance against what training cost, counted in floating-point operations over all stages, "
        "not in steps or hours, so that models of different build are compared at equal expense. Each dot is "
        "one training run; where several budgets were run, a line joins the means and shows what more "
        "compute buys."
    ),
    "speed_sweep": (
        "More images at once keep the processor busier, up to a point; the tables print the best batch size. "
        "A strong line is the mean, a faint one a single seed. At batch size 1 it shows what a user waits for."
    ),
    "bound_gaps": (
        "How many bits per dimension each claimed likelihood is above the true one, on the same images, with "
        "95 % intervals; every dot is one seed. The line at 0 is the true density. A valid bound cannot lie in "
        "the shaded region by more than its error. Different kinds of bound are not ranked against each other."
    ),
    "metrics_vs_truth": (
        "What a metric says (upwards) against what is true (to the right), every training run a dot, controls "
        "as crosses. Further left is always truly better. A useful metric draws a line; a cloud means that its "
        "ranking cannot be relied on for this property."
    ),
    "training_curves": (
        "One panel per model and stage, because the losses mean different things and must not be compared "
        "across panels: a diffusion loss is a denoising error, a VQ-VAE has one of reconstruction and one of "
        "prediction, and the two losses of a GAN are opponents, so that neither needs to fall."
    ),
    "recall_in_training": (
        "The share of a few training images of each class that lie among generated ones of that class (in pixels, "
        "k = 3): a look at whether adversarial training is well, not a result. It starts at zero, as nothing real "
        "is near until images are recognisable; a class that falls back to zero is a class that was lost."
    ),
    "trajectory": (
        "Sampling seen from inside: each row is one image, from pure static on the left to the finished "
        "sample on the right."
    ),
}

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its file name (without ending), its title and its caption; ``alt`` tells it to who cannot see."""

    name: str
    title: str
    caption: str
    figure: Figure
    alt: str = ""


def dataset_figures(
    tables: list[Table], look: dict[str, plots.Look], unreadable: list[str]
) -> Iterator[ReportFigure]:
    """The figures of a dataset but for its trajectories; ``tables`` are its comparisons, the main one first.

    Files that cannot be read are added to ``unreadable`` as sentences.
    """
    main = tables[0]
    dataset, where = main.group.dataset, budget_text(main.group.budget)
    metric = main.primary
    read = Reader(unreadable)
    sheets = pictures.sample_sheets(list(_panels(main.runs, look, read)))
    title = f"Samples after {where}" if main.group.budget > 0 else "Samples"
    drawn: list[tuple[str, str, Figure | None]] = [("samples", title, sheets)]
    drawn.append(("bound_gaps", "Bounds against the true density", plots_details.bound_gaps(main.runs, look)))
    drawn.append(("metrics_vs_truth", "Metrics against the truth", plots_details.metrics_vs_truth(main, look)))
    if metric and rankable(main, metric):
        alike = [t for t in tables if replace(t.group, budget=0) == replace(main.group, budget=0)]
        everything = {run.path: run for t in alike if rankable(t, metric) for run in t.runs}.values()
        speed = plots.quality_vs_time(plots.points(main.runs, metric), metric, look)
        compute = plots.quality_vs_compute(plots.points(everything, metric), metric, look)
        drawn.append(("quality_vs_time", f"Quality against sampling time, {where}", speed))
        drawn.append(("quality_vs_compute", "Quality against training compute", compute))
    sweep = plots_details.speed_sweep([run for run in main.runs if not run.control], look)
    drawn.append(("speed_sweep", "Sampling speed by batch size", sweep))
    logs = list(_logs(main.runs, read))
    drawn.append(("training_curves", f"Training curves, {where}", plots.training_curves(logs, look)))
    recall = plots_recall.recall_in_training(logs, look)
    drawn.append(("recall_in_training", f"Recall by class during training, {where}", recall))
    for kind, title, figure in drawn:
        if figure is not None:
            yield ReportFigure(f"{dataset}_{kind}", title, CAPTIONS[kind], figure)


def rankable(table: Table, metric: str) -> bool:
    """Whether all numbers of a metric were made under the same conditions: an axis shows an order too."""
    held = [run.record.metrics[metric] for run in table.runs if metric in run.record.metrics]
    return len({condition_key(value.fingerprint) for value in held if value.value is not None}) < 2


class Reader:
    """Loads a file, or notes the sentence why it cannot be read and returns None."""

    def __init__(self, unreadable: list[str]) -> None:
        self.unreadable = unreadable

    def __call__(self, load: Callable[[Path], Loaded], path: Path) -> Loaded | None:
        try:
            return load(path)
        except FileError as error:
            self.unreadable.append(str(error))
            return None


def one_per_row(runs: tuple[Run, ...]) -> list[Run]:
    """One run per configuration, all of the smallest seed that they share where there is one."""
    rows: dict[tuple[str, str], list[Run]] = {}
    for run in (run for run in runs if not run.control):
        rows.setdefault((run.name, run.record.config_hash), []).append(run)
    seeds = [{run.record.seed for run in part} for part in rows.values() if part[0].trained]
    shared = set.intersection(*seeds) if seeds else set()
    first = []
    for key in sorted(rows):
        candidates = [r for r in rows[key] if not shared or r.external or r.record.seed in shared]
        first.append(min(candidates, key=lambda r: r.record.seed))
    return first if len(first) <= MAX_SHEETS else _best_of_each(first)


def _best_of_each(runs: list[Run]) -> list[Run]:
    """The configuration with the lowest distance per model, when there are too many to show all."""
    best: dict[str, Run] = {}
    for run in runs:
        if run.name not in best or _distance(run) < _distance(best[run.name]):
            best[run.name] = run
    return list(best.values())


def _distance(run: Run) -> float:
    main = main_metric(run.record)
    value = run.record.metrics[main].value if main else None
    return math.inf if value is None else value


def _panels(runs: tuple[Run, ...], look: dict[str, plots.Look], read: Reader) -> Iterator[pictures.Panel]:
    controls = {run.name: run for run in runs if run.control}
    trained = one_per_row(runs)
    chosen = [controls.get("real_train"), *trained, controls.get("gaussian")]
    for run in chosen:
        loaded = read(load_samples, run.samples_path) if run else None
        if run is None or loaded is None:
            continue
        colour = plots.MUTED if run.control else look[run.name].colour
        twins = [other for other in trained if other.name == run.name]
        which = f" · {run.record.config_hash[:6]}" if len(twins) > 1 else ""
        made = "made elsewhere" if run.external else f"seed {run.record.seed}"
        subtitle = "to compare with" if run.control else f"{made}{which}"
        yield pictures.Panel(PANEL_TITLES.get(run.name, run.name), subtitle, colour, *loaded)


def _logs(runs: tuple[Run, ...], read: Reader) -> Iterator[tuple[Run, pd.DataFrame]]:
    drawn: dict[str, int] = {}
    for run in sorted((r for r in runs if r.trained), key=lambda r: (r.name, r.record.seed)):
        if drawn.get(run.name, 0) < MAX_LOGS_PER_MODEL:
            log = read(load_log, run.log_path)
            if log is not None:
                drawn[run.name] = drawn.get(run.name, 0) + 1
                yield run, log


def trajectory_figures(table: Table, unreadable: list[str]) -> Iterator[ReportFigure]:
    """Sampling seen from inside, for every model of a comparison that keeps it; ``unreadable`` as above."""
    read, dataset = Reader(unreadable), table.group.dataset
    for run in one_per_row(table.runs):
        image = read(load_picture, run.trajectory_path) if run.trajectory_path.exists() else None
        if image is not None:
            title = f"{run.name}: out of static"
            name = f"{dataset}_trajectory_{run.name}_{run.record.config_hash[:6]}"
            drawn = pictures.picture(image, f"{run.name}, step by step")
            yield ReportFigure(name, title, CAPTIONS["trajectory"], drawn)


def run_titles(runs: list[Run]) -> list[str]:
    """The models' names, with the start of the configuration's hash where several runs have one name."""
    twins = {run.name for run in runs if sum(other.name == run.name for other in runs) > 1}
    return [f"{run.name} · {run.record.config_hash[:6]}" if run.name in twins else run.name for run in runs]


def run_pictures(
    run: Run, title: str, dataset: str, read: Reader, wanted: Mapping[str, tuple[str, str]]
) -> Iterator[ReportFigure]:
    """Those of the ``wanted`` pictures (what it is called and a caption, by name) that a run has."""
    for name, (what, caption) in wanted.items():
        path = run.picture_path(name)
        image = read(load_picture, path) if path.exists() else None
        if image is not None:
            drawn = pictures.picture(image, f"{title}, seed {run.record.seed}")
            stem = f"{dataset}_{name}_{run.name}_{run.record.config_hash[:6]}"
            yield ReportFigure(stem, f"{title}: {what}", caption, drawn)
