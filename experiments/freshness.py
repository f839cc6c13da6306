"""Whether the report of a folder still is what its records would give, without reading them.

A digest over names, sizes and times of every file a report reads, and over the code that writes it,
is kept beside the report. It only saves work: ``report`` always writes anew, ``verify`` recomputes.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from itertools import chain
from pathlib import Path

from evaluation.record import FAILURE_FILE, RECORD_FILE, write_atomic
from evaluation.seal import DONE_FILE

FILE = ".inputs"
CODE = Path(__file__).resolve().parent.parent
OUTPUTS = ("index.html", "table.md", "table.tex", "results.csv", "results.parquet")
READ = (RECORD_FILE, FAILURE_FILE, DONE_FILE, "samples.npz", "metrics.csv", "trajectory.png")


@lru_cache(maxsize=1)
def _code_sha256() -> str:
    digest = hashlib.sha256()
    for path in sorted(chain((CODE / "reports").rglob("*.*"), (CODE / "evaluation").glob("*.py"))):
        if path.suffix != ".pyc" and path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def inputs_digest(out: Path) -> str:
    """SHA-256 over what a report of ``out`` would be made from."""
    files = chain(
        (folder / name for folder in sorted(out.glob("*/*/*/seed=*")) for name in READ),
        sorted(out.glob("controls/*/*/*")), [out / "selftest.json"],
    )
    digest = hashlib.sha256(_code_sha256().encode())
    for path in files:
        try:
            found = path.stat()
        except OSError:
            continue
        digest.update(f"{path.relative_to(out)} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_current(out: Path, digest: str) -> bool:
    """Whether the whole report is there and was made from inputs of this digest."""
    folder = out / "report"
    try:
        return (folder / FILE).read_text() == digest and all((folder / name).exists() for name in OUTPUTS)
    except (OSError, ValueError):
        return False


def remember(out: Path, digest: str) -> None:
    """Note what a report was made from; ``digest`` was taken before it was made."""
    write_atomic(out / "report" / FILE, digest.encode())
