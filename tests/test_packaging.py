"""What an installation gets: all packages and their data, at versions that were tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
DEPENDENCIES = (*PROJECT["project"]["dependencies"], *(line for extra in EXTRAS.values() for line in extra))
REQUIREMENTS = [Requirement(line) for line in DEPENDENCIES]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}


def test_every_package_is_declared() -> None:
    rooms = {name.partition(".")[0] for name in SETUPTOOLS["packages"]}
    files = [path for room in rooms for path in ROOT.glob(f"{room}/**/__init__.py")]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in files}
    assert found == set(SETUPTOOLS["packages"])


def test_data_files_are_declared() -> None:
    declared = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    suffixes = {".safetensors", ".json", ".j2", ".css"}
    files = [path for room in ("evaluation", "reports") for path in ROOT.glob(f"{room}/**/*")]
    assert {path for path in files if path.suffix in suffixes} <= declared


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_the_pinned_version_satisfies_the_lower_bound(requirement: Requirement) -> None:
    if requirement.name == "paragon-bench":
        return
    assert any(bound.operator == ">=" for bound in requirement.specifier)
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_constraints_are_exact_and_portable() -> None:
    pins = [line for line in LINES if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
