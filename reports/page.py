"""Write the report: one self-contained page, tables for papers, data for notebooks, figures.

Everything is computed from the records below the output folder, so that a report can be
made again at any time, on any machine, without the models that were measured.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from evaluation.record import write_atomic
from reports import plots
from reports.collect import Collection, Run, collect, relative, results_frame
from reports.columns import budget_text
from reports.curves import Member, points_frame, profiles_frame
from reports.details import fingerprint_grid, likelihood_grid, metric_grid, speed_grid
from reports.figures import ReportFigure, dataset_figures, trajectory_figures
from reports.figures_codes import code_figures
from reports.figures_curves import curve_figures, read_members
from reports.figures_latents import latent_figures
from reports.first_stage import first_stage_grid, stage_grid
from reports.grid import Grid
from reports.modes import mode_grid
from reports.selftest import read_stamp
from reports.tables import Table, build_tables
from reports.truth import agreement_grid, truth_grid
from reports.verdict import verdict

TEMPLATES = Path(__file__).parent / "templates"
CURVE_FILES = ("curves.csv", "bits.csv")  # beside the page, where there are curves
MAX_INLINE_SVG = 400_000  # a larger drawing (a sheet of samples) is smaller as PNG

LATEX_COMMANDS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "—": "---",
    "–": "--", "−": "$-$", "★": r"$\star$", "✓": r"$\checkmark$", "✗": r"$\times$", "σ": r"$\sigma$",
    "→": r"$\rightarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "∞": r"$\infty$", "Δ": r"$\Delta$",
    "·": r"$\cdot$", "’": "'", "“": "``", "[": "{[}", "*": "{*}", "”": "''", "…": r"\dots{}",
}  # fmt: skip


class ReportError(RuntimeError):
    """There is nothing to report on; the message is one sentence."""


@dataclass(frozen=True)
class PageFigure:
    """A figure as the page shows it."""

    name: str
    title: str
    caption: str
    data_uri: str
    alt: str


@dataclass(frozen=True)
class Comparison:
    """One table with its sentences, the tables of detail behind it, and its own figures."""

    table: Table
    verdict: list[str]
    grids: list[Grid]
    figures: list[PageFigure]


@dataclass(frozen=True)
class DatasetPart:
    """The comparisons of one dataset; the figures of the first stand before and after (``last``) its own."""

    name: str
    comparisons: list[Comparison]
    figures: list[PageFigure]
    last: list[PageFigure]


def write_report(out: Path, folder: Path | None = None) -> Path:
    """Write ``folder`` (default: ``out/report``) from all records below ``out``; returns the path of ``index.html``.

    Raises:
        ReportError: there is neither a readable record nor a failed cell below ``out``.
    """
    found = collect(out)
    if not found.runs and not found.failed:
        broken = f"; damaged: {'; '.join(found.unreadable)}" if found.unreadable else ""
        expected = "<model>/<dataset>/<hash>/seed=<n>/record.json"
        raise ReportError(f"no records below {out} (expected {expected}){broken}")
    folder = folder or out / "report"
    tables = build_tables(found)
    unreadable = list(found.unreadable)
    look = plots.looks(run.name for run in found.runs if not run.control)
    parts = _dataset_parts(tables, look, folder, unreadable)
    stamp, damaged = read_stamp(out, (run.record.provenance.git_commit for run in found.runs))
    unreadable += damaged
    unreadable = sorted({relative(sentence, out) for sentence in unreadable})
    if found.runs:
        _write_results(found, folder)
    more = [name for name in CURVE_FILES if (folder / name).exists()]
    flat = [comparison for part in parts for comparison in part.comparisons]
    environment = _environment()
    for name in ("table.md", "table.tex", "index.html"):
        text = environment.get_template(f"{name}.j2").render(
            parts=parts, comparisons=flat, failed=found.failed, unreadable=unreadable,
            provenance=provenance(found.runs), budget_text=budget_text,
            colours={name: item.colour for name, item in look.items()}, stamp=stamp, more=more,
        )  # fmt: skip
        write_atomic(folder / name, text.encode())
    return folder / "index.html"


def _dataset_parts(
    tables: list[Table], look: dict[str, plots.Look], folder: Path, unreadable: list[str]
) -> list[DatasetPart]:
    """Tables, verdicts and figures by dataset; figures and what they show are written below ``folder``."""
    parts, written = [], set[str]()
    members: list[Member] = []
    for dataset, found in groupby(tables, key=lambda table: table.group.dataset):
        group = list(found)

        def publish(items: Iterable[ReportFigure], dataset: str = dataset) -> list[PageFigure]:
            return [_publish(item, dataset, folder / "figures", written) for item in items]

        figures, comparisons = publish(dataset_figures(group, look, unreadable)), []
        for place, table in enumerate(group):
            own = read_members(table, unreadable)
            members += own
            drawn = publish(curve_figures(table, own, look, f"_{place + 1}" if place else ""))
            comparisons.append(_comparison(table, drawn))
        last = chain(
            code_figures(group[0], look, unreadable), latent_figures(group[0], unreadable),
            trajectory_figures(group[0], unreadable),
        )  # fmt: skip
        parts.append(DatasetPart(dataset, comparisons, figures, publish(last)))
    for old in (p for p in (folder / "figures").glob("*.*") if p.suffix in (".svg", ".png") and p.name not in written):
        old.unlink()  # a figure of an earlier report that these records no longer support
    _write_curves(members, folder)
    return parts


def _publish(item: ReportFigure, dataset: str, folder: Path, written: set[str]) -> PageFigure:
    """Write a figure in both formats; names of files are added to ``written``."""
    svg, png = plots.render(item.figure)
    for ending, data in (("svg", svg), ("png", png)):
        write_atomic(folder / f"{item.name}.{ending}", data)
        written.add(f"{item.name}.{ending}")
    return PageFigure(item.name, item.title, item.caption, _data_uri(svg, png), item.alt or f"{item.title} ({dataset})")


def _write_curves(members: list[Member], folder: Path) -> None:
    """The points and pieces behind the curves as tables; none where there are no curves."""
    for name, frame in zip(CURVE_FILES, (points_frame(members), profiles_frame(members)), strict=True):
        if frame.empty:
            (folder / name).unlink(missing_ok=True)
        else:
            write_atomic(folder / name, frame.to_csv(index=False).encode())


def _comparison(table: Table, figures: list[PageFigure]) -> Comparison:
    """A table with everything that is computed from it."""
    makers = (
        likelihood_grid, first_stage_grid, stage_grid, truth_grid, mode_grid, agreement_grid, speed_grid,
        metric_grid, fingerprint_grid,
    )  # fmt: skip
    return Comparison(table, verdict(table.summary), [grid for make in makers if (grid := make(table))], figures)


def _data_uri(svg: bytes, png: bytes) -> str:
    kind, data = ("svg+xml", svg) if len(svg) <= MAX_INLINE_SVG else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _write_results(found: Collection, folder: Path) -> None:
    frame = results_frame(found.runs)
    write_atomic(folder / "results.csv", frame.to_csv(index=False).encode())
    parquet = BytesIO()
    frame.to_parquet(parquet, index=False)
    write_atomic(folder / "results.parquet", parquet.getvalue())


def provenance(runs: tuple[Run, ...]) -> list[tuple[str, list[str]]]:
    """Conditions of measurement: every distinct value of each, so that a mixture is visible."""
    places = [run.record.provenance for run in runs]
    data = {f"{run.record.dataset}: {run.record.provenance.dataset_sha256}" for run in runs}
    extractors = {f"{r.record.dataset}: {r.record.provenance.extractor_sha256 or 'none'}" for r in runs}
    dates = sorted(place.date for place in places)
    versions: dict[str, set[str]] = {}
    for place in places:
        for name, version in place.versions.items():
            versions.setdefault(name, set()).add(version)
    changed = " with uncommitted changes"
    commits = {
        (place.git_commit or "unknown") + (changed if place.dirty_diff_hash else "") for place in places
    }
    rows = {
        "records": {f"{len(runs)}"},
        "processor": {place.cpu for place in places},
        "GPU": {place.gpu or "none" for place in places},
        "threads": {str(place.threads) for place in places},
        "training processes": {f"{p.processes}, {p.strategy}" if p.processes > 1 else "1" for p in places},
        "host": {place.hostname for place in places if place.hostname},
        "precision": {place.precision for place in places},
        "versions": {f"{name} {' / '.join(sorted(found))}" for name, found in versions.items()},
        "commit": commits,
        "measured": {dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"} if dates else set(),
        "dataset (SHA-256)": data,
        "feature extractor (SHA-256)": extractors,
    }
    return [(name, sorted(values)) for name, values in rows.items() if values]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
    )  # fmt: skip
    environment.filters |= {"tex": latex, "md": markdown}
    return environment


def latex(text: str) -> str:
    """Text that pdflatex sets as it reads here; characters that it lacks become their base letter or "?"."""
    return "".join(_latex_character(character) for character in str(text).replace("\n", " "))


def _latex_character(character: str) -> str:
    if character in LATEX_COMMANDS:
        return LATEX_COMMANDS[character]
    if character.isascii():
        return character if character.isprintable() else " "
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


def markdown(text: str) -> str:
    """Text for one cell of a Markdown table."""
    for character in "\\|*_`<[":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
