"""Cells as tasks of a Ray cluster: the one at --address, else one on this machine for as long as it takes.

A task whose worker or machine dies is started again on another and resumes the cell, whose lock the
kernel has freed. Nothing but short texts goes through Ray; the cells' files go to the output folder,
which all machines share, as they share the path of the code. A worker keeps its imports from cell to
cell. A cluster runs whatever it is told by whoever reaches its ports: one started here wants a
token that nobody else has; the README shows how to start others with one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from experiments.cli_options import UsageError
from experiments.engines.base import ROOT, announced, read_outcome, require, without_outcome
from experiments.jobs import GridOptions, Job, Outcome, perform

CONNECT_SECONDS = 10
OBJECT_STORE_BYTES = 100 * 2**20  # near the least that Ray takes
ENVIRONMENT = ("PARAGON_CACHE", "PARAGON_WEIGHTS")  # go along to the workers if they are set


def check(options: GridOptions) -> None:
    """Refuse, before anything is written, what cannot work.

    Raises:
        UsageError: Ray is not there, or the address is none, or nobody answers at it.
    """
    require("ray", "ray", "Ray")
    if options.address in (None, "auto"):
        return
    found = re.fullmatch(r"([^\s/]+):(\d{1,5})", options.address or "")
    if not found:
        raise UsageError(f"--address must be auto or host:port, not {options.address!r}")
    try:  # Ray itself would try for half a minute
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"no Ray cluster answers at --address {options.address}: {error}") from None


def run(jobs: Sequence[Job], options: GridOptions) -> Iterator[tuple[Job, Outcome]]:
    """Every job with its outcome, as they end."""
    check(options)
    with _cluster(options) as ray:
        _refuse_infeasible(ray, options)
        yield from announced(_outcomes(ray, jobs, options), len(jobs))


@contextlib.contextmanager
def _cluster(options: GridOptions) -> Iterator[Any]:
    """A connection to the cluster at the address, or to a new one; what was started is stopped."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # the progress of two cells is no repetition
    import ray

    # Ray's sockets lie in this folder, and their paths may have 107 characters at most.
    short = "/tmp" if os.path.isdir("/tmp") else None
    with tempfile.TemporaryDirectory(prefix="paragon-ray-", dir=short, ignore_cleanup_errors=True) as folder:
        try:
            with _own_signals():
                _connect(ray, options, os.path.join(folder, "ray"))  # which Ray opens to all, but not its parent
            yield ray
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray would have SIGTERM end the program in its own way."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    yield
    if main:
        signal.signal(signal.SIGTERM, before)


def _connect(ray: Any, options: GridOptions, folder: str) -> None:
    # What workers print is shown on a terminal only: Ray colours it whatever it is written to.
    address, quiet = options.address, {"logging_level": "error", "log_to_driver": sys.stdout.isatty()}
    if address is None and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray leaves one in the home folder
    try:
        if address is not None:
            ray.init(address=address, **quiet)
            return
        ray.init(
            address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, _temp_dir=folder,
            _system_config={"task_oom_retries": options.retries}, **quiet,
        )
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = "Ray cannot be started" if address is None else f"no Ray cluster can be used at --address {address}"
        raise UsageError(f"{what}: {reason}") from None


def _refuse_infeasible(ray: Any, options: GridOptions) -> None:
    """Ray would wait for ever for a node that has what no node has."""
    nodes = {(int(r.get("CPU", 0)), int(r.get("GPU", 0))) for r in (n["Resources"] for n in ray.nodes() if n["Alive"])}
    if not any(cpus >= options.num_cpus and gpus >= options.num_gpus for cpus, gpus in nodes):
        there = ", ".join(f"{cpus} and {gpus}" for cpus, gpus in sorted(nodes))
        raise UsageError(f"no node of the Ray cluster has the {options.num_cpus} CPUs and {options.num_gpus} GPUs "
                         f"that a cell asks for (--num-cpus, --num-gpus); the nodes have {there}")


def _outcomes(ray: Any, jobs: Sequence[Job], options: GridOptions) -> Iterator[tuple[Job, Outcome]]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ} | {"PYTHONPATH": path}
    task = ray.remote(
        num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_retries=options.retries,
        runtime_env={"env_vars": variables},
    )(_work)
    left = {task.options(name=job.name).remote(job.to_json(), os.getcwd()): job for job in jobs}
    try:
        while left:
            (ended, *_), _ = ray.wait(list(left), num_returns=1)
            yield left[ended], _outcome(ray, ended, left.pop(ended), options.retries)
    finally:  # Ctrl-C: whatever the cells were doing, they can be resumed
        for task_left in left:
            ray.cancel(task_left, force=True)


def _outcome(ray: Any, ended: Any, job: Job, retries: int) -> Outcome:
    try:
        return read_outcome(ray.get(ended))
    except ray.exceptions.RayTaskError as error:  # not of the cell: say, the code is not there
        return without_outcome(job, f"its Ray task failed: {str(error.cause).splitlines()[0]}")
    except ray.exceptions.OutOfMemoryError:
        return without_outcome(job, f"its Ray worker ran out of memory (--retries {retries})")
    except ray.exceptions.RayError as error:
        return without_outcome(job, f"its Ray worker was lost: {type(error).__name__} (--retries {retries})")


def _work(job: str, folder: str) -> str:
    """The task, on a worker: relative paths mean there what they mean here."""
    with contextlib.suppress(OSError):
        os.chdir(folder)
    from evaluation.speed import forget_peak_memory

    forget_peak_memory()
    return json.dumps(asdict(perform(Job.from_json(job))))
