"""Diversity against simulated images, gradient norms, and a collapse that ends a cell in one sentence."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.training import TrainingError, plan_stage, quiet_lightning, train_stage
from models.gan.health import LEAST_DIVERSITY, MOST_DIVERSITY, PATIENCE, CollapseWatch, diversity, gradient_norm
from tests.models.tiny import silent, tiny_data, tiny_model


def test_diversity_is_a_ratio_of_variances_within_classes() -> None:
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) % 3
    offset = 5.0 * labels[:, None, None, None]  # classes differ, which must not count
    real = torch.randn(3000, 1, 4, 4, generator=draws) + offset
    fake = 0.3 * torch.randn(3000, 1, 4, 4, generator=draws) - offset
    assert float(diversity(fake, real, labels)) == pytest.approx(0.09, rel=0.05)
    assert float(diversity(real, real, labels)) == 1
    assert float(diversity(offset.expand_as(real), real, labels)) == 0


def test_diversity_by_hand() -> None:
    labels = torch.tensor([4, 4, 7])
    real, fake = (torch.tensor(x)[:, None, None, None] for x in ([0.0, 2.0, 9.0], [1.0, 2.0, -3.0]))
    assert float(diversity(fake, real, labels)) == pytest.approx(0.5 / 2)
    assert math.isnan(float(diversity(fake, fake, torch.tensor([0, 1, 2]))))


def test_the_norm_of_all_gradients() -> None:
    parameters = [torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True), torch.zeros(1)]
    (3 * parameters[0].sum() + 4 * parameters[1].sum()).backward()
    assert float(gradient_norm(parameters)) == pytest.approx(math.sqrt(2 * 9 + 3 * 16))


def test_a_collapse_is_many_low_values_in_a_row() -> None:
    watch, resumed = CollapseWatch(), CollapseWatch()
    low, high = LEAST_DIVERSITY / 2, LEAST_DIVERSITY
    assert not any(watch.seen(low) for _ in range(PATIENCE - 1))
    assert not watch.seen(high) and int(watch.count) == 0
    assert not any(watch.seen(value) for value in [low, math.nan] * (PATIENCE - 1))
    resumed.load_state_dict(watch.state_dict())
    reason = "the generator collapsed: diversity was below 0.0001 at 40 logged steps in a row"
    assert watch.seen(low) == resumed.seen(low) == reason


def test_images_far_outside_the_grey_levels_are_a_runaway() -> None:
    watch = CollapseWatch()
    assert not watch.seen(MOST_DIVERSITY) and not watch.seen(math.nan)
    assert watch.seen(2 * MOST_DIVERSITY) == "the generator ran away: diversity became 2e+04, above 10000"
    assert watch.seen(math.inf)


def test_a_learning_rate_out_of_all_proportion_ends_training(tmp_path: Path) -> None:
    """Its losses may stay finite for long: gradients and images tell first."""
    quiet_lightning()
    images, labels = tiny_data()
    columns = {"image": images, "label": labels}
    (stage,) = tiny_model("gan", lr=1.0).stages()
    plan = replace(plan_stage(tiny_model("gan").stages()[0], columns, 0.0), steps=40)
    reasons = r"stopped at step \d+ of stage adversarial: the generator ran|diverged: [dg]_(loss|grad_norm) became "
    with pytest.raises(TrainingError, match=f"^training ({reasons})"):
        train_stage(stage, columns, plan, tmp_path, position=0, seed=0, progress=silent())


@pytest.mark.parametrize("name", ["gan", "dcgan", "wgan_gp"])
def test_a_generator_that_forgets_its_latent_ends_training(name: str, tmp_path: Path) -> None:
    quiet_lightning()
    images, labels = tiny_data()
    columns = {"image": images, "label": labels}
    plan = replace(plan_stage(tiny_model(name).stages()[0], columns, 0.0), steps=PATIENCE + 20)
    (stage,) = tiny_model(name).stages()
    generate = stage.network.forward
    stage.network.forward = lambda z, labels: generate(torch.zeros_like(z), labels)
    with pytest.raises(TrainingError, match=(
        rf"^training stopped at step {PATIENCE} of stage adversarial: the generator collapsed: diversity was below "
    )):
        train_stage(stage, columns, plan, tmp_path, position=0, seed=0, progress=silent())
