"""The exam: the same samples asked of every model, the same reference, the same numbers.

A model is asked for as many images as the test split has (or fewer, if told so), of the test
split's classes in its order. It is seen only through its contract. Images from elsewhere sit the
part of the exam that needs no model. Several processes share the batches of what a model answers; the
first one has all answers and judges them.
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
from evaluation.likelihood.bits import ScoredBound, missing, score_likelihood
from evaluation.reconstruction import Reconstructed, judge_first_stage, reconstructed
from evaluation.record import FirstStage, Likelihood, MetricValue, Speed, Truth
from evaluation.reference import Generated, Reference, number_of_samples
from evaluation.sharing import in_turns
from evaluation.speed import measure_speed
from evaluation.truth import caught, measure_truth
from models.base import GenerativeModel, image_generators

__all__ = [
    "Answers", "Examination", "Generated", "Reference", "answer", "examine", "examine_images", "generate", "judge",
    "number_of_samples",
]

CALIBRATION_IMAGES = 64  # of the validation split
NOT_ASKED = "it was not asked for: --evaluation.num_slow_likelihood_images is 0"

OnProgress = Callable[[str, int, int], None]


def silent(name: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Answers:
    """What a model was asked for: samples, its kinds of likelihood, and what its first stage gives back, if any."""

    generated: Generated
    bounds: list[ScoredBound]
    reconstructed: Reconstructed | None = None


@dataclass(frozen=True)
class Examination:
    """Everything the exam found out about one model; ``likelihoods`` has one entry per kind."""

    generated: Generated
    metrics: dict[str, MetricValue]
    likelihoods: tuple[Likelihood, ...]
    speed: Speed
    truth: Truth | None
    reconstruction: FirstStage | None = None


def generate(
    model: GenerativeModel, labels: NDArray[np.int64], *, seed: int, batch_size: int,
    on_images: Callable[[int], None] = lambda done: None,
) -> Generated:
    """One image per label, in batches; image i depends on the seed and on i only.

    ``on_images`` is told after every batch how many images there are. Of several processes the first
    gets all images, the others those they made.
    """
    generator = torch.Generator().manual_seed(seed)
    images = in_turns(
        torch.from_numpy(labels).split(batch_size),
        lambda batch: model.sample(len(batch), condition=batch, generator=generator).images.cpu(),
        skip=lambda batch: image_generators(len(batch), generator),
        on_item=lambda done: on_images(min(done * batch_size, len(labels))),
    ) or [torch.empty(0, *model.image_shape, dtype=torch.uint8)]
    return Generated(torch.cat(images).numpy(), labels)


def score_likelihoods(
    model: GenerativeModel, dataset: ImageDataset, config: EvaluationConfig, *, seed: int, tell: OnProgress = silent
) -> list[ScoredBound]:
    """Every kind of likelihood that a model offers and the exam asks for, on the first images of the test split."""
    sizes = {
        kind: config.num_slow_likelihood_images if kind in model.slow_likelihood_kinds else config.num_likelihood_images
        for kind in model.likelihood_kinds
    }
    if any(sizes.values()):
        held_out = torch.from_numpy(dataset.validation.images[:CALIBRATION_IMAGES])
        if type(model).calibrate_likelihood is not GenerativeModel.calibrate_likelihood:
            tell("calibrating the likelihood", 0, 1)
        model.calibrate_likelihood(held_out, generator=torch.Generator().manual_seed(seed))
    found = []
    for kind, n in sizes.items():
        images = torch.from_numpy(dataset.test.images[:n])
        if n == 0:
            found.append(ScoredBound(missing(NOT_ASKED, kind), dataset.test.images[:0], np.zeros(0)))
            continue
        name, total = f"likelihood: {kind}", len(images)
        tell(name, 0, total)
        bound = score_likelihood(
            model, images, generator=torch.Generator().manual_seed(seed), batch_size=config.batch_size, kind=kind,
            on_images=lambda done, name=name, total=total: tell(name, done, total),
        )
        found.append(bound)
    return found


def examine_images(
    reference: Reference, generated: Generated, bounds: list[ScoredBound] | None = None
) -> tuple[dict[str, MetricValue], Truth | None]:
    """What images alone can be asked: every metric, and the truth where the density is known."""
    metrics = reference.score(generated)
    density = reference.dataset.density
    truth = measure_truth(density, generated.images, bounds or []) if density else None
    return metrics, truth


def believed(bounds: list[ScoredBound], truth: Truth | None) -> tuple[Likelihood, ...]:
    """The likelihoods, without the number of any that claims more than the true density allows."""
    gaps = {gap.kind: gap for gap in truth.gaps} if truth else {}
    found = []
    for bound in bounds:
        likelihood = bound.likelihood
        reason = caught(gaps[likelihood.kind]) if likelihood.kind in gaps else None
        if reason:
            likelihood = replace(missing(reason, likelihood.kind), self_check=reason, self_check_passed=False)
        found.append(likelihood)
    return tuple(found)


def answer(
    model: GenerativeModel, dataset: ImageDataset, config: EvaluationConfig, *, seeds: dict[str, int],
    tell: OnProgress = silent,
) -> Answers:
    """Ask a model in evaluation mode for samples, likelihoods and reconstructions; every process takes part."""
    n = number_of_samples(dataset, config)
    labels = asked_labels(dataset, n)
    tell("sampling for the exam", 0, len(labels))
    generated = generate(
        model, labels, seed=seeds["samples"], batch_size=config.batch_size,
        on_images=lambda done: tell("sampling for the exam", done, len(labels)),
    )
    bounds = score_likelihoods(model, dataset, config, seed=seeds["likelihood"], tell=tell)
    back = reconstructed(
        model, dataset.test.images[:n], batch_size=config.batch_size,
        on_images=lambda done: tell("reconstructions", done, n),
    )
    return Answers(generated, bounds, back)


def judge(
    model: GenerativeModel, reference: Reference, config: EvaluationConfig, answers: Answers, *,
    seeds: dict[str, int], tell: OnProgress = silent,
) -> Examination:
    """Metrics, truth, first stage and speed; by one process, which has all answers."""
    tell("metrics", 0, 1)
    metrics, truth = examine_images(reference, answers.generated, answers.bounds)
    back = answers.reconstructed
    reconstruction = judge_first_stage(reference, back) if back else None
    tell("sampling speed", 0, 1)
    speed = measure_speed(model, seed=seeds["samples"], repeats=config.speed_repeats)
    likelihoods = believed(answers.bounds, truth) or (missing(model.likelihood_missing),)
    return Examination(answers.generated, metrics, likelihoods, speed, truth, reconstruction)


def examine(
    model: GenerativeModel, reference: Reference, config: EvaluationConfig, *, seeds: dict[str, int],
    tell: OnProgress = silent,
) -> Examination:
    """Samples, metrics, likelihoods, first stage and speed of a trained model, by one process.

    Args:
        model: In evaluation mode.
        reference: The real side.
        config: The exam's options.
        seeds: For the axes ``samples`` and ``likelihood``.
        tell: Told what is being done, how far it is and how far it goes.
    """
    answers = answer(model, reference.dataset, config, seeds=seeds, tell=tell)
    return judge(model, reference, config, answers, seeds=seeds, tell=tell)
