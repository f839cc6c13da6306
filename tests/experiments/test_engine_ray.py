"""Grids on Ray: a cluster started for the occasion, and one of two nodes of which one is killed."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from evaluation.seal import read_seal
from experiments.cell_files import CellState, faults, state
from experiments.cli import main
from experiments.discovery import model_names
from tests.experiments.grids import finish, folder_of, result, start, tiny_cell

SEEDS = ["0", "1"]  # of every model: twelve cells and more
BEGUN = re.compile(r"^(\w+) on digits, seed (\d+): /", re.MULTILINE)
TOLD = re.compile(r"^(\d+) of (\d+)  (\w+ on digits, seed \d+): (\w+)$", re.MULTILINE)


def sealed(folder: Path) -> dict[str, str]:
    """The checksums of a finished cell's weights and samples."""
    found = read_seal(folder)
    assert found is not None
    return {name: found.files[name] for name in ("checkpoints/model.ckpt", "samples.npz")}


def stamps(folder: Path) -> list[tuple[int, int]]:
    """What changes if a finished cell's record or marker is written again."""
    return [(found.st_ino, found.st_mtime_ns) for found in (os.stat(folder / name) for name in ("record.json", "done"))]


def assert_same_results(cells: list[Any], one: Path, other: Path) -> None:
    """Records are equal but for time and place, weights and samples bit by bit."""
    for cell in cells:
        assert result(folder_of(cell, one)) == result(folder_of(cell, other))
        assert sealed(folder_of(cell, one)) == sealed(folder_of(cell, other))


def refusal(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one sentence with which a comparison is refused."""
    assert main(["compare", "--models", "gan", "--engine", "ray", *args]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and len(shown.err.splitlines()) == 1 and shown.out == ""
    return shown.err


def test_a_missing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # what Python has there for a module that cannot be imported
    said = refusal(capsys, "--out", str(tmp_path / "out"))
    assert said == "error: --engine ray needs Ray: pip install 'paragon-bench[ray]'\n"
    assert list(tmp_path.iterdir()) == []


def test_an_address_at_which_there_is_no_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert "must be auto or host:port, not 'ray://head'" in refusal(capsys, *out, "--address", "ray://head")
    with socket.socket() as taken:  # bound, so that nobody else listens, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"no Ray cluster answers at --address {address}: " in refusal(capsys, *out, "--address", address)
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_of_its_own(tmp_path: Path) -> None:
    """Both cells of the grid are what this process would have made of them, and nothing is left of Ray."""
    before = set(Path("/tmp").glob("paragon-ray-*"))
    code, shown, errors = finish(tmp_path / "ray", "--seeds", "0", "1", "--engine", "ray")
    assert (code, errors) == (0, "")
    told = TOLD.findall(shown)
    assert [number for number, *_ in told] == ["1", "2"]
    assert {(name, end) for *_, name, end in told} == {(f"gan on digits, seed {seed}", "done") for seed in (0, 1)}
    assert set(Path("/tmp").glob("paragon-ray-*")) <= before
    assert finish(tmp_path / "local", "--seeds", "0", "1")[0] == 0
    assert_same_results([tiny_cell("gan", 0), tiny_cell("gan", 1)], tmp_path / "ray", tmp_path / "local")


def test_more_than_any_node_has(tmp_path: Path, root: Path) -> None:
    import subprocess

    command = [sys.executable, "run.py", "compare", "--models", "gan", "--engine", "ray", "--num-cpus", "4000"]
    ended = subprocess.run([*command, "--out", str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("error: no node of the Ray cluster has the 4000 CPUs and 0 GPUs that a cell asks")


class Nodes:
    """A cluster of two machines, as far as Ray can tell: each has one core and its own processes."""

    def __init__(self, folder: str) -> None:
        from ray.cluster_utils import Cluster

        self.folder = Path(folder)
        self.folder.mkdir()
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self.second = self.cluster.add_node(num_cpus=1)
        self.address = self.cluster.address

    def _raylet(self) -> psutil.Process:
        return psutil.Process(self.second.all_processes["raylet"][0].process.pid)

    def cell_of_second(self, folders: list[Path]) -> Path | None:
        """A cell that the second machine is in the middle of."""
        workers = {worker.pid for worker in self._raylet().children(recursive=True)}
        for folder in folders:
            try:
                holder = json.loads((folder / "lock.json").read_text())["pid"]
            except (OSError, ValueError):
                continue
            if holder in workers and (folder / "config.json").exists() and not (folder / "record.json").exists():
                return folder
        return None

    def kill_second(self) -> None:
        """Everything that runs on the second machine is gone at once."""
        raylet = self._raylet()
        everything = [raylet, *raylet.children(recursive=True)]
        for process in everything:
            process.send_signal(signal.SIGKILL)
        self.cluster.remove_node(self.second, allow_graceful=False)

    def begun(self) -> Counter[tuple[str, str]]:
        """How often each cell was begun, by the workers' own output."""
        logs = self.folder.glob("session_latest/logs/worker-*.out")
        return Counter(found for log in logs for found in BEGUN.findall(log.read_text()))


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory(prefix="paragon-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)  # not where the other clusters of this machine have theirs
        found = Nodes(f"{folder}/ray")
        yield found
        found.cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_that_dies_takes_no_cell_with_it(nodes: Nodes, tmp_path: Path) -> None:
    """Half-way through a grid one of two nodes is killed: each is finished once, as if nothing had been."""
    args = ["--models", *model_names(), "--seeds", *SEEDS]
    cells = [tiny_cell(model, int(seed)) for seed in SEEDS for model in model_names()]
    out, alone = tmp_path / "ray", tmp_path / "local"
    folders = [folder_of(cell, out) for cell in cells]
    grid = start(out, *args, "--engine", "ray", "--address", nodes.address)
    deadline = time.monotonic() + 200
    victim: Path | None = None
    while victim is None:
        assert grid.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
        if sum((folder / "done").exists() for folder in folders) >= 5:
            victim = nodes.cell_of_second(folders)
    nodes.kill_second()
    assert not (victim / "done").exists()
    finished = {folder: stamps(folder) for folder in folders if (folder / "done").exists()}
    shown, errors = grid.communicate(timeout=200)
    assert (grid.returncode, errors) == (0, "")
    assert [state(folder) for folder in folders] == [CellState.DONE] * len(cells)
    assert [fault for folder in folders for fault in faults(folder)] == []
    # Each is told of once and was begun once, but for the one that the dead node was at ...
    assert {(name, end) for *_, name, end in TOLD.findall(shown)} == {
        (f"{cell.model} on digits, seed {cell.seed}", "done") for cell in cells
    }
    assert len(TOLD.findall(shown)) == len(cells)
    begun = {folder_of(tiny_cell(model, int(seed)), out): n for (model, seed), n in nodes.begun().items()}
    assert begun == {folder: 2 if folder == victim else 1 for folder in folders}
    # ... what was finished before stayed as it was, and all is as one process after the other makes it.
    assert {folder: stamps(folder) for folder in finished} == finished
    assert finish(alone, *args)[0] == 0
    assert_same_results(cells, out, alone)
