"""Who may import whom, and how large things may get: read from the syntax trees, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("datamodules", "evaluation", "experiments", "models", "reports")
HEAVY = ("torch", "torchvision", "pytorch_lightning", "torchmetrics")

# What the files of a room must never import, anywhere in the file ...
FORBIDDEN = {
    "models": ("datamodules", "evaluation", "experiments", "reports"),
    "datamodules": ("models", "evaluation", "experiments", "reports"),
    "evaluation": ("models", "experiments", "reports"),
    "reports": (*HEAVY, "models", "datamodules", "experiments", "evaluation"),
    "experiments/presets": (*HEAVY, "models", "evaluation", "experiments", "reports"),
}
# ... with the contracts through which rooms see each other ...
ALLOWED = {
    "evaluation": ("models.base", "models.flops", "models.latents"),
    "reports": ("evaluation.curves", "evaluation.files", "evaluation.record", "evaluation.seal"),
    "experiments/presets": ("experiments.presets.base",),
}
# ... and the files that must not import torch when they are imported themselves.
LIGHT = (
    "run.py", "datamodules/*.py", "experiments/presets/*.py", "models/__init__.py",
    "evaluation/atomic.py", "evaluation/files.py",
    "evaluation/curves.py", "evaluation/record.py", "evaluation/seal.py", "evaluation/metrics/base.py",
    "experiments/cell_files.py",
    "experiments/cli.py", "experiments/commands/*.py", "experiments/cli_options.py",
    "experiments/cli_text.py", "experiments/cli_run.py",
    "experiments/launch.py", "experiments/config.py", "experiments/sample_request.py", "experiments/given_images.py",
    "experiments/budgets.py", "experiments/discovery.py", "experiments/locks.py",
    "experiments/grid.py", "experiments/jobs.py", "experiments/engines/*.py", "experiments/plan.py",
    "experiments/status.py",
    "experiments/calibration.py", "experiments/freshness.py", "evaluation/machine.py",
    "experiments/external.py", "experiments/cli_evaluate.py", "experiments/selftest/stamp.py",
    "evaluation/features/catalog.py", "evaluation/features/weights.py",
)  # fmt: skip

MAX_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_INIT_ARGUMENTS = 12
MAX_MODEL_ARGUMENTS = 20  # a model takes its whole flat configuration

Function = ast.FunctionDef | ast.AsyncFunctionDef


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that is imported; ``from a import b`` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """What importing the file imports: everything outside functions."""
    for node in tree.body:
        if not isinstance(node, Function):
            yield from imported(node)


def within(name: str, packages: tuple[str, ...]) -> bool:
    """True if a dotted name is one of the packages or lies inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def forbidden(room: str, tree: ast.AST) -> list[str]:
    """Imports that a room must not have."""
    return [n for n in imported(tree) if within(n, FORBIDDEN[room]) and not within(n, ALLOWED.get(room, ()))]


def functions(tree: ast.AST) -> Iterator[Function]:
    """All functions and methods."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def num_arguments(function: Function) -> int:
    """Number of arguments without self."""
    a = function.args
    return len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs) - 1


def sources(*patterns: str) -> list[Path]:
    """Files of the repository, by glob."""
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    """A file's name in test reports."""
    return str(path.relative_to(ROOT))


PROGRAM = sources("run.py", *(f"{room}/**/*.py" for room in ROOMS))
EVERYTHING = [*PROGRAM, *sources("tests/**/*.py")]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_import_in_one_direction(room: str) -> None:
    files = sources(f"{room}/**/*.py")
    assert files
    wrong = {name_of(path): names for path in files if (names := forbidden(room, parse(path)))}
    assert wrong == {}


@pytest.mark.parametrize("pattern", LIGHT)
def test_light_files_do_not_import_torch(pattern: str) -> None:
    files = [path for path in sources(pattern) if name_of(path) != "datamodules/module.py"]
    assert files
    heavy = {name_of(p): n for p in files for n in imported_at_once(parse(p)) if within(n, HEAVY)}
    assert heavy == {}


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_sizes(path: Path) -> None:
    tree = parse(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions(tree)}
    inits = [num_arguments(f) for f in functions(tree) if f.name == "__init__"]
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}
    is_model = path.is_relative_to(ROOT / "models") and "save_hyperparameters()" in path.read_text(encoding="utf-8")
    assert max(inits, default=0) <= (MAX_MODEL_ARGUMENTS if is_model else MAX_INIT_ARGUMENTS)


@pytest.mark.parametrize("path", PROGRAM, ids=name_of)
def test_every_file_says_what_it_is(path: Path) -> None:
    tree = parse(path)
    assert not tree.body or ast.get_docstring(tree)


@pytest.mark.parametrize(
    ("room", "source", "names"),
    [
        ("models", "import evaluation.record", ["evaluation.record"]),
        ("models", "def f():\n    from datamodules import digits", ["datamodules.digits"]),
        ("evaluation", "from models import load", ["models.load"]),
        ("evaluation", "from models.base import GenerativeModel", []),
        ("evaluation", "from models.vqvae.model import VQVAE", ["models.vqvae.model.VQVAE"]),
        ("reports", "from evaluation.record import Record", []),
        ("reports", "import torch.nn as nn", ["torch.nn"]),
        ("reports", "import torchiness", []),
    ],
)
def test_the_rules_themselves(room: str, source: str, names: list[str]) -> None:
    assert forbidden(room, ast.parse(source)) == names


def test_lazy_imports_are_not_immediate() -> None:
    tree = ast.parse("import os\nclass A:\n    import torch\ndef f():\n    import pandas")
    assert list(imported_at_once(tree)) == ["os", "torch"]


def test_self_does_not_count_as_an_argument() -> None:
    tree = ast.parse("class A:\n    def __init__(self, a, b, *, c): ...")
    assert [num_arguments(f) for f in functions(tree)] == [3]
