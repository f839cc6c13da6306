"""The runner: plans within a budget, stages kept apart, and what training refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments.discovery import model_names
from experiments.stage_log import LOG_FILE, write_log
from experiments.training import (
    CHUNKS,
    TrainingError,
    plan_stage,
    plan_steps,
    precompute,
    quiet_lightning,
    train,
    train_stage,
)
from models.base import Stage
from tests.models.tiny import assert_same_weights, budget_for, silent, tiny_data, tiny_model, train_tiny

MODELS = model_names()


def columns(n: int = 40) -> dict[str, torch.Tensor]:
    images, labels = tiny_data(n)
    return {"image": images, "label": labels}


@pytest.mark.parametrize(
    ("budget", "step", "extra", "batch", "images", "expected"),
    [
        (1000, 10, 0, 4, 50, (100, 0)),  # nothing to precompute
        (1009, 10, 0, 4, 50, (100, 0)),  # the rest of a step does not count
        (100, 10, 2.5, 4, 50, (5, 20)),  # every image is new: a step costs 10 + 4 * 2.5
        (1000, 10, 2.5, 4, 50, (87, 50)),  # all 50 images once for 125, the rest for steps
        (9, 10, 0, 4, 50, (1, 0)),  # at least one step
        (9, 10, 2.5, 4, 50, (1, 4)),
        (9, 10, 2.5, 64, 50, (1, 50)),
    ],
)
def test_steps_within_a_budget(
    budget: float, step: float, extra: float, batch: int, images: int, expected: tuple[int, int]
) -> None:
    assert plan_steps(budget, step, extra, batch, images) == expected


@pytest.mark.parametrize("budget", range(1, 400, 7))
def test_the_plan_is_the_longest_that_fits(budget: int) -> None:
    def cost(steps: int) -> float:
        return 3 * steps + 2.5 * min(4 * steps, 20)

    steps, precomputed = plan_steps(budget, 3, 2.5, 4, 20)
    assert precomputed == min(4 * steps, 20)
    if cost(1) <= budget:
        assert cost(steps) <= budget
    assert cost(steps + 1) > budget


@pytest.mark.parametrize("name", MODELS)
def test_counted_flops_stay_within_the_budget_and_use_it(name: str) -> None:
    quiet_lightning()
    budget = budget_for(name, 60)
    plans = [plan_stage(stage, columns(), budget) for stage in tiny_model(name).stages()]
    shares = [stage.share for stage in tiny_model(name).stages()]
    for plan, share in zip(plans, shares, strict=True):
        assert 0.9 * share * budget <= plan.flops <= share * budget
        assert plan.step_flops > 0 and plan.steps >= 60


@pytest.mark.parametrize("name", MODELS)
def test_planning_twice_counts_the_same(name: str) -> None:
    quiet_lightning()
    plans = [[plan_stage(s, columns(), 1e9) for s in tiny_model(name).stages()] for _ in range(2)]
    assert plans[0] == plans[1]


def own_names(stage: Stage, weights: dict[str, torch.Tensor]) -> set[str]:
    """The names, in the whole model, of what a stage trains or counts (its moving average is a copy)."""
    own = (*stage.named_parameters(), *stage.named_buffers())
    trained = {p.data_ptr() for n, p in own if not n.startswith("ema.")}
    return {name for name, value in weights.items() if value.data_ptr() in trained}


@pytest.mark.parametrize("name", MODELS)
def test_a_stage_changes_its_own_weights_only(name: str, tmp_path: Path) -> None:
    quiet_lightning()
    plans = [replace(plan_stage(s, columns(), 0.0), steps=3) for s in tiny_model(name).stages()]
    model = tiny_model(name)
    for i, (stage, plan) in enumerate(zip(model.stages(), plans, strict=True)):
        own = own_names(stage, model.state_dict(keep_vars=True))
        before = {k: v.clone() for k, v in model.state_dict().items()}
        train_stage(stage, columns(), plan, tmp_path, position=i, seed=0, progress=silent())
        changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
        assert changed and changed <= own


@pytest.mark.parametrize("name", MODELS)
def test_a_run_says_what_it_did(name: str, tmp_path: Path) -> None:
    progress, images_labels, budget = silent(), tiny_data(), budget_for(name, 21)
    model, results = train(
        lambda: tiny_model(name), *images_labels, tmp_path, budget=budget, seed=0, progress=progress
    )
    assert not model.training and sum(r.plan.flops for r in results) <= budget
    assert [r.plan.name for r in results] == [s.name for s in model.stages()]
    assert all(r.seconds > 0 for r in results)
    said = progress.console.file.getvalue()
    assert all(f"{r.plan.name}  100%" in said for r in results) and "warning" not in said
    write_log(tmp_path / LOG_FILE, [(result.plan.name, result.rows) for result in results])
    log = pd.read_csv(tmp_path / LOG_FILE)
    for result in results:
        rows = log[log["stage"] == result.plan.name]
        assert rows["images_seen"].tolist() == [result.plan.batch_size * (i + 1) for i in range(result.plan.steps)]
        assert rows["flops"].iloc[-1] == pytest.approx(result.plan.steps * result.plan.step_flops, rel=1e-6)
        losses = [c for c in log.columns if c.endswith("loss") and rows[c].notna().all()]
        assert losses
    folders = sorted((tmp_path / "checkpoints").iterdir())
    assert [f.name for f in folders] == [f"{i}-{r.plan.name}" for i, r in enumerate(results)]
    assert all(len(list(f.glob("*.ckpt"))) == 2 for f in folders)


def test_training_learns(tmp_path: Path) -> None:
    train_tiny("vqvae", tmp_path, steps=60)
    log = pd.read_csv(tmp_path / LOG_FILE)
    for _, rows in log.groupby("stage"):
        assert rows["loss"].tail(10).mean() < rows["loss"].head(5).mean() - 0.1


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="batch size 8 is larger than the training set of 5 images"):
        train(lambda: tiny_model("diffusion"), *tiny_data(5), tmp_path, budget=1e9, seed=0, progress=silent())


@pytest.mark.parametrize("name", MODELS)
def test_divergence_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^training diverged: \w+ became \S+ at step \d+ of stage \w+$"):
        train(lambda: tiny_model(name, lr=1e30), *tiny_data(), tmp_path, budget=budget_for(name, 30), seed=0,
              progress=silent())  # fmt: skip


def test_a_slurm_job_around_one_process_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning by itself would refuse four tasks for one device, and answer SIGUSR1."""
    plain = train_tiny("diffusion", tmp_path / "plain")
    for name, value in {"NTASKS": "4", "JOB_NAME": "job", "PROCID": "0", "LOCALID": "0", "JOB_ID": "7"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    again = train_tiny("diffusion", tmp_path / "job")
    assert_same_weights(plain, again)


def test_precomputed_columns_are_those_of_the_frozen_stage() -> None:
    quiet_lightning()
    stage = tiny_model("vqvae").stages()[1]
    data = columns()
    whole = stage.precompute(data["image"])["indices"]
    plan = plan_stage(stage, data, 0.0)
    all_rows = precompute(stage, data, replace(plan, steps=99, precompute_images=40), 0)
    assert torch.equal(all_rows["indices"], whole) and all_rows["image"] is data["image"]
    some = precompute(stage, data, replace(plan, steps=2, precompute_images=16), 0)["indices"]
    rows = (some == whole).all(1)
    assert rows.sum() >= 16 and (some[~rows] == 0).all()


def test_a_stage_has_at_most_so_many_checkpoints_and_no_fewer_steps() -> None:
    for steps in (1, 19, 20, 21, 399, 400):
        chunk = -(-steps // CHUNKS)
        assert -(-steps // chunk) <= CHUNKS and chunk * CHUNKS >= steps
