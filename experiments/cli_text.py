"""What the command line prints before any work: the lists, the options with their defaults, the plan."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

from evaluation.features.catalog import ExtractorError, available, card, shipped
from experiments.budgets import BUDGETS
from experiments.discovery import (
    command_module,
    command_names,
    dataset_names,
    metric_names,
    model_names,
    pair_metric_names,
)

OTHER_METRICS = ("evaluation.memorization",)  # as evaluation.metrics.driver has it, which is slow to import

DIRECTIONS = {"True": " (higher is better)", "False": " (lower is better)"}

EVALUATE_NOTES = """All images take part, or --evaluation.num_samples of them at random if there are more.
Numbers of different n are never in one column: give as many images as the test split has, or set it.
Arrays are (N, C, H, W), (N, H, W, C) or (N, H, W); an .npz holds 'images' and perhaps 'labels'.
Exit code 1 if files could not be read: each is named, the others are examined all the same."""


def _syntax(module: str) -> ast.Module:
    """A module's syntax tree, read without importing the module."""
    spec = importlib.util.find_spec(module)
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    return ast.parse(source)


def summary(module: str) -> str:
    """First line of a module's docstring."""
    return (ast.get_docstring(_syntax(module)) or "").partition("\n")[0]


def metric_keywords(module: str) -> list[dict[str, Any]]:
    """The plain values with which a file declares each metric of its ``METRIC`` or ``METRICS``."""
    assigned = [node for node in _syntax(module).body if isinstance(node, ast.Assign)]
    declared = [node.value for node in assigned if ast.unparse(node.targets[0]) in ("METRIC", "METRICS")]
    calls = [c for value in declared for c in (value.elts if isinstance(value, ast.Tuple) else [value])]
    return [_plain_keywords(call) for call in calls if isinstance(call, ast.Call)]


def _plain_keywords(call: ast.Call) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        with suppress(ValueError):  # not a plain value, as the function itself
            values[str(keyword.arg)] = ast.literal_eval(keyword.value)
    return values


def _metric_rows(module: str) -> list[tuple[str, str]]:
    rows = []
    for declared in metric_keywords(module):
        better = DIRECTIONS.get(str(declared.get("higher_is_better")), "")
        names = ", ".join(declared.get("names", (module.rpartition(".")[2],)))
        rows.append((names, f"{declared.get('summary') or summary(module)}{better}"))
    return rows


def _extractor_row(name: str) -> tuple[str, str]:
    if name not in shipped():
        return name, "a pretrained network; its weights are looked up when it is used"
    try:
        features = f"{card(name)['num_features']} features"
    except (ExtractorError, KeyError):
        features = "its card is damaged"
    return name, f"a classifier shipped with the package, {features}"


def _table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([f"{title}:", *(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)])


def _rooms(title: str, package: str, names: Sequence[str]) -> str:
    return _table(title, [(name, summary(f"{package}.{name}")) for name in names])


def _short(flops: float) -> str:
    return f"{flops:.0e}".replace("e+", "e")


def catalogue(*, metrics: bool) -> str:
    """Models, datasets and budgets, and the metrics and feature extractors if asked for, with one line each."""
    parts = [
        _rooms("models (--model)", "experiments.presets", model_names()),
        _rooms("datasets (--data)", "datamodules", dataset_names()),
    ]
    if metrics:
        modules = [*(f"evaluation.metrics.{name}" for name in metric_names()), *OTHER_METRICS]
        parts.append(_table("metrics", [row for module in modules for row in _metric_rows(module)]))
        first_stage = [row for name in pair_metric_names() for row in _metric_rows(f"evaluation.pairs.{name}")]
        parts.append(_table("metrics of first stages", first_stage))
        rows = [_extractor_row(name) for name in available()]
        parts.append(_table("feature extractors (--evaluation.features)", rows))
    budgets = [(name, f"{_short(value)} FLOPs, {text}") for name, (value, text) in BUDGETS.items()]
    return "\n\n".join([*parts, _table("budgets (--budget)", budgets)])


def commands(prog: str) -> str:
    """The commands with one line each, the single cell first."""
    modules = [command_module(name) for name in ("run", *command_names())]
    return _table("commands", [(f"{prog} {m.USAGE}", _lower(summary(m.__name__))) for m in modules])


def _lower(sentence: str) -> str:
    return (sentence[:1].lower() + sentence[1:]).rstrip(".")


def print_dotted_options(prog: str, **configs: Any) -> None:
    """Let tyro print the dotted options of some configurations with their types and defaults."""
    import tyro

    holder = make_dataclass("Options", [(name, type(config)) for name, config in configs.items()])
    try:
        tyro.cli(
            holder, prog=prog, default=holder(**configs), args=["--help"], use_underscores=True,
            config=(tyro.conf.FlagConversionOff,),
        )
    except SystemExit:
        return
