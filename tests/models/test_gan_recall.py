"""Recall by class against the exam's, a watch that accuses only who fell, and looks that leave training alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from datamodules import digits
from evaluation.metrics import precision_recall
from experiments import training
from experiments.checkpoints import KeepCheckpoints
from experiments.stage_log import Rows
from experiments.training import StagePlan, TrainingError, look_every, plan_stage, quiet_lightning, train_stage
from models.base import Stage, to_float
from models.gan.convolutional import ConvGenerator
from models.gan.recall import CLASSES, PATIENCE, PER_CLASS, SEEN, WARM_UP, RecallWatch, recall, recall_by_class
from tests.models.tiny import assert_same_weights, silent, tiny_data, tiny_model

MEMBERS = ["gan", "dcgan", "wgan_gp"]


@pytest.mark.parametrize("n", [5, 40])
def test_recall_is_that_of_the_exam(n: int) -> None:
    draws = torch.Generator().manual_seed(n)
    real, fake = torch.randn(60, 3, 2, 2, generator=draws), 0.7 * torch.randn(n, 3, 2, 2, generator=draws)
    expected = precision_recall(real.flatten(1).numpy(), fake.flatten(1).numpy()).recall
    assert 0 < expected < 1
    assert recall(real, fake) == pytest.approx(expected)


def test_recall_by_hand() -> None:
    fake = torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0])[:, None]  # third neighbours at 3, 2, 2, 3 and 9
    assert recall(torch.tensor([[-3.0], [-3.1], [6.0], [19.0], [19.1]]), fake) == pytest.approx(3 / 5)
    copies = torch.ones(8, 4)
    assert recall(copies[:2], copies) == 1 and recall(copies[:2] + 1e-6, copies) == 0
    with pytest.raises(ValueError, match="more than 3 generated and 1 real image, not 3 and 8"):
        recall(copies, copies[:3])


class Copier(nn.Module):
    """Gives back images of the class that is asked for, moved a little by a generator; ``lost`` says how many it knows.

    ``lost`` above zero leaves it so many images of a class, negatives that are near no real one.
    """

    def __init__(self, generator: nn.Module, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.generator, self.latent_dim = generator, generator.latent_dim
        self.images, self.labels = images, labels
        self.register_buffer("lost", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        lost = int(self.lost)
        moved = 0.01 * self.generator(z, labels)
        chosen = (1_000 * z[:, 0].abs()).long()
        rows = [(self.labels == c).nonzero()[:, 0] for c in labels]
        kept = torch.stack([self.images[own[int(i) % (lost or len(own))]] for own, i in zip(rows, chosen, strict=True)])
        return to_float(kept) * (-1 if lost else 1) + moved


def three_digits() -> dict[str, Tensor]:
    split = digits.load(digits.Config()).train
    kept = torch.from_numpy(split.labels) < 3
    return {"image": torch.from_numpy(split.images)[kept], "label": torch.from_numpy(split.labels)[kept]}


def test_classes_are_told_apart_and_nothing_is_drawn_from_training() -> None:
    columns, model = three_digits(), tiny_model("dcgan")
    images, labels = columns["image"], columns["label"]
    swapped = torch.where(labels == 1, labels, 2 - labels)  # shows twos for 0 and the reverse
    state = torch.get_rng_state()
    right = recall_by_class(Copier(model.generator, images, labels), images, labels)
    wrong = recall_by_class(Copier(model.generator, images, swapped), images, labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(right) == list(wrong) == [0, 1, 2]
    assert min(right.values()) > 0.6 and wrong[1] == right[1]
    assert wrong[0] < right[0] - 0.1 and wrong[2] < right[2] / 4  # balls around twos are wide enough for some zeros
    many = torch.arange(15).repeat_interleave(PER_CLASS)
    found = recall_by_class(ConvGenerator((1, 8, 8), 15, latent_dim=8, width=8), images[torch.arange(480) % 100], many)
    assert list(found) == list(range(CLASSES))


def test_a_fall_is_accused_and_a_slow_start_is_not() -> None:
    watch, fallen = RecallWatch(), dict.fromkeys(range(3), 0.0)
    for _ in range(10 * PATIENCE):
        watch.seen(fallen, 0.9)
    assert watch.reason() == "" and int(watch.count) == 10 * PATIENCE, "it never was there"
    watch.seen(dict.fromkeys(range(3), 1.0), WARM_UP / 2)
    assert float(watch.peak) == 0, "a wide ball around a random start"
    watch.seen({0: 0.0, 1: 0.0, 2: 3 * SEEN + 0.01}, WARM_UP)
    for _ in range(PATIENCE - 1):
        watch.seen(fallen, 0.5)
    assert watch.reason() == ""
    watch.seen({0: 0.0, 1: 0.0, 2: 0.01}, 0.5)
    assert int(watch.count) == 0, "one class is enough"
    for _ in range(PATIENCE):
        resumed = RecallWatch()
        resumed.load_state_dict(watch.state_dict())
        watch = resumed
        assert watch.reason() == ""
        watch.seen(fallen, 0.9)
    assert watch.reason() == (
        "the generator collapsed: recall, 0.10 at best, was 0 in every class at 5 measurements in a row"
    )


def test_looks_are_rare_and_on_logged_steps() -> None:
    for steps in (1, 49, 50, 141, 777, 4_251, 100_003):
        log_every = max(1, steps // training.LOG_LINES)
        every = look_every(steps, log_every)
        assert every >= training.STEPS_BETWEEN_LOOKS and every % log_every == 0
        assert steps // every <= training.LOOKS
    assert 100_003 // look_every(100_003, 500) == 18 and 8_000 // look_every(8_000, 40) == 20


def fit(stage: Stage, columns: dict[str, Tensor], plan: StagePlan, folder: Path) -> Rows:
    return train_stage(stage, columns, plan, folder, position=0, seed=0, progress=silent()).rows


def short_plan(name: str, columns: dict[str, Tensor], steps: int) -> StagePlan:
    quiet_lightning()
    return replace(plan_stage(tiny_model(name).stages()[0], columns, 0.0), steps=steps)


def test_a_generator_that_loses_all_but_two_images_ends_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images a class are diverse enough for the other watch."""
    monkeypatch.setattr(training, "STEPS_BETWEEN_LOOKS", 5)
    columns = three_digits()
    plan = short_plan("dcgan", columns, steps=100)
    (stage,) = tiny_model("dcgan", batch_size=24).stages()
    stage.network = Copier(stage.network, columns["image"], columns["label"])
    stage.ema = type(stage.ema)(stage.network, half_life=1.0, batch_size=24)
    move = stage.set_progress

    def set_progress(progress: float) -> None:
        move(progress)
        stage.network.lost.fill_(2 if progress > 0.4 else 0)

    stage.set_progress = set_progress
    with pytest.raises(TrainingError, match=(
        r"^training stopped at step 65 of stage adversarial: the generator collapsed: recall, 0\.\d\d at best, was 0 "
        r"in every class at 5 measurements in a row$"
    )):
        fit(stage, columns, plan, tmp_path)


@pytest.mark.parametrize("name", MEMBERS)
def test_training_does_not_notice_that_it_is_looked_at(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = tiny_data(80)
    columns, weights, rows = {"image": images, "label": labels}, [], []
    plan = short_plan(name, columns, steps=24)
    for between in (1, 1_000):
        monkeypatch.setattr(training, "STEPS_BETWEEN_LOOKS", between)
        (stage,) = tiny_model(name).stages()
        rows.append(fit(stage, columns, plan, tmp_path / str(between)))
        weights.append(stage.network.state_dict() | stage.discriminator.state_dict())
    assert_same_weights(*weights)
    looked = [row for row in rows[0] if "recall_mean" in row]
    assert [row["step"] for row in looked] == list(range(1, 24, 2)), "every second step of 24, so that they are 12"
    assert [row for row in rows[0] if "recall_mean" not in row] == rows[1]
    for row in looked:
        values = [row[f"recall_{label}"] for label in range(3)]
        assert row["recall_mean"] == pytest.approx(sum(values) / 3) and row["recall_min"] == min(values)
        assert row["images_seen"] == (row["step"] + 1) * plan.batch_size


class Stop(Exception):
    """A training that is cut short."""


def test_looks_are_the_same_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "STEPS_BETWEEN_LOOKS", 1)
    columns = three_digits()
    plan = short_plan("gan", columns, steps=40)
    (whole,) = tiny_model("gan").stages()
    expected = fit(whole, columns, plan, tmp_path / "whole")
    (cut,) = tiny_model("gan").stages()
    saved = KeepCheckpoints.on_train_epoch_end

    def stop_later(self: KeepCheckpoints, trainer: object, stage: object) -> None:
        saved(self, trainer, stage)
        if trainer.current_epoch == 11:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(KeepCheckpoints, "on_train_epoch_end", stop_later)
        fit(cut, columns, plan, tmp_path / "cut")
    (resumed,) = tiny_model("gan").stages()
    assert fit(resumed, columns, plan, tmp_path / "cut") == expected
    assert_same_weights(whole.recall_watch.state_dict(), resumed.recall_watch.state_dict())


@pytest.mark.parametrize("name", MEMBERS)
def test_a_healthy_short_training_is_left_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recall stays 0 for most or all of it."""
    monkeypatch.setattr(training, "STEPS_BETWEEN_LOOKS", 5)
    columns = three_digits()
    (stage,) = tiny_model(name).stages()
    rows = fit(stage, columns, short_plan(name, columns, steps=120), tmp_path)
    looked = [row["recall_mean"] for row in rows if "recall_mean" in row]
    assert len(looked) == 20 and looked[0] == 0
    assert rows[-1]["diversity"] > 1e-3 and stage.recall_watch.reason() == ""
