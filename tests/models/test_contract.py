"""What every paradigm promises: samples, labels, seeds, bounds, saving. A new model is picked up unedited."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
from experiments.checkpoints import save_checked
from experiments.discovery import model_names
from models.base import GenerativeModel, LikelihoodBound, to_float, to_uint8
from tests.models.tiny import INFO, SHAPE, assert_same_weights, random_model, tiny_data, tiny_model

pytestmark = pytest.mark.usefixtures("short_likelihoods")

MODELS = model_names()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> GenerativeModel:
    """Every model, tiny, with random weights."""
    return random_model(request.param)


def draw(model: GenerativeModel, labels: list[int] | None, seed: int = 0, n: int | None = None) -> torch.Tensor:
    condition = None if labels is None else torch.tensor(labels)
    count = n if labels is None else len(labels)
    return model.sample(count, condition=condition, generator=torch.Generator().manual_seed(seed)).images


def test_rooms_and_presets_have_the_same_names() -> None:
    assert models.model_rooms() == MODELS
    with pytest.raises(ValueError, match="unknown model 'nets'; allowed: "):
        models.model_class("nets")


def test_quantisation_is_exact_on_all_levels_and_clips() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert (to_float(levels)[0], to_float(levels)[-1]) == (-1.0, 1.0)
    assert to_uint8(torch.tensor([-7.0, -1.0, 1.0, 7.0])).tolist() == [0, 0, 255, 255]


def test_samples_are_uint8_images(model: GenerativeModel) -> None:
    samples = model.sample(5, condition=torch.arange(5) % 3, generator=torch.Generator().manual_seed(0))
    assert samples.images.dtype == torch.uint8 and samples.images.shape == (5, *SHAPE)
    assert samples.nfe >= 1
    assert samples.images.float().std() > 1
    assert draw(model, None, n=2).shape == (2, *SHAPE)


def test_the_seed_decides(model: GenerativeModel) -> None:
    labels = [0, 1, 2]
    assert torch.equal(draw(model, labels), draw(model, labels))
    assert not torch.equal(draw(model, labels), draw(model, labels, seed=1))


def test_the_label_is_used(model: GenerativeModel) -> None:
    assert not torch.equal(draw(model, [0] * 4), draw(model, [1] * 4))


def test_an_image_does_not_depend_on_its_batch(model: GenerativeModel, record_property) -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    together = draw(model, labels.tolist())
    generator = torch.Generator().manual_seed(0)
    parts = [model.sample(len(part), condition=part, generator=generator).images for part in labels.split([2, 4])]
    apart = torch.cat(parts)
    record_property("exact_share", float((together == apart).float().mean()))
    assert (together.int() - apart.int()).abs().max() <= 1
    assert (together == apart).float().mean() > 0.98


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1]), r"int64 \(3,\), not torch.int64 \(2,\)"),
        (torch.tensor([0.0, 1.0, 2.0]), r"not torch.float32 \(3,\)"),
        (torch.tensor([0, 1, INFO.num_classes]), r"0\.\.2, not \[0, 1, 3\]"),
        (torch.tensor([0, 1, -1]), r"0\.\.2, not \[0, 1, -1\]"),
    ],
)
def test_wrong_labels_are_refused(model: GenerativeModel, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.sample(3, condition=labels, generator=torch.Generator())


def test_no_samples_are_refused(model: GenerativeModel) -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        model.sample(0, generator=torch.Generator())


def bound_of(model: GenerativeModel, images: torch.Tensor, kind: str) -> LikelihoodBound:
    found = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(0), kind=kind)
    assert found is not None
    return found


def test_there_is_a_likelihood_or_a_reason(model: GenerativeModel) -> None:
    assert bool(model.likelihood_kinds) != bool(model.likelihood_missing)
    assert set(model.slow_likelihood_kinds) <= set(model.likelihood_kinds)


def test_every_likelihood_is_the_sum_of_its_parts(model: GenerativeModel) -> None:
    images, _ = tiny_data(4)
    for kind in model.likelihood_kinds:
        bound = bound_of(model, images, kind)
        assert bound.kind == kind and bound.parts
        assert bound.log_likelihood.dtype == torch.float64 and bound.log_likelihood.shape == (4,)
        assert bound.log_likelihood.isfinite().all() and (bound.log_likelihood < 0).all()
        torch.testing.assert_close(sum(bound.parts.values()), bound.log_likelihood, rtol=1e-12, atol=0)
        assert bound.nfe is None or bound.nfe.shape == (4,)


def test_the_main_likelihood_is_the_first(model: GenerativeModel) -> None:
    images, _ = tiny_data(2)
    main = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(0))
    assert main is not None and main.kind == model.likelihood_kinds[0]
    with pytest.raises(ValueError, match="unknown kind of likelihood 'other'; allowed: "):
        model.log_likelihood_bound(images, generator=torch.Generator(), kind="other")


def test_a_likelihood_does_not_depend_on_the_batch(model: GenerativeModel) -> None:
    images, _ = tiny_data(4)
    for kind in model.likelihood_kinds:
        whole = bound_of(model, images, kind).log_likelihood
        generator = torch.Generator().manual_seed(0)
        parts = [model.log_likelihood_bound(x, generator=generator, kind=kind) for x in images.split([1, 3])]
        torch.testing.assert_close(whole, torch.cat([p.log_likelihood for p in parts]), rtol=1e-4, atol=0)


def test_a_likelihood_checks_itself(model: GenerativeModel) -> None:
    images, _ = tiny_data(4)
    for kind in model.likelihood_kinds:
        check = model.check_likelihood(images, kind=kind, generator=torch.Generator().manual_seed(0))
        assert check is not None and check.text and "\n" not in check.text
        assert any(character.isdigit() for character in check.text), "a check states what it found"


def test_images_of_another_kind_have_no_likelihood(model: GenerativeModel) -> None:
    images, _ = tiny_data(2)
    for kind in model.likelihood_kinds:
        for wrong in (images.float(), images[..., :4], images.expand(-1, 3, -1, -1)):
            with pytest.raises(ValueError, match=r"images must be uint8 \(N, 1x8x8\)"):
                model.log_likelihood_bound(wrong, generator=torch.Generator(), kind=kind)


def test_a_trajectory_ends_in_the_sample(model: GenerativeModel) -> None:
    if not model.has_trajectory:
        return
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    plain = model.sample(3, generator=next(generators))
    shown = model.sample(3, generator=next(generators), trajectory=True)
    assert plain.trajectory is None and torch.equal(plain.images, shown.images)
    assert shown.trajectory.dtype == torch.uint8 and shown.trajectory.shape[1:] == (3, *SHAPE)
    assert torch.equal(shown.trajectory[-1], shown.images)


def test_shares_of_the_stages_add_up_to_one(model: GenerativeModel) -> None:
    stages = model.stages()
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    assert len({stage.name for stage in stages}) == len(stages)
    assert all(stage.batch_size >= 1 for stage in stages)


def test_what_sampling_needs_is_part_of_the_model(model: GenerativeModel) -> None:
    own = {id(p) for p in model.parameters()}
    needed = {id(p) for module in model.sampling_modules() for p in module.parameters()}
    assert needed and needed <= own


def plain(value: object) -> bool:
    """True for numbers, text and tuples or lists of them."""
    return isinstance(value, int | float | str) or (isinstance(value, tuple | list) and all(map(plain, value)))


@pytest.mark.parametrize("name", MODELS)
def test_hyperparameters_are_plain_and_rebuild_the_model(name: str) -> None:
    model = tiny_model(name, seed=5)
    assert all(map(plain, model.hparams.values()))
    torch.manual_seed(5)
    assert_same_weights(model.state_dict(), type(model)(**model.hparams).state_dict())


def saved(model: GenerativeModel, name: str, path: Path, **changes: object) -> Path:
    """The checkpoint of a generator, as a finished cell has it."""
    content = {"format": models.FORMAT, "model": name, "hyper_parameters": dict(model.hparams)}
    save_checked(content | {"state_dict": model.state_dict()} | changes, path)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_samples_the_same(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    loaded = models.load(saved(model, name, tmp_path / "model.ckpt"))
    assert type(loaded) is type(model) and not loaded.training
    assert_same_weights(model.state_dict(), loaded.state_dict())
    assert torch.equal(draw(model, [0, 1, 2]), draw(loaded, [0, 1, 2]))


def test_checkpoints_that_cannot_be_used_are_refused_in_one_sentence(tmp_path: Path) -> None:
    whole = saved(tiny_model("gan"), "gan", tmp_path / "model.ckpt").read_bytes()
    cut, other = tmp_path / "cut.ckpt", saved(tiny_model("gan"), "gan", tmp_path / "other.ckpt", format="something")
    cut.write_bytes(whole[: len(whole) // 2])
    for path, message in ((tmp_path / "none", "does not exist"), (cut, "cannot be read"), (other, "is not a gen")):
        with pytest.raises(models.CheckpointError, match=message) as caught:
            models.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"format": models.FORMAT, "model": Path("code that must not run")}, tmp_path / "model.ckpt")
    with pytest.raises(models.CheckpointError, match="cannot be read"):
        models.load(tmp_path / "model.ckpt")
