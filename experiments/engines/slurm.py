"""Cells as an array of Slurm jobs, through submitit; without sbatch, through its processes on this machine.

A job that is preempted, or whose time is up, is queued again and resumes its cell; one that dies is
submitted again. What became of a cell is read from a text file that its job leaves: the pickles are
those with which submitit starts its own jobs, in a folder that only the user may enter, and they go
when the grid is over. Partition, account, time and memory are what sbatch reads from its own variables
(SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT, SBATCH_MEM_PER_CPU ...).
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from evaluation.record import write_json
from experiments.cli_options import UsageError
from experiments.engines.base import ROOT, announced, read_outcome, require, without_outcome
from experiments.jobs import GridOptions, Job, Outcome, perform

FOLDER = "slurm"
ARRAY_JOBS = 1000  # the length of an array that every Slurm takes
AT_ONCE = 64  # jobs of an array
DAY_MINUTES = 24 * 60  # the time of a job without --max-time; SBATCH_TIMELIMIT overrides it
YEAR_MINUTES = 365 * DAY_MINUTES  # here there is no queue and no limit
LOOK_SECONDS, ASK_SECONDS = 0.5, 20.0  # between looks at files and at processes, and questions to Slurm


def check(options: GridOptions) -> None:
    """Refuse, before anything is written, what cannot work.

    Raises:
        UsageError: submitit is not there, or this machine has not the cores.
    """
    require("submitit", "slurm", "submitit")
    if not _has_slurm() and options.num_cpus > _cores():
        raise UsageError(f"--num-cpus {options.num_cpus} is more than the {_cores()} cores of this machine, "
                         "which has no sbatch")


def run(jobs: Sequence[Job], options: GridOptions) -> Iterator[tuple[Job, Outcome]]:
    """Every job with its outcome, as they end."""
    check(options)
    return announced(_run(jobs, options), len(jobs))


def _has_slurm() -> bool:
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(jobs: Sequence[Job], options: GridOptions) -> Iterator[tuple[Job, Outcome]]:
    parent = Path(jobs[0].out) / FOLDER
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parent.chmod(0o700)
    folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=parent))
    slurm = _has_slurm()
    slots = ARRAY_JOBS if slurm else 1 if options.num_gpus else _cores() // options.num_cpus
    where = "to Slurm" if slurm else f"to this machine, {slots} at a time: it has no sbatch"
    Console().print(f"{len(jobs)} cells go {where}; their output is in {folder}", highlight=False, soft_wrap=True)
    executor = _executor(folder, options, slurm)
    queue = _Slurm() if slurm else _Processes()
    waiting = deque(_Attempt(job, number, folder) for number, job in enumerate(jobs))
    running: list[_Attempt] = []
    try:
        while waiting or running:
            begun = [waiting.popleft() for _ in range(min(slots - len(running), len(waiting)))]
            running += begun
            _submit(executor, begun)
            ended = [attempt for attempt in running if attempt.is_over(queue)]
            running = [attempt for attempt in running if attempt not in ended]
            for attempt in ended:
                outcome = attempt.outcome(queue, options.retries)
                if outcome is None:
                    waiting.append(attempt)
                else:
                    yield attempt.job, outcome
            if not ended:
                time.sleep(LOOK_SECONDS)
    finally:  # Ctrl-C: whatever the cells were doing, they can be resumed
        queue.cancel([attempt.handle for attempt in running if attempt.handle])
        for pickle in folder.glob("*.pkl"):
            pickle.unlink(missing_ok=True)


def _executor(folder: Path, options: GridOptions, slurm: bool) -> Any:
    """What submits jobs; they find the code of this process wherever they run."""
    import submitit

    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    python = f"env {shlex.quote(f'PYTHONPATH={path}')} {shlex.quote(sys.executable)}"
    if not slurm:
        executor = submitit.AutoExecutor(folder, cluster="local", local_python=python)
        executor.update_parameters(timeout_min=YEAR_MINUTES, gpus_per_node=options.num_gpus)
        return executor
    executor = submitit.AutoExecutor(
        folder, cluster="slurm", slurm_max_num_timeout=options.retries, slurm_python=python
    )
    minutes = DAY_MINUTES if options.max_seconds is None else math.ceil(options.max_seconds / 60)
    executor.update_parameters(
        name="paragon", timeout_min=minutes, cpus_per_task=options.num_cpus,
        gpus_per_node=options.num_gpus or None, slurm_array_parallelism=AT_ONCE,
        slurm_additional_parameters={"requeue": True},
    )
    return executor


def _submit(executor: Any, attempts: Sequence[_Attempt]) -> None:
    """Submit as one array.

    Raises:
        UsageError: Slurm does not take it; the message is Slurm's.
    """
    from submitit.core.utils import FailedJobError

    if not attempts:
        return
    try:
        with executor.batch():
            handles = [executor.submit(Work(str(a.answer)), a.job.to_json()) for a in attempts]
    except FailedJobError as error:
        raise UsageError(f"sbatch refused the cells: {_last_line(str(error))}") from None
    for attempt, handle in zip(attempts, handles, strict=True):
        attempt.handle, attempt.count = handle, attempt.count + 1


def _last_line(text: str) -> str:
    return (text.strip() or "it gave no reason").splitlines()[-1]


@dataclass
class Work:
    """What a job does; it is queued again as it is, and the cell goes on where it was."""

    answer: str

    def __call__(self, job: str) -> None:
        write_json(Path(self.answer), asdict(perform(Job.from_json(job))))

    def checkpoint(self, job: str) -> Any:
        """Called by submitit when the job is preempted or its time is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


class _Attempt:
    """A job that is to be done, and its newest submission."""

    def __init__(self, job: Job, number: int, folder: Path) -> None:
        self.job, self.answer = job, folder / f"cell-{number}.json"
        self.count = 0
        self.handle: Any = None  # submitit's

    def is_over(self, queue: Any) -> bool:
        """Whether there is an answer, or no job any more that could give one."""
        return self.answer.exists() or queue.has_ended(self.handle)

    def outcome(self, queue: Any, retries: int) -> Outcome | None:
        """How it ended; None if it is to be submitted again."""
        if self.answer.exists():
            queue.leave(self.handle)
            found = read_outcome(self.answer.read_text())
            self.answer.unlink()
            return found
        end, again = queue.how_it_ended(self.handle)
        return None if again and self.count <= retries else without_outcome(self.job, end)


class _Processes:
    """submitit's processes on this machine."""

    def has_ended(self, handle: Any) -> bool:
        return handle.done()

    def leave(self, handle: Any) -> None:
        """Wait until the process of a finished job is gone: its core is the next one's."""
        handle._process.wait()

    def how_it_ended(self, handle: Any) -> tuple[str, bool]:
        """In words, and whether it is worth another attempt."""
        return f"its process died and left no outcome; {handle.paths.stderr} may say why", True

    def cancel(self, handles: Sequence[Any]) -> None:
        for handle in handles:
            handle.cancel()
        for handle in handles:
            handle._process.wait()


class _Slurm:
    """Slurm's queue, which is asked for all jobs at once and now and then; accounting is not needed."""

    def __init__(self) -> None:
        self.asked = time.monotonic()
        self.absent: dict[str, int] = {}

    def has_ended(self, handle: Any) -> bool:
        """Whether it was missing two times running: files may take a while to be seen on all machines."""
        self.absent.setdefault(handle.job_id, 0)
        if time.monotonic() - self.asked > ASK_SECONDS:
            self._ask()
        return self.absent[handle.job_id] >= 2

    def _ask(self) -> None:
        self.asked = time.monotonic()
        found = _answer_of("squeue", "--me", "--array", "--noheader", "--format=%i")
        if found is not None:  # else Slurm is not to be reached for a moment
            queued = set(found.split())
            self.absent = {name: 0 if name in queued else times + 1 for name, times in self.absent.items()}

    def leave(self, handle: Any) -> None:
        self.absent.pop(handle.job_id, None)

    def how_it_ended(self, handle: Any) -> tuple[str, bool]:
        """In words, and whether it is worth another attempt: what was cancelled was not wanted."""
        self.leave(handle)
        shown = _answer_of("scontrol", "--oneliner", "show", "job", handle.job_id) or ""
        found = re.search(r"JobState=(\w+)", shown)
        state = found[1] if found else "unknown to Slurm"
        return f"its Slurm job {handle.job_id} ended without an outcome ({state})", state != "CANCELLED"

    def cancel(self, handles: Sequence[Any]) -> None:
        if handles:
            _answer_of("scancel", *(handle.job_id for handle in handles))


def _answer_of(*command: str) -> str | None:
    """What one of Slurm's commands prints; None if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
