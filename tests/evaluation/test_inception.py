"""Inception as torch-fidelity and torchmetrics use it, on He-initialised weights in a file; library defects.

The files of real weights cannot be had offline. torch-fidelity's distance of 2,048 dimensions takes half a
minute, so that the comparison of distances is slow; by default features are compared.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch_fidelity import GenerativeModelModuleWrapper, calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.utils import (
    create_feature_extractor,
    get_featuresdict_from_dataset,
    get_featuresdict_from_generative_model,
)
from torchmetrics.image.fid import FrechetInceptionDistance

from evaluation.features.catalog import ExtractorError
from evaluation.features.extractors import FeatureExtractor, activation_dtype, load_extractor
from evaluation.features.fidelity_networks import FidelityNetwork
from evaluation.features.synthetic_weights import he_initialised_inception
from evaluation.metrics import frechet_distance, inception_score
from models.base import to_uint8

Array = np.ndarray


class Pictures(Dataset[torch.Tensor]):
    """Images as torch-fidelity wants them: RGB, one by one."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images.repeat(1, 4 - images.shape[1] if images.shape[1] == 1 else 1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def pictures(n: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth random colours with noise, uint8 (n, channels, height, width); odd seeds are darker."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 4, 4, generator=g) * (1 - 0.2 * (seed % 2))
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear")
    return ((smooth + 0.1 * torch.randn(n, channels, height, width, generator=g)) * 255).clip(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights as torch-fidelity reads it."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    he_initialised_inception(path, seed=0)
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> FeatureExtractor:
    """Our Inception."""
    return load_extractor("inception", weights=weights)


def test_features_are_torch_fidelitys(extractor: FeatureExtractor, weights: Path) -> None:
    network = create_feature_extractor(
        "inception-v3-compat", ["2048", "logits_unbiased"], cuda=False, verbose=False,
        feature_extractor_weights_path=str(weights),
    )
    for channels, height, width in ((1, 8, 8), (1, 28, 28), (3, 32, 48), (3, 400, 400)):
        images = pictures(2, channels, height, width)
        ours = extractor.extract(images, batch_size=1)
        theirs = get_featuresdict_from_dataset(Pictures(images), network, 3, False, True, False)
        assert ours.features.std(0).mean() > 1e-3 * ours.features.mean()  # they vary: the comparison is not vacuous
        np.testing.assert_allclose(ours.features, theirs["2048"], rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(ours.logits, theirs["logits_unbiased"], rtol=2e-5, atol=1e-5)
    assert (ours.features.shape, ours.logits.shape) == ((2, 2048), (2, 1008))
    assert (ours.predictions == ours.logits.argmax(1)).all()
    assert (extractor.name, extractor.resize) == ("inception", "299x299 bilinear, TensorFlow 1 grid")


def test_features_are_torchmetrics_without_antialiasing(extractor: FeatureExtractor, weights: Path) -> None:
    images = pictures(4, 3, 32, 32)
    ours = extractor.extract(images).features
    differences = []
    for antialias in (False, True):
        metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights), antialias=antialias)
        differences.append(np.abs(metric.inception(images).numpy() - ours).max() / ours.std())
    assert differences[0] < 1e-5 and differences[1] > 1e-3  # antialiasing, their default, is another metric


def test_result_does_not_depend_on_the_batch_size(extractor: FeatureExtractor) -> None:
    images = pictures(8, 1, 28, 28), pictures(8, 1, 28, 28, seed=1)
    distances = [
        frechet_distance(*(extractor.extract(x, batch_size).features for x in images)) for batch_size in (1, 7, 64)
    ]
    assert distances[0] > 0 and np.ptp(distances) < 1e-6 * distances[0]


def test_features_see_more_than_with_default_initialisation(extractor: FeatureExtractor) -> None:
    torch.manual_seed(0)
    default = load_extractor_of_default_weights(extractor)
    images = pictures(4, 3, 32, 32)
    seen, died_out = (e.extract(images).features for e in (extractor, default))
    assert seen.std(0).mean() > 0.02 * seen.mean() > 1e-3
    assert died_out.std(0).mean() < 1e-6 * seen.std(0).mean()


def load_extractor_of_default_weights(like: FeatureExtractor) -> FeatureExtractor:
    """The same network as PyTorch initialises it."""
    network = copy.deepcopy(like.network)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.reset_parameters()
    return FeatureExtractor("default", "", network)


def test_float64_of_torch_fidelity_is_float32_and_our_record_says_what_is(weights: Path) -> None:
    asked = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], str(weights), feature_extractor_internal_dtype="float64"
    )
    network = FidelityNetwork(asked, 299)
    assert FeatureExtractor("asked", "", network).dtype == "float32"  # the defect: it was asked for float64
    network.double()
    asked.feature_extractor_internal_dtype = torch.float64
    assert activation_dtype(network, network.example()) == "float64"  # and this is how the real thing is seen


def test_same_seed_same_weights(weights: Path, tmp_path: Path) -> None:
    he_initialised_inception(tmp_path / "other.pth", seed=1)
    he_initialised_inception(tmp_path / "same.pth", seed=0)
    paths = (weights, tmp_path / "other.pth", tmp_path / "same.pth")
    first, other, same = (torch.load(path, weights_only=True) for path in paths)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    assert first["fc.weight"].std().item() == pytest.approx((2 / 2048) ** 0.5, rel=1e-2)


def test_inceptions_weights_do_not_land_in_vgg(weights: Path, extractor: FeatureExtractor) -> None:
    with pytest.raises(ExtractorError, match="does not hold weights of 'vgg16'"):
        load_extractor("vgg16", weights=weights)
    images = Pictures(pictures(4, 3, 8, 8))
    with pytest.raises(RuntimeError, match="loading state_dict for VGG"):  # the defect: one path for both networks
        calculate_metrics(
            input1=images, input2=images, prc=True, cuda=False, verbose=False, cache=False, save_cpu_ram=True,
            feature_extractor_weights_path=str(weights),
        )


def test_conditional_generators_of_torch_fidelity_are_not_used(extractor: FeatureExtractor, root: Path) -> None:
    class Generator(torch.nn.Module):
        """Grey images, whatever the noise and the labels."""

        def forward(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return torch.full((len(noise), 3, 8, 8), 128, dtype=torch.uint8)

    model = GenerativeModelModuleWrapper(Generator(), 2, "normal", 3)
    with pytest.raises(AttributeError, match="int"):  # the defect: np.int is gone from NumPy
        get_featuresdict_from_generative_model(model, extractor.network.network, 2, 2, False, 0, False)
    for source in (root / "evaluation").rglob("*.py"):  # all that is imported is networks and their resize
        imported = re.findall(r"from (torch_fidelity[.\w]*) import", source.read_text())
        assert all(re.match(r"torch_fidelity\.(feature_extractor_|interpolate)", name) for name in imported), source


def test_torchmetrics_truncates_where_our_quantiser_rounds(weights: Path) -> None:
    metric = FrechetInceptionDistance(feature=64, feature_extractor_weights_path=str(weights), normalize=True)
    seen: list[torch.Tensor] = []
    metric.inception.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    metric.update(torch.full((2, 3, 4, 4), 100.6 / 255), real=True)
    assert seen[0].dtype == torch.uint8 and (seen[0] == 100).all()  # the defect
    assert (to_uint8(torch.full((2, 3, 4, 4), 100.6 / 127.5 - 1)) == 101).all()


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (1, 28), (3, 32), (1, 400), (3, 400)])
def test_fid_and_inception_score_are_torch_fidelitys(
    extractor: FeatureExtractor, weights: Path, channels: int, size: int
) -> None:
    real, fake = (pictures(24, channels, size, size, seed) for seed in (0, 1))
    theirs = calculate_metrics(
        input1=Pictures(fake), input2=Pictures(real), fid=True, isc=True, isc_splits=1, samples_shuffle=False,
        cuda=False, verbose=False, cache=False, save_cpu_ram=True, batch_size=16,
        feature_extractor_weights_path=str(weights),
    )
    a, b = extractor.extract(real), extractor.extract(fake)
    assert a.logits is not None and b.logits is not None
    assert frechet_distance(a.features, b.features) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert inception_score(b.logits).mean == pytest.approx(theirs["inception_score_mean"], rel=1e-5)


@pytest.mark.slow
def test_fid_is_torchmetrics_without_antialiasing(extractor: FeatureExtractor, weights: Path) -> None:
    real, fake = (pictures(24, 3, 32, 32, seed) for seed in (0, 1))
    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights), antialias=False)
    metric.set_dtype(torch.float64)  # what it accumulates in
    metric.update(real, real=True)
    metric.update(fake, real=False)
    ours = frechet_distance(extractor.extract(real).features, extractor.extract(fake).features)
    assert ours == pytest.approx(metric.compute().item(), rel=3e-6)
