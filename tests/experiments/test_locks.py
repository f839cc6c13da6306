"""The lock of a cell, between real processes that are really killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.locks import HOLDER_FILE, LockedError, cell_lock

# Waits for the starting signal (a file), tries the lock, says how it went and holds it until its input ends.
CONTENDER = """
import sys, time
from pathlib import Path
from experiments.locks import LockedError, cell_lock
folder, go = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
try:
    with cell_lock(folder):
        print("held", flush=True)
        sys.stdin.read()
except LockedError as error:
    print(error, flush=True)
"""

Contender = subprocess.Popen[str]


def contender(folder: Path, go: Path, root: Path) -> Contender:
    """A process that is ready to try for the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", CONTENDER, str(folder), str(go)], cwd=root, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert answer(process) == "ready"
    return process


def answer(process: Contender) -> str:
    """The next line a contender prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def holder(tmp_path: Path, root: Path) -> Iterator[Contender]:
    """Another process that holds the lock of ``tmp_path / "cell"``."""
    (tmp_path / "go").touch()
    process = contender(tmp_path / "cell", tmp_path / "go", root)
    assert answer(process) == "held"
    yield process
    process.kill()
    process.wait()


def test_a_living_holder_is_named(holder: Contender, tmp_path: Path) -> None:
    with pytest.raises(LockedError, match=f"is being worked on by process {holder.pid} on ") as caught, \
            cell_lock(tmp_path / "cell"):
        pass
    assert "\n" not in str(caught.value)


def test_a_killed_holder_is_succeeded(holder: Contender, tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    left = json.loads((tmp_path / "cell" / HOLDER_FILE).read_text())
    assert left["pid"] == holder.pid
    with cell_lock(tmp_path / "cell"):
        assert json.loads((tmp_path / "cell" / HOLDER_FILE).read_text())["pid"] == os.getpid()


def test_a_stopped_holder_still_holds(holder: Contender, tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGSTOP)
    with pytest.raises(LockedError), cell_lock(tmp_path / "cell"):
        pass
    os.kill(holder.pid, signal.SIGCONT)


def test_an_unreadable_signature_does_not_open_the_lock(holder: Contender, tmp_path: Path) -> None:
    (tmp_path / "cell" / HOLDER_FILE).write_text('{"pid": ')
    with pytest.raises(LockedError, match="another process"), cell_lock(tmp_path / "cell"):
        pass


def test_one_of_many_succeeds_a_dead_holder(holder: Contender, tmp_path: Path, root: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    go = tmp_path / "again"
    contenders = [contender(tmp_path / "cell", go, root) for _ in range(6)]
    go.touch()
    answers = [answer(process) for process in contenders]
    for process in contenders:
        process.communicate("")  # ends the input, and with it the winner
    assert answers.count("held") == 1
    refused = [text for text in answers if text != "held"]
    assert len(refused) == 5 and all("is being worked on by" in text for text in refused)


def test_one_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    own = f"process {os.getpid()} "
    with cell_lock(tmp_path), pytest.raises(LockedError, match=own), cell_lock(tmp_path):
        pass


def test_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), cell_lock(tmp_path / "new" / "cell"):
        raise RuntimeError("inside")
    assert not (tmp_path / "new" / "cell" / HOLDER_FILE).exists()
    with cell_lock(tmp_path / "new" / "cell"):
        pass


def test_different_cells_do_not_meet(holder: Contender, tmp_path: Path) -> None:
    started = time.monotonic()
    with cell_lock(tmp_path / "other"):
        pass
    assert time.monotonic() - started < 5


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    for name in (".record.json.0a1b2c3d.tmp", "checkpoints/0-train/.chunk-0001.ckpt.4e5f6a7b.tmp", "notes.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    with cell_lock(tmp_path):
        assert [path.name for path in tmp_path.rglob("*.tmp")] == ["notes.tmp"]
