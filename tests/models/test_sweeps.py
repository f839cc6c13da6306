"""Which settings models offer for curves, and that what is spent is what was asked for."""

from __future__ import annotations

import pytest
import torch

from experiments.discovery import model_names
from models.base import GenerativeModel
from models.diffusion.family import DiffusionFamily
from models.diffusion.samplers import evaluations
from models.diffusion.sweeps import NFE, affordable_steps, nfe_sweep
from tests.models.tiny import random_model, tiny_model


@pytest.mark.parametrize("name", model_names())
def test_every_setting_can_be_sampled_with(name: str) -> None:
    model = random_model(name)
    for sweep in model.sweeps({}):
        assert sweep.settings and sweep.title and sweep.label
        assert len({(s.series, str(s.options)) for s in sweep.settings}) == len(sweep.settings)
        for setting in (sweep.settings[0], sweep.settings[-1]):
            short = setting.options | {"num_steps": 2} if "num_steps" in setting.options else setting.options
            labels = torch.tensor([0, 1])
            samples = model.sample(2, condition=labels, generator=torch.Generator().manual_seed(0), **short)
            assert samples.nfe >= 1 and len(samples.images) == 2


@pytest.mark.parametrize("name", model_names())
def test_what_cannot_be_varied_is_said(name: str) -> None:
    model = tiny_model(name)
    with pytest.raises(ValueError, match="there is no colour to vary; allowed: ") as caught:
        model.sweeps({"colour": (1,)})
    assert "\n" not in str(caught.value)
    if not model.sweep_options:
        assert model.sweeps({}) == () and str(caught.value).endswith("none")


@pytest.mark.parametrize("sampler", ["heun", "churn", "ddim", "ancestral"])
@pytest.mark.parametrize("cost", [1, 2])
@pytest.mark.parametrize("nfe", [1, 2, 3, 10, 35, 250])
def test_steps_are_the_most_that_can_be_afforded(sampler: str, cost: int, nfe: int) -> None:
    steps = affordable_steps(sampler, nfe, cost)
    assert steps == 0 or cost * evaluations(sampler, steps) <= nfe
    assert cost * evaluations(sampler, steps + 1) > nfe


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_what_a_sampler_reports_is_at_most_what_was_asked_for(guidance: float) -> None:
    model, labels = random_model("diffusion"), torch.tensor([0, 1])
    found: dict[str, list[int]] = {}
    for setting in nfe_sweep(("heun", "dpmpp_2m"), (1, 2, 3, 6), guidance).settings:
        samples = model.sample(2, condition=labels, generator=torch.Generator().manual_seed(0), **setting.options)
        found.setdefault(setting.series, []).append(samples.nfe)
    expected = {"heun": [1, 3, 5], "dpmpp_2m": [1, 2, 3, 6]} if guidance == 1 else {"heun": [2, 6], "dpmpp_2m": [2, 6]}
    assert found == expected


def family(name: str, **changes: object) -> GenerativeModel:
    model = tiny_model(name, **changes)
    assert isinstance(model, DiffusionFamily)
    return model


def test_values_asked_for_replace_the_usual_ones() -> None:
    model = family("diffusion")
    nfe, guidance = model.sweeps({"samplers": ("euler", "euler"), "nfe": (4, 2, 4), "guidance": (2.0, 0.5)})
    assert [(s.series, s.options["num_steps"]) for s in nfe.settings] == [("euler", 2), ("euler", 4)]
    assert [s.x for s in guidance.settings] == [0.5, 2.0]
    usual = model.sweeps({})[0]
    assert {s.series for s in usual.settings} == {"heun", "ddim", "dpmpp_2m", "ancestral", "churn"}
    assert [s.options["num_steps"] for s in usual.settings if s.series == "ddim"] == list(NFE)


def test_the_consistency_model_is_only_asked_to_jump() -> None:
    nfe, guidance = family("consistency").sweeps({})
    assert {s.series for s in nfe.settings} == {"consistency"}
    assert {s.options["sampler"] for s in guidance.settings} == {"consistency"}


def test_the_presets_own_sampler_is_always_there() -> None:
    assert "euler" in {s.series for s in family("diffusion", sampler="euler").sweeps({})[0].settings}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"samplers": ("hun",)}, "sampler must be one of heun, .*, not 'hun'"),
        ({"nfe": (0,)}, r"nfe must lie in 1\.\.1000, not 0"),
        ({"nfe": (10, 1001)}, r"nfe must lie in 1\.\.1000, not 10, 1001"),
        ({"guidance": (-1.0,)}, "guidance_scale must be a number from 0 on"),
    ],
)
def test_values_out_of_range_are_refused(asked: dict[str, tuple], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family("diffusion").sweeps(asked)
