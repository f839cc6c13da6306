"""Batches from memory, in an order that is a function of the step alone.

Whole batches are cut out of uint8 tensors at once (no workers, no collation), and the images a
step sees depend on the seed and on how many images came before: training can stop and go on
anywhere, and models with different batch sizes see the same images in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(n)


def stream_indices(n: int, start: int, stop: int, seed: int) -> NDArray[np.int64]:
    """Positions start..stop of the endless stream of images: one permutation of 0..n-1 after another."""
    parts = [
        _permutation(n, seed, epoch)[max(start - epoch * n, 0) : stop - epoch * n]
        for epoch in range(start // n, (stop - 1) // n + 1)
    ]
    return np.concatenate(parts)


class StepSampler(Sampler[Tensor]):
    """Index batches of the steps ``first`` to ``last`` (excluded), int64 (batch_size / size,).

    Of ``size`` processes the one of that ``rank`` gets its contiguous share of every batch.
    """

    def __init__(
        self, n: int, batch_size: int, first: int, last: int, seed: int, rank: int = 0, size: int = 1
    ) -> None:
        self.n, self.batch_size, self.first, self.last, self.seed = n, batch_size, first, last, seed
        self.skipped, self.rows = rank * (batch_size // size), batch_size // size

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[Tensor]:
        for step in range(self.first, self.last):
            start = step * self.batch_size + self.skipped
            yield torch.from_numpy(stream_indices(self.n, start, start + self.rows, self.seed))


class _Columns(Dataset[dict[str, Tensor]]):
    """Tensors of equal length, indexed together by a tensor of positions."""

    def __init__(self, columns: dict[str, Tensor]) -> None:
        self.columns = columns

    def __getitem__(self, indices: Tensor) -> dict[str, Tensor]:
        return {name: column[indices] for name, column in self.columns.items()} | {"index": indices}


class StepDataModule(pl.LightningDataModule):
    """Serves ``steps`` training batches in chunks of ``chunk`` steps; a Lightning epoch is a chunk.

    Batches are dicts of the columns (``image`` uint8 (B, C, H, W), ``label`` int64 (B,), whatever a
    frozen stage produced) and ``index`` int64 (B,). ``share`` is a process's rank and the number of
    processes that share every batch.
    """

    def __init__(
        self, columns: dict[str, Tensor], *, batch_size: int, steps: int, chunk: int, seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__()
        self.columns = _Columns(columns)
        self.length = len(next(iter(columns.values())))
        self.batch_size, self.steps, self.chunk, self.seed = batch_size, steps, chunk, seed
        self.share = share

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The chunk that the trainer's current epoch stands for."""
        assert self.trainer is not None, "the trainer asks for batches, so there is one"
        first = self.trainer.current_epoch * self.chunk
        last = min(first + self.chunk, self.steps)
        sampler = StepSampler(self.length, self.batch_size, first, last, self.seed, *self.share)
        return DataLoader(self.columns, sampler=sampler, batch_size=None)
