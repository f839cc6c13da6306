"""Several processes train one cell: they meet, share every batch, and end together.

Every process holds the whole model and the same weights; the gradient is averaged over all before each
step. It is added up here and not by torch's ``DistributedDataParallel``, for two reasons: that one cuts
gradients into buckets by the order in which they arrived, so that a resumed run adds in another order,
and it does not see the second gradients and two optimisers of a GAN without special care. The first
process alone writes files, holds the lock and talks to the user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from evaluation.sharing import LostError, talking, tell
from experiments import launch
from experiments.config import TrainerConfig
from models.base import processes

MEET_SECONDS = 300  # until all processes must have come
STEP_PATIENCE = timedelta(minutes=10)  # for a gradient
EXAM_PATIENCE = timedelta(hours=6)  # the others wait while the first one examines
FAREWELL_SECONDS = 10.0  # one that failed lets the first one say why
FAILURE, OVER = "failure", "over"

Value = TypeVar("Value")
_meeting: tuple[dist.Store, dist.ProcessGroup] | None = None


def is_main() -> bool:
    """Whether this is the first process, which writes and talks, or the only one."""
    return processes()[0] == 0


def on_main(work: Callable[[], Value]) -> Value:
    """What ``work`` gives in the first process, which alone does it, for all: plain values and tensors."""
    return tell(work() if is_main() else None)


def environment() -> ClusterEnvironment:
    """Lightning's view of who started the processes."""
    return TorchElasticEnvironment() if launch.torchrun_processes() else SLURMEnvironment(auto_requeue=False)


@contextlib.contextmanager
def joined(trainer: TrainerConfig) -> Iterator[None]:
    """Work together with the other processes that were started; does nothing for one alone.

    Raises:
        LostError: they did not come, or one of them ended.
    """
    if trainer.processes == 1 or dist.is_initialized():
        yield
        return
    _meet(trainer)
    try:
        yield
    except BaseException as error:
        if not isinstance(error, LostError):
            _store().set(FAILURE, str(error) or type(error).__name__)
        raise
    finally:
        _leave()


def _store() -> dist.Store:
    assert _meeting is not None, "the processes have met"
    return _meeting[0]


def _meet(trainer: TrainerConfig) -> None:
    global _meeting
    found = environment()
    number, size = found.global_rank(), found.world_size()
    os.environ.setdefault("MASTER_ADDR", found.main_address)
    os.environ.setdefault("MASTER_PORT", str(found.main_port))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(found.local_rank())
    limit = timedelta(seconds=MEET_SECONDS)
    try:
        base, _, _ = next(dist.rendezvous(f"env://?rank={number}&world_size={size}", timeout=limit))
        store = dist.PrefixStore("paragon", base)
        _wait_for_all(store, size)
        dist.init_process_group("gloo", store=store, rank=number, world_size=size, timeout=EXAM_PATIENCE)
        group = dist.new_group(backend="nccl" if cuda else "gloo", timeout=STEP_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise LostError(f"process {number} of {size} did not find the others: {error}".splitlines()[0]) from error
    assert isinstance(group, dist.ProcessGroup), "every process is in the group of all"
    _meeting = store, group


def _wait_for_all(store: dist.Store, size: int) -> None:
    came, end = store.add("came", 1), time.monotonic() + MEET_SECONDS
    while came < size:
        if time.monotonic() > end:
            raise RuntimeError(f"only {came} of {size} came within {MEET_SECONDS} seconds")
        time.sleep(0.05)
        came = store.add("came", 0)


def _leave() -> None:
    """Let go of the others, which wakes whoever waits for this process; the first one is waited for."""
    global _meeting
    main, store = is_main(), _store()
    dist.destroy_process_group()
    _meeting = None
    with contextlib.suppress(RuntimeError):  # the store may have ended with another process
        if main:
            store.set(OVER, "")
        else:
            store.wait([OVER], timedelta(seconds=FAREWELL_SECONDS))


def reason(error: BaseException) -> BaseException:
    """The error itself or, where it is only that another process ended, what that one said at its end."""
    if not isinstance(error, LostError) or _meeting is None:
        return error
    with contextlib.suppress(RuntimeError):
        _store().wait([FAILURE], timedelta(seconds=2))
        return LostError(_store().get(FAILURE).decode())
    return error


def average_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Put the mean over all processes in place of the gradients of what an optimiser steps."""
    assert _meeting is not None, "the processes have met"
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    with talking():
        dist.all_reduce(flat, group=_meeting[1])
    flat /= processes()[1]
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


class GlobalBatch(DDPStrategy):
    """Lightning's data parallelism with the gradients averaged by ``average_gradients``."""

    def configure_ddp(self) -> None:
        """All begin with the weights of the first; the model is not wrapped."""
        assert self.model is not None, "the trainer has given its model"
        with talking(), torch.no_grad():
            for tensor in (*self.model.parameters(), *self.model.buffers()):
                value = tensor.detach().cpu().contiguous()
                dist.broadcast(value, 0)
                tensor.copy_(value)

    def optimizer_step(
        self, optimizer: Any, closure: Callable[[], Any], model: Any = None, **options: Any
    ) -> Any:
        def averaged() -> Any:
            result = closure()
            average_gradients(optimizer)
            return result

        return super().optimizer_step(optimizer, averaged, model, **options)

    def on_train_start(self) -> None:
        """Lightning's own handler would talk to processes that may be dead; everything can be resumed."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """The sum or the mean in float64, which is exact where all have the same number."""
        if not isinstance(tensor, Tensor):
            return tensor
        assert _meeting is not None, "the processes have met"
        total = tensor.detach().double().clone()
        with talking():
            dist.all_reduce(total, group=_meeting[1])
        summed = str(reduce_op).rpartition(".")[2].lower() == "sum"  # a word or torch's enumeration
        return (total if summed else total / processes()[1]).to(tensor.dtype)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return tell(obj, src)

    def barrier(self, *args: Any, **options: Any) -> None:
        if processes()[1] > 1:
            with talking():
                dist.barrier()


def trainer_options(trainer: TrainerConfig) -> dict[str, Any]:
    """What Lightning's trainer must be told."""
    if trainer.processes == 1:
        return {}
    return {
        "accelerator": "gpu" if torch.cuda.is_available() else "cpu", "devices": trainer.devices,
        "num_nodes": trainer.num_nodes, "strategy": GlobalBatch(cluster_environment=environment()),
    }
