"""The order of training images: a function of the seed and of how many came before, and of nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.module import StepDataModule, StepSampler, stream_indices


@given(n=st.integers(1, 50), epochs=st.integers(1, 4), seed=st.integers(0, 2**63 - 1))
def test_every_epoch_is_a_permutation(n: int, epochs: int, seed: int) -> None:
    stream = stream_indices(n, 0, n * epochs, seed).reshape(epochs, n)
    assert (np.sort(stream, axis=1) == np.arange(n)).all()


@given(n=st.integers(1, 50), cuts=st.lists(st.integers(0, 200), min_size=2, max_size=8, unique=True))
def test_any_piece_is_a_piece_of_the_same_stream(n: int, cuts: list[int]) -> None:
    whole = stream_indices(n, 0, 200, 7)
    cuts = sorted(cuts)
    pieces = [stream_indices(n, a, b, 7) for a, b in itertools.pairwise(cuts)]
    assert (np.concatenate(pieces) == whole[cuts[0] : cuts[-1]]).all()


def test_epochs_and_seeds_differ() -> None:
    one, two = stream_indices(1000, 0, 2000, 0).reshape(2, 1000)
    assert (one == two).mean() < 0.05
    assert (stream_indices(1000, 0, 1000, 1) == one).mean() < 0.05
    assert (stream_indices(1000, 0, 1000, 0) == one).all()


@pytest.mark.parametrize("batch_size", [1, 3, 8, 24])
def test_models_with_other_batches_see_the_same_images(batch_size: int) -> None:
    batches = list(StepSampler(10, batch_size, 0, 24 // batch_size, seed=3))
    assert [len(b) for b in batches] == [batch_size] * (24 // batch_size)
    assert torch.cat(batches).tolist() == stream_indices(10, 0, 24, 3).tolist()


@pytest.mark.parametrize("first", [0, 1, 5, 11])
def test_going_on_gives_the_rest(first: int) -> None:
    whole, rest = list(StepSampler(10, 4, 0, 12, 3)), StepSampler(10, 4, first, 12, 3)
    assert len(rest) == 12 - first
    assert all(torch.equal(a, b) for a, b in zip(whole[first:], rest, strict=True))


class Seeing(pl.LightningModule):
    """Learns nothing and notes which images it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        assert batch["image"].flatten().tolist() == batch["index"].tolist()
        assert (batch["label"] == -batch["index"]).all()
        self.seen.append(batch["index"].tolist())
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_sees_each_step_once_in_order() -> None:
    n, steps, chunk, batch = 10, 11, 4, 3  # the last chunk is shorter
    numbers = torch.arange(n)
    data = StepDataModule(
        {"image": numbers.to(torch.uint8)[:, None, None, None], "label": -numbers}, batch_size=batch, steps=steps,
        chunk=chunk, seed=5,
    )  # fmt: skip
    model = Seeing()
    trainer = pl.Trainer(
        max_epochs=3, reload_dataloaders_every_n_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert model.seen == stream_indices(n, 0, steps * batch, 5).reshape(steps, batch).tolist()
