"""The contract of every dataset file, found by name, and what the two shipped ones promise."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules import digits, fashion_mnist
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
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) <= 120


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


def test_sha256_is_the_one_the_extractor_was_trained_on(dataset: ImageDataset) -> None:
    assert dataset.sha256 == catalog.card(dataset.info.name)["dataset_sha256"]


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


def test_fashion_mnist_classes() -> None:
    assert fashion_mnist.INFO.class_names[8] == "Bag"
