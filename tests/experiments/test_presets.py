"""Every preset fits every dataset and refuses values that cannot work, before anything runs."""

from __future__ import annotations

import typing
from dataclasses import asdict, fields, replace

import pytest

from experiments.discovery import dataset_module, dataset_names, model_names, preset_module
from experiments.presets.base import SHARED

CASES = [(model, dataset) for model in model_names() for dataset in dataset_names()]
BOUNDED = [
    (model, field.name)
    for model in model_names()
    for field in fields(preset_module(model).Config)
    if field.name in SHARED
]


@pytest.mark.parametrize(("model", "dataset"), CASES)
def test_a_preset_fits_a_dataset(model: str, dataset: str) -> None:
    module = preset_module(model)
    config = module.preset(dataset_module(dataset).INFO)
    assert isinstance(config, module.Config) and config == replace(config)


@pytest.mark.parametrize(("model", "dataset"), CASES)
def test_a_default_that_is_named_is_the_same_cell(model: str, dataset: str) -> None:
    """The command line reads 50000 as 50000.0, which is another text and so would be another hash."""
    config = preset_module(model).preset(dataset_module(dataset).INFO)
    kinds = typing.get_type_hints(type(config))
    assert [name for name, value in asdict(config).items() if kinds[name] is float and type(value) is not float] == []


@pytest.mark.parametrize(("model", "name"), BOUNDED)
def test_a_shared_field_is_bounded_on_both_sides(model: str, name: str) -> None:
    config = preset_module(model).Config()
    least, most = SHARED[name]
    assert getattr(replace(config, **{name: least}), name) == least
    for value in (least - 1, most + 1, float("nan")):
        with pytest.raises(ValueError, match=rf"^model\.{name} must lie in .* not {value}$"):
            replace(config, **{name: value})


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        ("diffusion", "width", 7), ("diffusion", "patch_size", 3), ("diffusion", "num_steps", 0),
        ("gan", "width", 0), ("gan", "latent_dim", 0), ("gan", "r1_gamma", -1.0),
        ("gan", "patch_size", 3), ("gan", "augment_probability", 1.5), ("dcgan", "width", 12),
        ("dcgan", "ada_images", 0.0), ("wgan_gp", "n_critic", 0), ("wgan_gp", "penalty_weight", -1.0),
        ("diffusion", "augment", 1.5), ("ddpm", "augment", -0.1), ("flow_matching", "augment", float("nan")),
        ("vqvae", "levels", (8, 1)), ("vqvae", "levels", ()), ("vqvae", "downsample", 6),
        ("vqvae", "prior_dim", 48), ("vqvae", "autoencoder_share", 1.0), ("vqvae", "prior_depth", 0),
        ("vqvae", "codebook_size", 1), ("vqvae", "codebook_dim", 0), ("vqvae", "commitment", -0.1),
        ("vqvae", "adversarial", -1.0), ("vqvae2", "downsample", 3), ("vqvae2", "commitment", float("nan")),
    ],
)  # fmt: skip
def test_a_field_of_its_own_is_checked(model: str, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^model\.{name} must "):
        replace(preset_module(model).Config(), **{name: value})
