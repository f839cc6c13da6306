"""The shipped extractors: accuracy as on the card, checksums, determinism, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import digits
from evaluation.features import catalog
from evaluation.features.catalog import ExtractorError
from evaluation.features.classifier import Classifier
from evaluation.features.extractors import FeatureExtractor, load_extractor, read_extractor
from evaluation.features.train import RECIPES, augment, fit, main, ship
from experiments.discovery import dataset_module

REQUIRED = {"digits": 0.98, "fashion_mnist": 0.92}


def on_this_machine(name: str) -> bool:
    """Whether a dataset can be loaded without a download."""
    module = dataset_module(name)
    return "download" not in module.locate(module.Config())


PRESENT = [name for name in REQUIRED if on_this_machine(name)]


def random_images(extractor: FeatureExtractor, n: int) -> np.ndarray:
    """Uniform noise of the extractor's format."""
    size = extractor.network.image_size
    return np.random.default_rng(0).integers(0, 256, (n, extractor.network.channels, size, size), np.uint8)


@pytest.fixture(params=catalog.shipped())
def extractor(request: pytest.FixtureRequest) -> FeatureExtractor:
    """Every shipped extractor."""
    return load_extractor(request.param)


def test_shipped() -> None:
    assert catalog.shipped() == sorted(RECIPES) == sorted(REQUIRED)
    assert catalog.available()[: len(REQUIRED)] == catalog.shipped()


@pytest.mark.parametrize("name", REQUIRED)
def test_card(name: str) -> None:
    card = catalog.card(name)
    assert catalog.weights_path(name).stat().st_size <= 1_000_000
    assert card["accuracy"] >= REQUIRED[name]
    assert card["command"] == f"python -m evaluation.features.train {name} --seed {card['seed']}"
    assert card["sha256"] == catalog.verify(name) == load_extractor(name).sha256
    assert {"n_test", "dataset_sha256", "versions", "threads"} <= set(card)


@pytest.mark.parametrize("name", PRESENT)
def test_accuracy_is_the_one_on_the_card(name: str) -> None:
    module, card = dataset_module(name), catalog.card(name)
    test = module.load(module.Config()).test
    share = (load_extractor(name).extract(test.images).predictions == test.labels).mean()
    assert share == pytest.approx(card["accuracy"], abs=2e-4)  # other processors round otherwise
    assert len(test) == card["n_test"]


def test_shapes_and_types(extractor: FeatureExtractor) -> None:
    seen = extractor.extract(random_images(extractor, 7))
    assert seen.features.shape == (7, extractor.num_features) and seen.features.dtype == np.float32
    assert seen.logits.shape == (7, extractor.network.num_classes) and seen.logits.dtype == np.float32
    assert seen.predictions.dtype == np.int64 and (seen.predictions == seen.logits.argmax(1)).all()


def test_result_depends_on_the_image_only(extractor: FeatureExtractor) -> None:
    images = random_images(extractor, 60)
    whole = extractor.extract(images)
    for batch_size in (1, 7, 60, 1000):
        again = extractor.extract(torch.from_numpy(images), batch_size)
        np.testing.assert_allclose(again.features, whole.features, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(again.logits, whole.logits, rtol=1e-4, atol=1e-4)
    order = np.random.default_rng(1).permutation(60)
    shuffled = extractor.extract(images[order])
    np.testing.assert_allclose(shuffled.features, whole.features[order], rtol=1e-4, atol=1e-5)
    assert (extractor.extract(images).features == whole.features).all()
    assert (load_extractor(extractor.name).extract(images).features == whole.features).all()


def test_training_mode_elsewhere_does_not_leak_in(extractor: FeatureExtractor) -> None:
    assert not extractor.network.training
    assert not any(p.requires_grad for p in extractor.network.parameters())


def test_no_feature_is_dead() -> None:
    data = digits.load(digits.Config())
    features = load_extractor("digits").extract(data.train.images).features.astype(np.float64)
    assert features.std(0).min() > 0.05 * features.std(0).max()
    assert np.linalg.matrix_rank(features - features.mean(0)) == features.shape[1]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 1, 7, 8), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((0, 1, 8, 8), np.uint8),
        np.zeros((2, 1, 8, 8), np.float32),
        torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
    ],
)
def test_wrong_images_are_refused(images: np.ndarray | torch.Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"'digits' takes uint8 images \(N, 1, 8, 8\) with N >= 1, not"
    ) as caught:
        load_extractor("digits").extract(images)
    assert str(tuple(images.shape)) in str(caught.value)


def test_what_a_shipped_extractor_says_of_itself(extractor: FeatureExtractor) -> None:
    assert (extractor.dtype, extractor.resize) == ("float32", "none")


def test_wrong_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        load_extractor("digits").extract(np.zeros((2, 1, 8, 8), np.uint8), batch_size=0)


def test_unknown_name() -> None:
    for function in (load_extractor, catalog.card, catalog.verify, catalog.weights_path):
        with pytest.raises(
            ExtractorError, match=r"unknown feature extractor 'digit'; did you mean 'digits'\? allowed: digits, fash"
        ):
            function("digit")


@pytest.mark.parametrize("position", [0, 5_000, -1])
def test_flipped_byte_is_refused(tmp_path: Path, position: int) -> None:
    weights = Path(shutil.copy(catalog.weights_path("digits"), tmp_path))
    shutil.copy(catalog.weights_path("digits").with_suffix(".json"), tmp_path)
    assert read_extractor(weights).sha256 == catalog.card("digits")["sha256"]
    content = bytearray(weights.read_bytes())
    content[position] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ExtractorError, match="is damaged: its SHA-256 should be") as caught:
        read_extractor(weights)
    assert catalog.card("digits")["sha256"] in str(caught.value) and str(weights) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", "{"])
def test_damaged_card_is_refused(tmp_path: Path, content: str) -> None:
    weights = Path(shutil.copy(catalog.weights_path("digits"), tmp_path))
    weights.with_suffix(".json").write_text(content)
    with pytest.raises(ExtractorError, match=r"digits\.json is not an extractor's card"):
        read_extractor(weights)


def test_catalog_imports_no_torch(root: Path) -> None:
    code = "import sys, evaluation.features.catalog as c; c.verify('digits'); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_augmentation_moves_whole_pixels_and_mirrors() -> None:
    recipe = RECIPES["fashion_mnist"]
    image = torch.rand(1, 1, 28, 28) * 2 - 1
    moved = augment(image.expand(64, -1, -1, -1), recipe, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2), value=-1.0)
    windows = [
        p[..., r : r + 28, c : c + 28] for p in (padded, padded.flip(-1)) for r in range(5) for c in range(5)
    ]
    matches = [[torch.allclose(m, w[0], atol=1e-4) for w in windows].index(True) for m in moved]
    assert len(set(matches)) > 20


def test_training_learns_and_ships_what_loads(tmp_path: Path) -> None:
    data = digits.load(digits.Config())
    recipe = replace(RECIPES["digits"], widths=(8, 16, 16), epochs=3, ema_decay=0.9)
    network = fit(recipe, data, seed=0)
    ship(network, recipe, data, 0, tmp_path)
    card = json.loads((tmp_path / "digits.json").read_text())
    extractor = read_extractor(tmp_path / "digits.safetensors")
    share = (extractor.extract(data.test.images).predictions == data.test.labels).mean()
    assert share == card["accuracy"] > 0.8
    assert (extractor.num_features, card["n_test"], card["dataset_sha256"]) == (16, 500, data.sha256)


def test_command_refuses_an_unknown_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["digit"])
    assert caught.value.code == 2 and "fashion_mnist" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (28, 2), (32, 2), (64, 4)])
def test_classifier_fits_other_formats(size: int, patch: int) -> None:
    network = Classifier(channels=3, image_size=size, num_classes=7, widths=(4, 6, 9), patch=patch).eval()
    seen = network(torch.zeros(2, 3, size, size))
    assert seen.features.shape == (2, 9) and seen.logits.shape == (2, 7)
