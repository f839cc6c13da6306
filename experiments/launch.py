"""Who starts the processes that train a cell together: torchrun, srun, or this file if nobody did.

A cell that needs several processes on one machine gets them from torch's own agent, which ends all
when one ends; each of them runs this file with the cell as a job. Imports no torch before it must.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evaluation.record import write_json
from experiments.cli_options import UsageError
from experiments.config import Cell, TrainerConfig
from experiments.jobs import Job, Outcome, Status, perform

GRACE_SECONDS = 10  # for the processes of a cell that is over, before they are killed
ROOT = Path(__file__).resolve().parent.parent


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else 0


def torchrun_processes() -> int:
    """How many processes torchrun started this one with; 0 if it did not."""
    return _number("WORLD_SIZE") if {"RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ) else 0


def srun_processes() -> int:
    """How many processes srun started this one with; 0 if it did not."""
    return _number("SLURM_NTASKS") if "SLURM_PROCID" in os.environ and "SLURM_LOCALID" in os.environ else 0


def launched(trainer: TrainerConfig) -> bool:
    """Whether this process is one of those that a cell is to be trained by."""
    return trainer.processes > 1 and trainer.processes in (torchrun_processes(), srun_processes())


def rank() -> int:
    """The number of this process among those started with it."""
    return _number("RANK") if torchrun_processes() else _number("SLURM_PROCID")


def settled(trainer: TrainerConfig, cell: Cell) -> TrainerConfig:
    """The processes there will be: those that torchrun has started, if none were asked for.

    Raises:
        UsageError: as many as asked for are not there and cannot be started, or they cannot share a batch.
    """
    there = torchrun_processes()
    if there > 1 and trainer.processes == 1:
        devices = _number("LOCAL_WORLD_SIZE") or there
        trainer = replace(trainer, devices=devices, num_nodes=there // devices)
    if there and there != trainer.processes:
        raise UsageError(
            f"torchrun started {there} processes, but --trainer.devices {trainer.devices} and --trainer.num_nodes "
            f"{trainer.num_nodes} ask for {trainer.processes}"
        )
    if trainer.num_nodes > 1 and not launched(trainer):
        raise UsageError(
            f"--trainer.num_nodes {trainer.num_nodes} needs the processes started on every node: srun with "
            f"{trainer.processes} tasks, or torchrun --nnodes {trainer.num_nodes} --nproc-per-node {trainer.devices} "
            "run.py ..."
        )
    reason = trainer.refusal(getattr(cell.model_config, "batch_size", 0))
    if reason:
        raise UsageError(reason)
    return trainer


def shared(trainer: TrainerConfig, cells: Sequence[Cell]) -> TrainerConfig:
    """The same for a grid, each of whose cells gets processes of its own.

    Raises:
        UsageError: this process was itself started by torchrun, or a cell cannot be trained so.
    """
    if torchrun_processes() > 1:
        raise UsageError("compare starts the processes of every cell itself: run it without torchrun")
    for cell in cells:
        settled(trainer, cell)
    return trainer


def threads_per_process(threads: int, trainer: TrainerConfig) -> int:
    """The share of a machine's ``threads`` that each of the processes on it gets; OMP_NUM_THREADS is heeded."""
    return _number("OMP_NUM_THREADS") or max(1, threads // trainer.devices)


def perform_together(job: Job) -> Outcome:
    """Do a job in as many processes of this machine as it asks for."""
    trainer = TrainerConfig(**job.trainer)
    problem = _devices_missing(trainer)
    if problem:
        return Outcome(Status.FAILED, f"{job.name}: {problem}")
    with tempfile.TemporaryDirectory(prefix="paragon-") as folder:
        path = Path(folder) / "outcome.json"
        end = _run_agent(replace(job, threads=threads_per_process(job.threads, trainer)), trainer, path)
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return Outcome(Status.FAILED, f"{job.name}: {end or 'its processes left no outcome'}")
    return Outcome(Status(content["status"]), content["message"])


def _devices_missing(trainer: TrainerConfig) -> str | None:
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else trainer.devices
    return f"trainer.devices is {trainer.devices}, but there are {there} GPUs" if there < trainer.devices else None


def _run_agent(job: Job, trainer: TrainerConfig, outcome: Path) -> str | None:
    """Run the processes to their end; why they ended if one of them died."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=trainer.devices, run_id=f"paragon-{os.getpid()}-{time.time_ns()}",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost", max_restarts=0,
        shutdown_timeout=GRACE_SECONDS,
    )
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP,
                                                              signal.SIGQUIT)}
    logging.disable(logging.CRITICAL)  # the agent's log says in many lines what the sentence says
    try:
        elastic_launch(config, sys.executable)("-m", "experiments.launch", job.to_json(), str(outcome))
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        how = failure.signal_name() if failure.exitcode < 0 else f"code {failure.exitcode}"
        return f"process {number} of {trainer.devices} was ended by {how}, which ended the others"
    except SignalException as error:
        raise (KeyboardInterrupt if error.sigval == signal.SIGINT else SystemExit(128 + error.sigval)) from None
    finally:
        logging.disable(logging.NOTSET)
        if threading.current_thread() is threading.main_thread():
            for sig, handler in before.items():
                signal.signal(sig, handler)
    return None


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def work(job: str, outcome: str) -> int:
    """The life of one of the processes: do the job together with the others; the first one leaves the outcome."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        found: Any = asdict(perform(Job.from_json(job)))
    except KeyboardInterrupt:
        return 130
    if rank() == 0:
        write_json(Path(outcome), found)
    return 0


if __name__ == "__main__":
    sys.exit(work(*sys.argv[1:]))
