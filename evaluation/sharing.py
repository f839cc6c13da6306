"""Work in turns: of the batches of an exam each process does every so-manieth, and the first gets them all.

Batches are those of a single process, so that results are the same bit by bit. What the processes tell
each other is tensors and plain values, written by ``torch.save`` and read with ``weights_only``:
nothing is unpickled.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from models.base import processes

Item = TypeVar("Item")


class LostError(RuntimeError):
    """A process that others wait for has ended or does not answer; the message is one sentence."""


@contextmanager
def talking() -> Iterator[None]:
    """Whatever goes wrong between processes is a ``LostError``."""
    try:
        yield
    except RuntimeError as error:
        rank, size = processes()
        raise LostError(f"process {rank} of {size} lost the others: one has ended or does not answer") from error


def _pack(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _unpack(data: Tensor) -> Any:
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)


def tell(value: Any, source: int = 0) -> Any:
    """What the process of that rank has, for all of them."""
    rank, size = processes()
    if size == 1:
        return value
    data = _pack(value) if rank == source else None
    length = torch.tensor([0 if data is None else len(data)])
    with talking():
        dist.broadcast(length, source)
        data = torch.empty(int(length), dtype=torch.uint8) if data is None else data
        dist.broadcast(data, source)
    return value if rank == source else _unpack(data)


def _collect(own: Any) -> list[Any] | None:
    """What every process has, by rank, for the first one; None for the others."""
    rank, size = processes()
    with talking():
        if rank > 0:
            data = _pack(own)
            dist.send(torch.tensor([len(data)]), 0)
            dist.send(data, 0)
            return None
        found = [own]
        for source in range(1, size):
            length = torch.zeros(1, dtype=torch.int64)
            dist.recv(length, source)
            data = torch.empty(int(length), dtype=torch.uint8)
            dist.recv(data, source)
            found.append(_unpack(data))
    return found


def in_turns(
    items: Sequence[Item],
    work: Callable[[Item], Any],
    *,
    skip: Callable[[Item], Any] = lambda item: None,
    on_item: Callable[[int], None] = lambda done: None,
    for_all: bool = False,
) -> list[Any]:
    """The results of all items in their order, for the first process or ``for_all``; the others get their own.

    Args:
        items: The same ones in every process.
        work: Makes tensors or plain values, in memory and not on a device, of an item.
        skip: Called instead for an item that another process does.
        on_item: Told after every item how many have been gone through.
        for_all: Whether every process needs all results.
    """
    rank, size = processes()
    own = []
    for i, item in enumerate(items):
        if i % size == rank:
            own.append(work(item))
        else:
            skip(item)
        on_item(i + 1)
    if size == 1:
        return own
    found = [tell(own, source) for source in range(size)] if for_all else _collect(own)
    return own if found is None else [found[i % size][i // size] for i in range(len(items))]


def total(value: float) -> float:
    """The sum over all processes."""
    if processes()[1] == 1:
        return value
    summed = torch.tensor([value], dtype=torch.float64)
    with talking():
        dist.all_reduce(summed)
    return float(summed)
