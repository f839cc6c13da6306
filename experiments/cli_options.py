"""From words on the command line to resolved cells; every refusal is one sentence.

Plain options (``--model gan``) go through argparse, dotted ones (``--model.width 32``) set one
field of a frozen dataclass, whose value tyro parses by the field's declared type. Nothing here
imports torch or touches the disk beyond looking.
"""

from __future__ import annotations

import argparse
import difflib
import io
import math
import os
import re
import typing
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from datamodules.base import DatasetInfo
from evaluation.features.catalog import available
from experiments.budgets import BUDGETS, budget_flops
from experiments.config import Cell, EvaluationConfig, TrainerConfig
from experiments.discovery import dataset_module, dataset_names, model_names, preset_module, unknown

DOTTED = ("--model.", "--data.", "--evaluation.", "--trainer.")
MAX_SEED = 2**32 - 1
MAX_NAME, MAX_PATH = 255, 4000  # bytes, below what file systems allow
MAX_SECONDS = 1000 * 86400.0


class UsageError(Exception):
    """What was asked for cannot be done; the message is one sentence for the user."""


class Parser(argparse.ArgumentParser):
    """argparse that raises ``UsageError`` instead of printing its usage and leaving."""

    def __init__(
        self, prog: str, description: str, *, epilog: str | None = None, add_help: bool = True
    ) -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, add_help=add_help, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))

    def parse_strictly(self, args: Sequence[str], dotted: Sequence[str] = ()) -> argparse.Namespace:
        """Parse; an option that does not exist is answered with the closest one that does."""
        if any(word == "--" or word.endswith("=--") for word in args):
            raise UsageError("'--' is neither an option nor a value")
        namespace, extras = self.parse_known_args(args)
        if extras:
            option = next((word for word in extras if word.startswith("-")), None)
            if option is None:
                raise UsageError(f"unexpected argument {extras[0]!r}; see python run.py --help")
            allowed = [name for name in self._option_string_actions if name.startswith("--")]
            name = option.partition("=")[0]
            raise UsageError(_unknown_option(name, allowed + list(dotted), show=sorted(allowed)))
        return namespace


def _closest_option(name: str, allowed: Sequence[str]) -> str | None:
    """The most similar option, by its last part too: --widht is near --model.width."""

    def similarity(one: str, other: str) -> float:
        return difflib.SequenceMatcher(None, one, other).ratio()

    def score(candidate: str) -> float:
        tails = (word.removeprefix("--").rpartition(".")[2] for word in (name, candidate))
        return similarity(name, candidate) + similarity(*tails)

    best = max(allowed, key=score, default=None)
    return best if best and score(best) > 1.3 else None


def _unknown_option(name: str, allowed: Sequence[str], show: Sequence[str]) -> str:
    close = _closest_option(name, allowed)
    hint = f" did you mean {close}?" if close else ""
    return f"unknown option {name};{hint} allowed: {', '.join(show) or 'none'}"


@dataclass(frozen=True)
class Override:
    """A dotted option as typed, with the words that followed it."""

    option: str
    values: tuple[str, ...]


def _is_option(word: str) -> bool:
    """True for ``--seed`` and ``-h``, False for values, negative numbers included."""
    return word.startswith("-") and not word[1:2].isdigit() and not word.startswith("-.")


def split_overrides(args: Sequence[str]) -> tuple[list[str], list[Override]]:
    """Part the dotted options from the others; both keep their order."""
    plain: list[str] = []
    overrides: list[Override] = []
    words = list(args)
    while words:
        word = words.pop(0)
        if not word.startswith(DOTTED):
            plain.append(word)
            continue
        option, equals, value = word.partition("=")
        values = [value] if equals else []
        while not equals and words and not _is_option(words[0]):
            values.append(words.pop(0))
        overrides.append(Override(option, tuple(values)))
    return plain, overrides


# Types of single values: the message after the option's name says what is allowed.


def whole_number(low: int, high: int) -> typing.Callable[[str], int]:
    """A parser of integers in [low, high]."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return parse


seed = whole_number(0, MAX_SEED)


def number(low: float, high: float, *, above: bool = False) -> typing.Callable[[str], float]:
    """A parser of numbers in [low, high], or in (low, high] if they must lie ``above``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value if above else low <= value) or not value <= high:
            least = f"above {low:g}" if above else f"from {low:g}"
            limits = f"{least} on" if math.isinf(high) else f"{least} to {high:g}"
            raise argparse.ArgumentTypeError(f"must be a number {limits}, not {text!r}")
        return value

    return parse


def seconds(text: str) -> float:
    """A duration: a number followed by s, m or h (seconds without)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    value = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not 0 < value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"must be a duration like 90s, 30m or 2h of at most 1000 days, not {text!r}")
    return value


def one_of(kind: str, allowed: list[str]) -> typing.Callable[[str], str]:
    """A parser of names."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise UsageError(unknown(kind, text, allowed))
        return text

    return parse


def model(text: str) -> str:
    """The name of a model."""
    return one_of("model", model_names())(text)


def dataset(text: str) -> str:
    """The name of a dataset."""
    return one_of("dataset", dataset_names())(text)


def flops(text: str) -> float:
    """A budget by name or in FLOPs."""
    try:
        return budget_flops(text)
    except ValueError as error:
        close = difflib.get_close_matches(text.lower(), BUDGETS, n=1)
        raise UsageError(f"{error}; did you mean {close[0]!r}?" if close else str(error)) from None


def default_budget(info: DatasetInfo) -> float:
    """Images below 16 pixels become recognisable with the small budget, larger ones need the medium one."""
    return budget_flops("small" if info.image_size < 16 else "medium")


def path(text: str) -> Path:
    """A file or folder that may be there or not; ``~`` is one's home."""
    if any(len(part.encode()) > MAX_NAME for part in text.split("/")):
        raise argparse.ArgumentTypeError(f"a name in {text[:40]!r}... is longer than {MAX_NAME} bytes")
    if len(text.encode()) > MAX_PATH:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}... is longer than {MAX_PATH} bytes")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"there is no user whose home is {text!r}") from None


def output_folder(text: str) -> Path:
    """A folder that exists or can be created."""
    folder = path(text)
    existing = next(above for above in (folder, *folder.absolute().parents) if os.path.exists(above))
    if not existing.is_dir():
        raise UsageError(f"--out {text!r} cannot be used: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"--out {text!r} cannot be used: {existing} is not writable")
    return folder


# Dotted options.


def option_names(config: Any, prefix: str) -> list[str]:
    """The dotted options that set the fields of a configuration."""
    return [f"{prefix}{field.name}" for field in fields(config)]


def _describe(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "one word"}
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if kind == tuple[str, ...]:
        return "one or more words"
    return words.get(kind) or f"a value of type {kind}"


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _numbers(item)


def _parse_value(override: Override, kind: Any) -> Any:
    """Let tyro read the words as a value of the declared type."""
    import tyro

    holder = make_dataclass("Holder", [("value", kind)])
    words = ["--value", *override.values]
    as_value = (tyro.conf.FlagConversionOff,)  # --model.flag True, not --model.no-flag
    silence = io.StringIO()
    try:
        if not override.values:
            raise SystemExit
        with redirect_stderr(silence), redirect_stdout(silence):
            parsed: Any = tyro.cli(holder, args=words, console_outputs=False, add_help=False, config=as_value)
    except SystemExit:
        given = repr(" ".join(override.values)) if override.values else "left empty"
        raise UsageError(f"{override.option} must be {_describe(kind)}, not {given}") from None
    if not all(map(math.isfinite, _numbers(parsed.value))):
        raise UsageError(f"{override.option} must be finite, not {' '.join(override.values)}")
    return parsed.value


def apply_overrides(config: Any, prefix: str, overrides: Sequence[Override]) -> Any:
    """A copy of a frozen configuration with the fields that the dotted options name.

    Raises:
        UsageError: An option that does not exist or is given twice, or a value out of range.
    """
    kinds = typing.get_type_hints(type(config))
    allowed = option_names(config, prefix)
    changes: dict[str, Any] = {}
    for override in overrides:
        if not override.option.startswith(prefix):
            continue
        option = override.option.replace("-", "_").replace("__", "--", 1)
        if option not in allowed:
            raise UsageError(_unknown_option(override.option, allowed, show=allowed))
        name = option.removeprefix(prefix)
        if name in changes:
            raise UsageError(f"{override.option} is given twice")
        changes[name] = _parse_value(override, kinds[name])
    try:
        return replace(config, **changes)
    except ValueError as error:
        raise UsageError(str(error)) from None


def model_preset(name: str, info: DatasetInfo) -> Any:
    """The configuration of a model that suits a dataset."""
    try:
        return preset_module(name).preset(info)
    except ValueError as error:
        raise UsageError(str(error)) from None


def evaluation_config(overrides: Sequence[Override]) -> EvaluationConfig:
    """The exam with its dotted options; feature extractors must exist."""
    config = apply_overrides(EvaluationConfig(), "--evaluation.", overrides)
    for name in config.features:
        one_of("feature extractor", available())(name)
        if config.features.count(name) > 1:
            raise UsageError(f"the feature extractor {name} is named twice")
    return config


def trainer_config(overrides: Sequence[Override]) -> TrainerConfig:
    """By how many processes a cell is trained."""
    return apply_overrides(TrainerConfig(), "--trainer.", overrides)


def resolve_cell(
    model_name: str, dataset_name: str, budget: float | None, seed_: int, overrides: Sequence[Override]
) -> Cell:
    """One cell with its whole configuration; ``budget`` None takes the dataset's default."""
    data = dataset_module(dataset_name)
    return Cell(
        model=model_name,
        dataset=dataset_name,
        budget=default_budget(data.INFO) if budget is None else budget,
        seed=seed_,
        model_config=apply_overrides(model_preset(model_name, data.INFO), "--model.", overrides),
        data_config=apply_overrides(data.Config(), "--data.", overrides),
        evaluation=evaluation_config(overrides),
    )
