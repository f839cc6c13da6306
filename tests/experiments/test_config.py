"""A cell's identity: everything that decides the result, and nothing else."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, dataclass, fields, replace
from pathlib import Path

import pytest

from evaluation.config import EvaluationConfig
from experiments.config import Cell
from experiments.discovery import dataset_module, dataset_names, model_names, preset_module


@dataclass(frozen=True)
class Data:
    """Where data lies."""

    root: str = "here"


def cell(model: str = "gan", **changes: object) -> Cell:
    config = preset_module(model).preset(dataset_module("digits").INFO)
    return replace(Cell(model, "digits", 1e9, 0, config, Data(), EvaluationConfig()), **changes)


CHANGES = {
    "model": {"model": "vqvae"},
    "dataset": {"dataset": "other"},
    "budget": {"budget": 2e9},
    "evaluation": {"evaluation": EvaluationConfig(num_samples=11)},
    "model_config": {"model_config": replace(cell().model_config, lr=0.5)},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=list(CHANGES))
def test_what_decides_the_result_is_in_the_hash(changes: dict[str, object]) -> None:
    assert cell().config_hash("a" * 64) != cell(**changes).config_hash("a" * 64)


def test_every_field_of_every_preset_is_in_the_hash() -> None:
    for name in model_names():
        base = cell(name)
        found = json.loads(json.dumps(base.resolved()))["model_config"]
        assert set(found) == {f.name for f in fields(base.model_config)}


def test_data_is_known_by_its_content_and_seeds_share_a_hash() -> None:
    one = cell().config_hash("a" * 64)
    assert one != cell().config_hash("b" * 64)
    assert one == cell(data_config=Data("elsewhere")).config_hash("a" * 64)
    assert one == cell(seed=7).config_hash("a" * 64)
    assert len(one) == 12 and set(one) <= set("0123456789abcdef")


def test_folders() -> None:
    base = cell(seed=3)
    expected = Path("out", "gan", "digits", base.config_hash("a"), "seed=3")
    assert base.folder(Path("out"), "a") == expected


def test_a_cell_is_frozen_and_plain() -> None:
    with pytest.raises(FrozenInstanceError):
        cell().seed = 1
    for name in model_names():  # a record is equal to itself read back
        assert json.loads(json.dumps(cell(name).resolved())) == cell(name).resolved()
    resolved = cell().resolved()
    assert set(resolved) == {"model", "dataset", "budget", "model_config", "data_config", "evaluation"}
    assert resolved["evaluation"] == json.loads(json.dumps(asdict(EvaluationConfig())))


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("num_samples", 2), ("num_likelihood_images", 2), ("batch_size", 1), ("speed_repeats", 1),
    ],
)
def test_exams_that_make_no_sense_are_refused(name: str, least: int) -> None:
    assert getattr(EvaluationConfig(**{name: least}), name) == least
    with pytest.raises(ValueError, match=f"evaluation.{name} must be at least {least}, not {least - 1}"):
        EvaluationConfig(**{name: least - 1})


def test_slow_likelihoods_are_left_out_or_have_an_error() -> None:
    assert [EvaluationConfig(num_slow_likelihood_images=n).num_slow_likelihood_images for n in (0, 2)] == [0, 2]
    for n in (-1, 1):
        with pytest.raises(ValueError, match=f"num_slow_likelihood_images must be 0 or at least 2, not {n}"):
            EvaluationConfig(num_slow_likelihood_images=n)


@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize("dataset", dataset_names())
def test_presets_fit_every_dataset(name: str, dataset: str) -> None:
    config = preset_module(name).preset(dataset_module(dataset).INFO)
    assert config == type(config)(**asdict(config))
    with pytest.raises(ValueError, match=r"^model\.batch_size must "):
        replace(config, batch_size=0)
