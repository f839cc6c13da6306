"""The self-test's result as a file, and its copy beside reports made by the same code.

The result is kept in the user's cache too: a report in another folder shows it as long as the
code it vouches for has not changed. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from evaluation.features.weights import cache_folder
from evaluation.files import FileError, read_json
from evaluation.record import write_json

FILE = "selftest.json"
VERSION = 1
ROOT = Path(__file__).resolve().parents[2]
CODE = ("datamodules", "evaluation", "experiments/selftest", "models")


def code_sha256(root: Path = ROOT) -> str:
    """SHA-256 over names and contents of the Python files that the checks vouch for."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (root / folder).rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def cached_file() -> Path:
    """Where the latest result of this user is kept."""
    return cache_folder() / FILE


def store(result: dict[str, Any], out: Path) -> None:
    """Write ``<out>/selftest.json`` and, where the cache can be written to, its copy there."""
    write_json(out / FILE, result)
    with contextlib.suppress(OSError):  # the copy only saves another run in another folder
        write_json(cached_file(), result)


def stamp(out: Path) -> None:
    """Give a folder of runs the latest result of this very code, unless it holds a newer one."""
    latest = _read(cached_file())
    if latest is None or latest["code_sha256"] != code_sha256():
        return
    present = _read(out / FILE)
    if present is None or present["date"] < latest["date"]:
        write_json(out / FILE, latest)


def _read(path: Path) -> dict[str, Any] | None:
    """A result, None where there is none that can be read."""
    try:
        content = read_json(path)
    except FileError:
        return None
    sound = isinstance(content, dict) and all(isinstance(content.get(k), str) for k in ("date", "code_sha256"))
    return content if sound else None
