"""The contract of every dataset file, found by name, and what the shipped ones promise."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules import digits, fashion_mnist, known_density
from datamodules.base import DatasetInfo, ImageDataset
from evaluation.features import catalog
from experiments.discovery import dataset_module, dataset_names


def on_this_machine(name: str) -> bool:
    """Whether a dataset can be loaded without a download."""
    module = dataset_module(name)
    return "download" not in module.locate(module.Config())


PRESENT = [name for name in dataset_names() if on_this_machine(name)]


@pytest.fixture(params=PRESENT)
def dataset(request: pytest.FixtureRequest) -> ImageDataset:
    """Every dataset that is on this machine; the digits always are."""
    module = dataset_module(request.param)
    return module.load(module.Config())


@pytest.mark.parametrize("name", dataset_names())
def test_description(name: str) -> None:
    module = dataset_module(name)
    assert isinstance(module.INFO, DatasetInfo) and module.INFO.name == name
    assert len(set(module.INFO.class_names)) == module.INFO.num_classes
    assert module.Config.__dataclass_params__.frozen
    assert all(type(v) in (str, int, float, bool) for v in dataclasses.asdict(module.Config()).values())
    summary = module.__doc__.splitlines()[0]
    assert summary.endswith(".") and len(summary) <= 100
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) <= 150


def test_digits_are_always_present() -> None:
    assert "digits" in PRESENT
    assert digits.locate(digits.Config()) == "bundled with scikit-learn"


def test_shapes_types_and_classes(dataset: ImageDataset) -> None:
    info = dataset.info
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.images.shape == (len(split), info.channels, info.image_size, info.image_size)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        assert split.images.flags.c_contiguous and split.images.flags.writeable
        shares = np.bincount(split.labels, minlength=info.num_classes) / len(split)
        assert len(shares) == info.num_classes
        np.testing.assert_allclose(shares, 1 / info.num_classes, atol=0.02)
    assert dataset.train.images.min() == 0 and dataset.train.images.max() == 255


def test_splits_are_disjoint(dataset: ImageDataset) -> None:
    seen = [{i.tobytes() for i in s.images} for s in (dataset.train, dataset.validation, dataset.test)]
    distinct = len(seen[0] | seen[1] | seen[2])
    shared = sum(map(len, seen)) - distinct
    assert shared <= 0.001 * distinct  # a collection may itself hold an image twice


def test_loading_twice_gives_the_same_object(dataset: ImageDataset) -> None:
    module = dataset_module(dataset.info.name)
    assert module.load(module.Config()) is dataset


@pytest.mark.parametrize("name", catalog.shipped())
def test_a_shipped_extractor_was_trained_on_the_data_of_its_name(name: str) -> None:
    module = dataset_module(name)
    assert module.load(module.Config()).sha256 == catalog.card(name)["dataset_sha256"]


def test_a_shipped_extractor_fits_every_dataset_that_names_it() -> None:
    infos = [dataset_module(name).INFO for name in dataset_names()]
    fitted = [info for info in infos if info.default_features in catalog.shipped()]
    assert {info.default_features for info in fitted} == set(catalog.shipped())
    for info in fitted:
        trained_on = dataset_module(info.default_features).INFO
        assert (info.channels, info.image_size) == (trained_on.channels, trained_on.image_size)


def test_sha256_changes_with_any_pixel_and_label() -> None:
    data = digits.load(digits.Config())
    hashes = {data.sha256}
    for array in ("images", "labels"):
        changed = getattr(data.test, array).copy()
        changed.flat[-1] ^= 1
        hashes.add(dataclasses.replace(data, test=dataclasses.replace(data.test, **{array: changed})).sha256)
    assert len(hashes) == 3


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data = digits.load(digits.Config())
    splits = (data.train, data.validation, data.test)
    assert [len(s) for s in splits] == [1_197, 100, 500]
    pixels = np.concatenate([s.images for s in splits]).reshape(-1, 64)
    labels = np.concatenate([s.labels for s in splits])
    source, digit = load_digits(return_X_y=True)
    ours = sorted(
        (p.tobytes(), n) for p, n in zip((pixels.astype(float) * 16 / 255).round(), labels, strict=True)
    )
    assert ours == sorted((p.tobytes(), n) for p, n in zip(source, digit, strict=True))
    assert np.unique(pixels).tolist() == [round(level * 255 / 16) for level in range(17)]


def test_nothing_here_imports_torch(root: Path) -> None:
    names = [f"datamodules.{name}" for name in dataset_names()]
    code = f"import sys, {', '.join(names)}; print({{'torch', 'sklearn', 'scipy'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_density_comes_with_what_is_asked_of_it(dataset: ImageDataset) -> None:
    density = dataset.density
    if density is None:
        return
    n = 50
    drawn = density.sample(n, seed=0)
    assert drawn.shape == dataset.test.images[:n].shape and drawn.dtype == np.uint8
    log_p, mode = density.log_prob(dataset.test.images[:n]), density.mode(dataset.test.images[:n])
    assert log_p.shape == mode.shape == (n,) and log_p.dtype == np.float64 and mode.dtype == np.int64
    assert np.isfinite(log_p).all() and (log_p < 0).all() and (mode >= 0).all() and (mode < density.num_modes).all()
    assert density.weights.shape == (density.num_modes,) and density.weights.sum() == pytest.approx(1)
    entropy, error = density.entropy()
    assert entropy > 0 and error >= 0 and density.entropy() == (entropy, error)


def test_the_density_does_not_enter_the_hash() -> None:
    data = digits.load(digits.Config())
    assert data.density is None and data.info.default_features == "digits"
    density = known_density.load(known_density.Config()).density
    assert dataclasses.replace(data, density=density).sha256 == data.sha256


def test_fashion_mnist_classes() -> None:
    assert fashion_mnist.INFO.class_names[8] == "Bag"
