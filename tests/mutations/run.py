"""Break one formula at a time in a copy of the program and ask the self-test.

``python -m tests.mutations.run`` copies the program into a temporary folder, sees the checks pass
there unbroken, then applies each mutation of the catalogue by itself and expects
``python run.py selftest --only ...`` to fail. Exit code 0 if every mutation was caught.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ("run.py", "pyproject.toml", "datamodules", "evaluation", "experiments", "models", "reports")
TIMEOUT = 300


@dataclass(frozen=True)
class Verdict:
    """What became of a mutation: the checks that failed, in the self-test's words; empty if it survived."""

    mutation: Mutation
    caught: bool
    failed: tuple[str, ...]
    seconds: float


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the program in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        for part in PROGRAM:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / part)
        yield folder


def selftest(folder: Path, names: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """``python run.py selftest --only NAMES`` in a folder; a mutant that never ends is stopped."""
    command = [sys.executable, "run.py", "selftest", "--only", *names]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PARAGON_CACHE": str(folder / "cache")}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def mutated(mutation: Mutation, text: str) -> str:
    """The file's text with the formula broken; ``ValueError`` unless it stands there exactly once."""
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file} holds {text.count(mutation.old)} times {mutation.old!r}, not once")
    return text.replace(mutation.old, mutation.new)


def judge(mutation: Mutation) -> Verdict:
    """Apply a mutation to a fresh copy and run the checks that should notice."""
    start = time.perf_counter()
    with copied() as folder:
        path = folder / mutation.file
        path.write_text(mutated(mutation, path.read_text(encoding="utf-8")), encoding="utf-8")
        try:
            run = selftest(folder, mutation.checks)
        except subprocess.TimeoutExpired:
            return Verdict(mutation, True, ("the checks did not end",), time.perf_counter() - start)
    if run.returncode not in (0, 1):
        raise RuntimeError(f"{mutation.file}: the self-test could not run: {run.stderr.strip()[-300:]}")
    failed = tuple(line.removeprefix("FAILED ") for line in run.stdout.splitlines() if line.startswith("FAILED "))
    return Verdict(mutation, run.returncode == 1, failed, time.perf_counter() - start)


def unbroken(mutations: Sequence[Mutation]) -> str | None:
    """None if all the checks pass without a mutation, else what they print."""
    names = sorted({name for mutation in mutations for name in mutation.checks})
    with copied() as folder:
        run = selftest(folder, names)
    return None if run.returncode == 0 else run.stdout + run.stderr


def main(argv: Sequence[str] | None = None) -> int:
    """Judge the whole catalogue, or the mutations of the files named."""
    parser = argparse.ArgumentParser("python -m tests.mutations.run")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at the same time (default: 1)")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="mutations whose file holds one of these words")
    args = parser.parse_args(argv)
    chosen = [m for m in MUTATIONS if not args.only or any(word in m.file for word in args.only)]
    if not chosen:
        parser.error("no mutation is in such a file")
    for mutation in chosen:  # one that does not fit is known at once
        mutated(mutation, (ROOT / mutation.file).read_text(encoding="utf-8"))
    if (text := unbroken(chosen)) is not None:
        print(f"the checks fail without any mutation:\n{text}", file=sys.stderr)
        return 1
    verdicts = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for verdict in pool.map(judge, chosen):
            verdicts.append(verdict)
            word = "caught" if verdict.caught else "SURVIVED"
            print(f"{word:<9} {verdict.seconds:4.0f} s  {verdict.mutation.file}: {verdict.mutation.what}", flush=True)
            for line in verdict.failed[:1]:
                print(f"{'':18}{line[:150]}", flush=True)
    caught = sum(v.caught for v in verdicts)
    print(f"{caught} of {len(verdicts)} mutations caught in {sum(v.seconds for v in verdicts):.0f} s")
    return int(caught < len(verdicts))


if __name__ == "__main__":
    sys.exit(main())
