"""The exam: the same samples asked of every model, the same reference, the same numbers.

A model is asked for as many images as the test split has (or fewer, if told so), of the test
split's classes in its order. It is seen only through its contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.base import ImageDataset
from evaluation.config import EvaluationConfig
from evaluation.controls import asked_labels
from evaluation.features.extractors import ExtractorError, FeatureExtractor, load_extractor
from evaluation.likelihood.bits import score_likelihood
from evaluation.metrics import Exam, all_metrics, score_all
from evaluation.metrics.driver import score_one
from evaluation.record import Likelihood, MetricValue, Speed
from evaluation.speed import measure_speed
from models.base import GenerativeModel

TRAIN_SUFFIX = "_train"


@dataclass(frozen=True)
class Generated:
    """Images uint8 (n, C, H, W) put forward for the labels int64 (n,) that were asked for."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Examination:
    """Everything the exam found out about one model."""

    generated: Generated
    metrics: dict[str, MetricValue]
    likelihood: Likelihood
    speed: Speed


def number_of_samples(dataset: ImageDataset, config: EvaluationConfig) -> int:
    """n of both sides: the test split's size, or fewer if the configuration says so."""
    return min(config.num_samples, len(dataset.test))


def generate(
    model: GenerativeModel, labels: NDArray[np.int64], *, seed: int, batch_size: int,
    on_images: Callable[[int], None] = lambda done: None,
) -> Generated:
    """One image per label, in batches; image i depends on the seed and on i only.

    ``on_images`` is told after every batch how many images there are.
    """
    generator = torch.Generator().manual_seed(seed)
    images: list[torch.Tensor] = []
    for batch in torch.from_numpy(labels).split(batch_size):
        images.append(model.sample(len(batch), condition=batch, generator=generator).images.cpu())
        on_images(sum(map(len, images)))
    return Generated(torch.cat(images).numpy(), labels)


class Reference:
    """A dataset's real side, looked at once: features of test images and of as many training images.

    The training images are the last n of a seeded permutation of which ``controls.real_train``
    takes the first, so that the two do not overlap as long as the split has 2 n images.
    """

    def __init__(self, dataset: ImageDataset, config: EvaluationConfig, *, seed: int) -> None:
        self.dataset = dataset
        self.n = number_of_samples(dataset, config)
        self.missing: str | None = None
        self.extractor: FeatureExtractor | None = None
        try:
            self.extractor = load_extractor(dataset.info.name)
        except ExtractorError as error:
            self.missing = str(error)
            return
        rows = np.random.default_rng(seed).permutation(len(dataset.train))[-self.n :]
        self.test = self.extractor.extract(dataset.test.images[: self.n]).features
        self.train = self.extractor.extract(dataset.train.images[rows]).features

    @property
    def extractor_sha256(self) -> str | None:
        """Hash of the feature extractor's weights."""
        return self.extractor.sha256 if self.extractor else None

    def score(self, generated: Generated) -> dict[str, MetricValue]:
        """All metrics against the test split, and the Fréchet distance against the train split."""
        name = self.dataset.info.name
        if self.extractor is None:
            missing = MetricValue(None, None, None, self.n, len(generated.images), name, False, self.missing)
            return {
                n.format(features=name): replace(missing, higher_is_better=m.higher_is_better)
                for m in all_metrics() for n in m.names
            }
        seen = self.extractor.extract(generated.images)
        exam = Exam(self.test, seen.features, seen.predictions, generated.labels)
        metrics = score_all(exam, name)
        for metric in all_metrics():
            if metric.names == ("fd_{features}",):
                beside = score_one(metric, replace(exam, real=self.train), name)
                metrics |= {key + TRAIN_SUFFIX: value for key, value in beside.items()}
        return metrics


def examine(
    model: GenerativeModel, reference: Reference, config: EvaluationConfig, *, seeds: dict[str, int],
    on_images: Callable[[int], None] = lambda done: None,
) -> Examination:
    """Samples, metrics, likelihood and speed of a trained model.

    Args:
        model: In evaluation mode.
        reference: The real side.
        config: The exam's options.
        seeds: For the axes ``samples`` and ``likelihood``.
        on_images: Told how many images are generated so far.
    """
    dataset = reference.dataset
    labels = asked_labels(dataset, reference.n)
    generated = generate(
        model, labels, seed=seeds["samples"], batch_size=config.batch_size, on_images=on_images
    )
    likelihood = score_likelihood(
        model,
        torch.from_numpy(dataset.test.images[: config.num_likelihood_images]),
        generator=torch.Generator().manual_seed(seeds["likelihood"]),
        batch_size=config.batch_size,
    )
    speed = measure_speed(model, seed=seeds["samples"], repeats=config.speed_repeats)
    return Examination(generated, reference.score(generated), likelihood, speed)
