"""The real side of the exam: a dataset's images seen through every feature space that is asked for.

Real images are looked at once and kept by content (``features.cache``), generated ones each time.
Beside the extractors there is the space of the pixels themselves, for what asks about memorisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datamodules.base import ImageDataset
from evaluation.config import EvaluationConfig
from evaluation.features.cache import cached_features
from evaluation.features.catalog import shipped
from evaluation.features.extractors import ExtractorError, FeatureExtractor, Features, load_extractor
from evaluation.features.pixels import pixel_features
from evaluation.fingerprint import AS_GIVEN, image_hash, relevant_versions, stamped
from evaluation.metrics import Exam, MetricInfo, all_metrics
from evaluation.metrics.driver import metric_key, score_one
from evaluation.record import Fingerprint, MetricValue

TRAIN_SUFFIX = "_train"
PIXELS = "pixels"
FRECHET = "fd_{features}"  # the name under which the distance is declared
SHARE = "precision"  # that of precision and recall, which come together


@dataclass(frozen=True)
class Generated:
    """Images uint8 (n, C, H, W) put forward for the labels int64 (n,) that were asked for, if any.

    ``quantiser`` and ``resize`` say what was done to them before they came here.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    quantiser: str = AS_GIVEN
    resize: str = "none"


@dataclass(frozen=True)
class Space:
    """A feature space with the real images' features in it; ``missing`` says why there is none."""

    name: str
    extractor: FeatureExtractor | None = None
    test: Features | None = None
    train_part: Features | None = None
    train: NDArray[np.floating] | None = None
    missing: str | None = None

    def look(self, images: NDArray[np.uint8]) -> Features:
        """Features of other images, uint8 (N, C, H, W)."""
        if self.extractor is None:
            return Features(pixel_features(images), None, None)
        return self.extractor.extract(images)

    @property
    def resize(self) -> str:
        """What the extractor does to the size of an image."""
        return self.extractor.resize if self.extractor else "none"


def number_of_samples(dataset: ImageDataset, config: EvaluationConfig) -> int:
    """n of both sides: the test split's size, or fewer if the configuration says so."""
    return min(config.num_samples, len(dataset.test))


class Reference:
    """Features of n test images and of as many training images, in every space.

    The training images are the last n of a seeded permutation of which ``controls.real_train``
    takes the first, so that the two do not overlap as long as the split has 2 n images.
    """

    def __init__(self, dataset: ImageDataset, config: EvaluationConfig, *, seed: int) -> None:
        self.dataset = dataset
        self.n = number_of_samples(dataset, config)
        self.images = dataset.test.images[: self.n]
        self.labels = dataset.test.labels[: self.n]
        rows = np.random.default_rng(seed).permutation(len(dataset.train))[-self.n :]
        self.train_images = dataset.train.images[rows]
        self.features = config.features or (dataset.info.default_features,)
        self.spaces = [*map(self._space, self.features), self._pixels()]
        self.hashes = {"test": image_hash(self.images), "train": image_hash(self.train_images)}
        self.hashes["train and test"] = dataset.sha256
        self.versions = relevant_versions()

    def _space(self, name: str) -> Space:
        try:
            extractor = load_extractor(name)
            test = cached_features(extractor, self.images)
        except (ExtractorError, ValueError) as error:
            return Space(name, missing=str(error))
        # Every training image is looked at only where that is cheap: by the small classifiers.
        everything = cached_features(extractor, self.dataset.train.images).features if name in shipped() else None
        return Space(name, extractor, test, cached_features(extractor, self.train_images), everything)

    def _pixels(self) -> Space:
        real, train = (pixel_features(x) for x in (self.images, self.dataset.train.images))
        return Space(PIXELS, None, Features(real, None, None), None, train)

    @property
    def extractor_sha256(self) -> str | None:
        """Hash of the main feature extractor's weights."""
        extractor = self.spaces[0].extractor
        return extractor.sha256 if extractor else None

    def score(self, generated: Generated) -> dict[str, MetricValue]:
        """All metrics in all spaces against the test split; Fréchet distances against the train split too."""
        values: dict[str, MetricValue] = {}
        for place, space in enumerate(self.spaces):
            values |= self._score_in(space, generated, main=place == 0)
        return values

    def distance(self, generated: Generated) -> tuple[str, MetricValue]:
        """The Fréchet distance to the test split in the main space, with its name; nothing else is computed."""
        return next(iter(self._main(generated, (FRECHET,)).items()))

    def distance_and_shares(self, generated: Generated) -> tuple[tuple[str, MetricValue], dict[str, MetricValue]]:
        """The distance as above; and precision and recall, by name."""
        (name, value), *shares = self._main(generated, (FRECHET, SHARE)).items()
        return (name, value), dict(shares)

    def _main(self, generated: Generated, wanted: tuple[str, ...]) -> dict[str, MetricValue]:
        """The metrics whose first name is wanted, in that order, in the main space."""
        space, by_name = self.spaces[0], {metric.names[0]: metric for metric in all_metrics()}
        metrics = [by_name[name] for name in wanted]
        if space.test is None:
            return self.missing(space, metrics, len(generated.images), True)
        exam = Exam(space.name, space.test.features, space.look(generated.images).features)
        return {
            name: stamped(value, self.fingerprint(space, generated, metric.reference), metric.seed)
            for metric in metrics for name, value in score_one(metric, exam).items()
        }

    def _score_in(self, space: Space, generated: Generated, *, main: bool) -> dict[str, MetricValue]:
        metrics = [metric for metric in all_metrics() if metric.applies(space.name)]
        if space.test is None:
            return self.missing(space, metrics, len(generated.images), main)
        seen = space.look(generated.images)
        exam = Exam(
            features=space.name, real=space.test.features, fake=seen.features, real_labels=self.labels,
            fake_labels=generated.labels, fake_logits=seen.logits, train=space.train,
            held_out=space.test.features,
        )
        values: dict[str, MetricValue] = {}
        for metric in metrics:
            print_ = self.fingerprint(space, generated, metric.reference)
            scores = score_one(metric, exam, main=main)
            values |= {key: stamped(value, print_, metric.seed) for key, value in scores.items()}
            if metric.names == (FRECHET,) and space.train_part is not None:
                print_ = self.fingerprint(space, generated, "train")
                beside = score_one(metric, replace(exam, real=space.train_part.features), main=main)
                values |= {key + TRAIN_SUFFIX: stamped(value, print_) for key, value in beside.items()}
        return values

    def missing(self, space: Space, metrics: list[MetricInfo], n_fake: int, main: bool) -> dict[str, MetricValue]:
        """The reason of a space that is not there, under every name of some metrics."""
        return {
            metric_key(name, space.name, main): MetricValue(
                None, None, None, self.n, n_fake, space.name, metric.higher_is_better, space.missing
            )
            for metric in metrics for name in metric.names
        }

    def fingerprint(self, space: Space, generated: Generated, split: str) -> Fingerprint:
        """The conditions of numbers in a space against a split."""
        steps = [step for step in (generated.resize, space.resize) if step != "none"]
        return Fingerprint(
            features=space.name,
            weights_sha256=space.extractor.sha256 if space.extractor else None,
            dtype=space.extractor.dtype if space.extractor else "float32",
            resize=", then ".join(steps) or "none",
            quantiser=generated.quantiser,
            n_real=self.n,
            n_fake=len(generated.images),
            reference_split=split,
            reference_sha256=self.hashes[split],
            versions=self.versions,
        )
