"""Several processes train one cell: the gradient of one process, its samples and bounds, and its resume.

Two real processes are started twice by torchrun: in the first run one of them is killed, in the second
both compare what they find together with what one finds alone (``together.py``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.module import StepDataModule
from evaluation.record import load_record
from experiments.cli_options import UsageError, resolve_cell
from experiments.config import TrainerConfig
from experiments.discovery import model_names
from experiments.launch import settled, shared, threads_per_process
from experiments.training import TrainingError, shared_plans
from models.base import own_rows, processes, rows_of_all
from tests.experiments import together
from tests.models.tiny import SMALL, assert_same_weights, tiny_data, tiny_model

ROOT = Path(__file__).resolve().parent.parent.parent


def torchrun(mode: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Two processes that share a batch."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = ["-m", "tests.experiments.together", mode, str(folder)]
    return subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which training by two processes was ended by the death of one."""
    folder = tmp_path_factory.mktemp("together")
    done = torchrun("dies", folder)
    assert done.returncode == 1 and "SIGKILL" in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(killed: Path) -> dict[str, Any]:
    """What two processes found out."""
    before = sorted(path.name for path in killed.glob("killed/checkpoints/1-prior/*.ckpt"))
    assert before == ["chunk-0002.ckpt", "chunk-0003.ckpt"], "a chunk is three steps, and step 13 was not made"
    done = torchrun("checks", killed)
    assert done.returncode == 0, done.stderr
    return torch.load(killed / "found.pt", weights_only=True)


@pytest.fixture(scope="module")
def gradients_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[torch.Tensor]]:
    """The gradients of the same batches in one process."""
    return together.all_gradients(tmp_path_factory.mktemp("alone"), TrainerConfig())


UPDATES = {"gan 0": 2, "dcgan 0": 2, "wgan_gp 0": SMALL["n_critic"] + 1}  # of an optimiser, in a step
STAGES = [f"{name} {i}" for name in model_names() for i in range(len(tiny_model(name).stages()))]


@pytest.mark.parametrize("stage", STAGES)
def test_the_gradient_is_that_of_one_process(
    stage: str, found: dict[str, Any], gradients_alone: dict[str, list[torch.Tensor]]
) -> None:
    steps = found["gradients"][stage]
    assert len(steps) == len(gradients_alone[stage]) == UPDATES.get(stage, 1)
    for shared_one, alone in zip(steps, gradients_alone[stage], strict=True):
        assert alone.norm() > 1e-2
        assert (shared_one - alone).norm() <= 1e-5 * alone.norm()


@pytest.mark.parametrize("name", model_names())
def test_samples_and_bounds_are_those_of_one_process(name: str, found: dict[str, Any]) -> None:
    assert found["answers"][name]


@pytest.mark.parametrize("name", model_names())
def test_flops_and_steps_are_those_of_one_process(name: str, found: dict[str, Any]) -> None:
    assert found["plans"][name]


def test_codes_of_the_frozen_stage_are_those_of_one_process(found: dict[str, Any]) -> None:
    assert found["codes"]


def test_a_codebook_of_averages_learns_from_the_encodings_of_all(found: dict[str, Any]) -> None:
    assert found["codebook"]


def test_a_learned_proposal_learns_from_the_losses_of_all(found: dict[str, Any]) -> None:
    assert found["proposal"]


@pytest.mark.parametrize("name", model_names())
def test_both_processes_end_with_the_same_weights(name: str, found: dict[str, Any]) -> None:
    assert found["replicas"][name] and found["disagreeing processes"] == 0


def test_a_killed_run_resumes_bit_by_bit(found: dict[str, Any]) -> None:
    assert_same_weights(found["resumed"], found["whole"][together.KILLED])


def test_rows_are_shared_in_order() -> None:
    columns = {"image": torch.arange(40)}

    def batches(rank: int, size: int) -> list[torch.Tensor]:
        data = StepDataModule(columns, batch_size=12, steps=5, chunk=5, seed=1, share=(rank, size))
        data.trainer = type("Clock", (), {"current_epoch": 0})()
        return [batch["index"] for batch in data.train_dataloader()]

    for size in (1, 2, 3):
        parts = zip(*(batches(rank, size) for rank in range(size)), strict=True)
        assert all(torch.equal(torch.cat(part), whole) for part, whole in zip(parts, batches(0, 1), strict=True))


def test_one_process_alone_has_every_row() -> None:
    assert processes() == (0, 1)
    assert own_rows(torch.arange, 4).tolist() == [0, 1, 2, 3]
    assert rows_of_all(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--trainer.devices 0", "trainer.devices must be from 1 to 1024, not 0"),
        ("--trainer.num_nodes 2000", "trainer.num_nodes must be from 1 to 1024, not 2000"),
        ("--trainer.devices many", "--trainer.devices must be a whole number, not 'many'"),
        ("--trainer.strategy dp", "trainer.strategy must be one of auto, ddp, not 'dp'"),
        ("--trainer.strategy fsdp", "shard them and their moving average apart; use ddp"),
        ("--trainer.devices 3", "the batch size 32 is that of all processes together and must be divisible by their "
         "number, 3"),
        ("--trainer.num_nodes 2", "needs the processes started on every node: srun with 2 tasks, or torchrun"),
        ("--trainer.device 2", "did you mean --trainer.devices?"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused_in_one_sentence(line: str, expected: str, tmp_path: Path) -> None:
    words = ["--model", "diffusion", "--out", str(tmp_path / "runs"), *line.split()]
    done = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and expected in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_what_torchrun_started_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = resolve_cell("diffusion", "digits", 1e9, 0, [])
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
                        "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert settled(TrainerConfig(), cell) == TrainerConfig(devices=2, num_nodes=2)
    with pytest.raises(UsageError, match=r"torchrun started 4 processes, but .* ask for 8"):
        settled(TrainerConfig(devices=8), cell)
    with pytest.raises(UsageError, match="run it without torchrun"):
        shared(TrainerConfig(), [cell])


def test_cores_are_shared_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_per_process(8, TrainerConfig(devices=n)) for n in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads_per_process(8, TrainerConfig(devices=2)) == 5


def test_a_stage_refuses_a_batch_that_cannot_be_shared() -> None:
    images, labels = tiny_data()
    with pytest.raises(TrainingError, match=r"the batch size 8 .* divisible by their number, 3"):
        shared_plans(lambda: tiny_model("gan"), {"image": images, "label": labels}, 1e9, TrainerConfig(devices=3))


def test_a_cell_is_made_by_two_processes_and_says_so(tmp_path: Path) -> None:
    words = (
        "--model vqvae --budget 1e9 --evaluation.num_samples 60 --evaluation.num_likelihood_images 8 "
        f"--evaluation.speed_repeats 1 --trainer.devices 2 --out {tmp_path}"
    ).split()
    done = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("autoencoder  100%") == 1 and "report: " in done.stdout
    (path,) = tmp_path.glob("vqvae/digits/*/seed=0/record.json")
    record = load_record(path)
    assert (record.provenance.processes, record.provenance.strategy) == (2, "ddp")
    assert record.provenance.hostname and "trainer" not in record.config
    cell = resolve_cell("vqvae", "digits", 1e9, 0, [])
    assert "trainer" not in cell.resolved()
