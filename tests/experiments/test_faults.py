"""A machine that lets one down: no disk, no memory, a folder that cannot be written to."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from evaluation.record import load_failure
from experiments.cell_files import CellState, faults, state
from tests.experiments.grids import ROOT, finish, folder_of, tiny_cell

GRID = [sys.executable, "-m", "tests.experiments.grids"]


def shell(script: str, *, mounts: bool = False) -> subprocess.CompletedProcess[str]:
    """A shell's output; with ``mounts`` it may mount what nobody else sees and what is gone when it ends."""
    own = (["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]) if mounts else []
    return subprocess.run([*own, "sh", "-ec", script], cwd=ROOT, text=True, capture_output=True, timeout=280)


def sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr.splitlines()


def test_a_full_disk(tmp_path: Path) -> None:
    """A finished cell stays whole, those that find no room say so, and go on when there is room again."""
    assert finish(tmp_path / "before")[0] == 0
    args = shlex.join([*GRID, f"{tmp_path}/disk/runs", "--seeds", "0", "1", "2"])
    run = shlex.join([sys.executable, "run.py", "report", f"{tmp_path}/disk/runs"])
    done = shell(
        f"mkdir {tmp_path}/disk; mount -t tmpfs -o size=40m tmpfs {tmp_path}/disk\n"
        f"cp -r {tmp_path}/before {tmp_path}/disk/runs\n"
        f"dd if=/dev/zero of={tmp_path}/disk/filler bs=4k status=none || true\n"
        f"{args} || echo code $?\n{run} || echo report $?\n"
        f"rm {tmp_path}/disk/filler; {args} || echo code $?; cp -r {tmp_path}/disk/runs {tmp_path}/after",
        mounts=True,
    )
    told = [line for line in sentences(done) if not line.startswith("dd:")]
    assert len(told) == 3 and "could not be written: No space left on device" in told[2]
    for seed, line in zip((1, 2), told, strict=False):
        assert line.startswith(f"error: gan on digits, seed {seed}: No space left on device")
    assert "code 1\n" in done.stdout and "report 1\n" in done.stdout and done.stdout.count("code") == 1
    folders = [folder_of(tiny_cell("gan", seed), tmp_path / "after") for seed in range(3)]
    assert [state(folder) for folder in folders] == [CellState.DONE] * 3
    assert [fault for folder in folders for fault in faults(folder)] == []
    assert not list((tmp_path / "after").rglob("*.tmp"))


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    command = [sys.executable, "run.py", "compare", "--models", "gan", "--out", f"{tmp_path}/disk/runs"]
    done = shell(
        f"mkdir {tmp_path}/disk; mount -t tmpfs -o ro tmpfs {tmp_path}/disk\n"
        f"{shlex.join(command)} || echo code $?\n{shlex.join([*GRID, f'{tmp_path}/disk'])} || echo code $?",
        mounts=True,
    )
    refused, failed = sentences(done)
    assert refused.startswith("error: --out ") and refused.endswith("is not writable")
    assert failed.startswith("error: gan on digits, seed 0: Read-only file system")
    assert done.stdout == "code 2\ncode 1\n"


def test_memory_that_is_not_there(tmp_path: Path) -> None:
    """The batch of one cell needs more address space than there is; the others are done."""
    run = shlex.join([*GRID, str(tmp_path), "--models", "diffusion", "--seeds", "0", "1", "2"])
    done = shell(f"ulimit -v 9000000; {run} --large 1 || echo code $?")
    (line,) = sentences(done)
    assert line.startswith("error: diffusion on digits, seed 1: out of memory (") and "code 1\n" in done.stdout
    cells = [tiny_cell("diffusion", seed) for seed in (0, 2)]
    assert [state(folder_of(cell, tmp_path)) for cell in cells] == [CellState.DONE] * 2
    large = folder_of(tiny_cell("diffusion", 1, width=65536), tmp_path)
    assert "error: " + load_failure(large / "failure.json").message == line
