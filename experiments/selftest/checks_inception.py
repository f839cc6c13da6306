"""The whole way from pixels to Inception's distances, on weights drawn by He's rule and written to a file.

With the default initialisation the features hardly depend on the image and the comparison would see
nothing. torch-fidelity's and torchmetrics' own distances take minutes at 2,048 dimensions, so both sides'
features go through one random projection first; kernel distance and inception score need none.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from experiments.selftest.base import Check, Finding, all_of, at_least, close, largest_deviation

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from evaluation.features.extractors import FeatureExtractor, Features

GROUP = "inception"
N = 8


@lru_cache(maxsize=1)
def folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="selftest-")


@lru_cache(maxsize=1)
def he_weights() -> Path:
    """The file of weights."""
    from evaluation.features.synthetic_weights import he_initialised_inception

    path = Path(folder().name) / "inception.pth"
    he_initialised_inception(path, seed=0)
    return path


@lru_cache(maxsize=1)
def extractor() -> FeatureExtractor:
    """Our Inception with these weights."""
    from evaluation.features.extractors import load_extractor

    return load_extractor("inception", weights=he_weights())


@lru_cache(maxsize=4)
def images(channels: int, seed: int) -> Tensor:
    """Smooth random pictures, with noise that grows with the seed, uint8 (N, channels, 28, 28)."""
    import torch
    from torch.nn import functional as F

    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(N, channels, 4, 4, generator=g)
    smooth = F.interpolate(coarse, size=(28, 28), mode="bilinear")
    noise = torch.randn(N, channels, 28, 28, generator=g)
    return ((smooth + (0.1 + 0.2 * seed) * noise) * 255).clip(0, 255).to(torch.uint8)


@lru_cache(maxsize=4)
def ours(channels: int, seed: int) -> Features:
    """What our extractor makes of them."""
    return extractor().extract(images(channels, seed), batch_size=7)


def projected(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Features (N, 2048) on 5 random directions, fewer than there are pictures."""
    directions = np.random.default_rng(0).normal(size=(features.shape[1], 5))
    return np.asarray(features, np.float64) @ directions / features.shape[1] ** 0.5


def data_set(pictures: Tensor) -> Dataset[Tensor]:
    """Pictures by index, as torch-fidelity reads them."""
    from torch.utils.data import Subset

    return Subset(cast("Dataset[Tensor]", pictures), range(len(pictures)))


@lru_cache(maxsize=4)
def theirs(channels: int, seed: int) -> NDArray[np.float32]:
    """torch-fidelity's 2,048 features, through its own reading and batching; grey pictures are repeated."""
    from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

    pictures = images(channels, seed).expand(-1, 3, -1, -1).contiguous()
    network = create_feature_extractor(
        "inception-v3-compat", ["2048"], cuda=False, verbose=False, feature_extractor_weights_path=str(he_weights())
    )
    found = get_featuresdict_from_dataset(data_set(pictures), network, 5, False, True, False)
    return found["2048"].numpy()


def distance_vs_torch_fidelity(real: tuple[int, int], fake: tuple[int, int]) -> Finding:
    """Two sets by channels and seed: torch-fidelity's distance of its own features against ours of ours."""
    import torch
    from torch_fidelity import metric_fid

    from evaluation.metrics import frechet_distance

    reference = [theirs(*key) for key in (real, fake)]
    spread = float(reference[0].std(0).mean() / np.abs(reference[0]).mean())
    stats = [metric_fid.fid_features_to_statistics(torch.from_numpy(projected(x))) for x in reference]
    expected = metric_fid.fid_statistics_to_metric(*stats, verbose=False)[metric_fid.KEY_METRIC_FID]
    found = frechet_distance(*(projected(ours(*key).features) for key in (real, fake)))
    note = f"features vary by {100 * spread:.0f} % from picture to picture"
    return all_of(at_least(0.02, spread, note), close(expected, found, relative=1e-5, note=note))


def colour() -> Finding:
    """Colour pictures: Fréchet distance of torch-fidelity's features by torch-fidelity's function."""
    return distance_vs_torch_fidelity((3, 0), (3, 1))


def grey() -> Finding:
    """Grey pictures, repeated to three channels, against colour ones."""
    return distance_vs_torch_fidelity((1, 0), (3, 1))


def whole_program() -> Finding:
    """torch-fidelity's calculate_metrics from pictures to kernel distance and inception score."""
    import torch_fidelity

    from evaluation.metrics import inception_score, kernel_distance_subsets

    expected = torch_fidelity.calculate_metrics(
        input1=data_set(images(3, 0)), input2=data_set(images(3, 1)), cuda=False, kid=True, isc=True, kid_subsets=5,
        kid_subset_size=N // 2, isc_splits=2, feature_extractor_weights_path=str(he_weights()), batch_size=N,
        verbose=False, cache=False, save_cpu_ram=True,
    )
    real, fake = ours(3, 0), ours(3, 1)
    if real.logits is None:
        raise ValueError("Inception gives no classes")
    score = inception_score(real.logits, splits=2).mean
    distance = kernel_distance_subsets(real.features, fake.features, subsets=5, size=N // 2).mean
    return all_of(
        close(expected["inception_score_mean"], score, relative=1e-5),
        # theirs adds kernels of float32 features in float32
        close(expected["kernel_inception_distance_mean"], distance, absolute=1e-6),
    )


def torchmetrics_without_antialias() -> Finding:
    """torchmetrics' network without its smoothing resize: features, and their distance."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    from evaluation.metrics import frechet_distance

    network = NoTrainInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(he_weights()), antialias=False
    )
    reference = [projected(network(images(3, seed)).numpy()) for seed in (0, 1)]
    found = [projected(ours(3, seed).features) for seed in (0, 1)]
    return close(frechet_distance(*reference), frechet_distance(*found), relative=3e-6)


def batches() -> Finding:
    """Batches of 1, 7 and all at once."""
    from evaluation.metrics import frechet_distance

    reference = projected(ours(3, 1).features)
    sevens = frechet_distance(projected(ours(3, 0).features), reference)
    others = [projected(extractor().extract(images(3, 0), batch_size=size).features) for size in (1, N)]
    return largest_deviation([sevens] * 2, [frechet_distance(x, reference) for x in others], relative=1e-6)


CHECKS = tuple(
    Check(name, GROUP, run)
    for name, run in (
        ("fid vs torch-fidelity, colour", colour),
        ("fid vs torch-fidelity, grey", grey),
        ("kid, IS vs torch-fidelity's program", whole_program),
        ("fid vs torchmetrics, antialias=False", torchmetrics_without_antialias),
        ("fid in batches of 1, 7 and all", batches),
    )
)
