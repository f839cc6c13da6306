"""Measures curves: the exam's distance at every setting that a model offers, and where its bits lie.

A model is seen through its contract only: it offers the settings (``GenerativeModel.sweeps``) and the profile of
its likelihood. Images are asked for as in the exam, of the same classes and from the same seed axis, and judged by
the same reference. Whatever was measured before under the same conditions is taken from the file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.base import ImageDataset
from evaluation.controls import asked_labels, real_train
from evaluation.curves import BitProfile, CurvePoint, Curves, Floor, SweepAxis, setting_key
from evaluation.likelihood.bits import bits_per_dim, mean_interval
from evaluation.reference import Generated, Reference
from models.base import GenerativeModel, Profile, Setting, Sweep

PROFILE_IMAGES = 200  # of the test split

Save = Callable[[Curves], None]
Tell = Callable[[str], None]


class SweepError(ValueError):
    """Curves that cannot be measured; the message is one sentence."""


@dataclass(frozen=True)
class Conditions:
    """Under which all points of a call are measured: seeds of ``samples`` and ``likelihood``, and a batch's size."""

    samples_seed: int
    likelihood_seed: int
    batch_size: int


def draw(
    model: GenerativeModel, labels: NDArray[np.int64], setting: Setting, *, seed: int, batch_size: int
) -> tuple[Generated, int]:
    """One image per label under a setting, and network evaluations per image; image i depends on seed and i only."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        model.sample(len(batch), condition=batch, generator=generator, **setting.options)
        for batch in torch.from_numpy(labels).split(batch_size)
    ]
    return Generated(torch.cat([part.images.cpu() for part in parts]).numpy(), labels), parts[0].nfe


def floors_of(reference: Reference, *, seed: int) -> tuple[Floor, ...]:
    """Distance, precision and recall of as many real training images, the very ones of the control ``real_train``."""
    drawn = real_train(reference.dataset, reference.n, np.random.default_rng(seed))
    distance, shares = reference.distance_and_shares(Generated(drawn.images, drawn.labels))
    return tuple(Floor(*item) for item in (distance, *shares.items()))


def measure_sweeps(
    model: GenerativeModel, sweeps: Sequence[Sweep], reference: Reference, known: Curves, conditions: Conditions, *,
    controls_seed: int, save: Save, tell: Tell,
) -> Curves:
    """Every setting's distance, with precision and recall beside it; ``save`` is called after each that was not known.

    Args:
        model: In evaluation mode.
        sweeps: What it offers.
        reference: The real side, of n images.
        known: What was measured before, of the same checkpoint.
        conditions: Seeds and batch size.
        controls_seed: That of the rows that were not trained.
        save: Told all curves so far.
        tell: Told a line for every point.

    Raises:
        SweepError: The distance cannot be had at all, for want of features or of images.
    """
    floor, *others = floors_of(reference, seed=controls_seed)
    if floor.value.value is None:
        raise SweepError(f"there is no {floor.metric} to measure: {floor.value.reason_missing}")
    tell(f"  floor, real training images: {_shown(floor.metric, floor)}")
    curves = _with_floors(_with_axes(known, sweeps), (floor, *others))
    labels = asked_labels(reference.dataset, reference.n)
    total, place = sum(len(sweep.settings) for sweep in sweeps), 0
    for sweep in sweeps:
        for setting in sweep.settings:
            place += 1
            point = _found(curves, sweep, setting, floor, conditions.samples_seed)
            again = " (measured before)" if point else ""
            if point is None:
                point = _measured(model, sweep, setting, reference, labels, conditions)
            curves = _with_point(curves, point)
            if not again:
                save(curves)
            tell(f"  {place}/{total} {sweep.name}: {_described(point)}{again}")
    save(curves)
    return curves


def _measured(
    model: GenerativeModel, sweep: Sweep, setting: Setting, reference: Reference, labels: NDArray[np.int64],
    conditions: Conditions,
) -> CurvePoint:
    start, seed = time.perf_counter(), conditions.samples_seed
    generated, nfe = draw(model, labels, setting, seed=seed, batch_size=conditions.batch_size)
    (metric, value), shares = reference.distance_and_shares(generated)
    x = float(nfe) if setting.x is None else setting.x
    seconds = time.perf_counter() - start
    return CurvePoint(sweep.name, setting.series, x, dict(setting.options), nfe, metric, value, seed, seconds, shares)


def _found(curves: Curves, sweep: Sweep, setting: Setting, floor: Floor, seed: int) -> CurvePoint | None:
    """A point of the same setting, n, seed and fingerprint as a part of this sweep; None if there is none."""
    key = setting_key(dict(setting.options), floor.value.n_fake, seed)
    for point in curves.points:
        if point.key == key and point.value.fingerprint == floor.value.fingerprint and point.value.value is not None:
            x = float(point.nfe) if setting.x is None else setting.x
            return replace(point, sweep=sweep.name, series=setting.series, x=x)
    return None


def _with_point(curves: Curves, point: CurvePoint) -> Curves:
    """The curves with a point in the place of that of the same setting, n and seed of its sweep."""
    kept = [other for other in curves.points if (other.sweep, other.key) != (point.sweep, point.key)]
    return replace(curves, points=(*kept, point))


def _with_floors(curves: Curves, floors: Sequence[Floor]) -> Curves:
    new = {(floor.metric, floor.value.n_fake) for floor in floors}
    kept = [floor for floor in curves.floors if (floor.metric, floor.value.n_fake) not in new]
    return replace(curves, floors=(*kept, *floors))


def _with_axes(curves: Curves, sweeps: Sequence[Sweep]) -> Curves:
    axes = {axis.name: axis for axis in curves.axes}
    axes |= {sweep.name: SweepAxis(sweep.name, sweep.title, sweep.label, sweep.log) for sweep in sweeps}
    return replace(curves, axes=tuple(axes.values()))


def _described(point: CurvePoint) -> str:
    options = ", ".join(f"{name} {value}" for name, value in point.options.items())
    return f"{options}: {point.nfe} NFE, {_shown(point.metric, point)} ({point.seconds:.1f} s)"


def _shown(metric: str, found: CurvePoint | Floor) -> str:
    value = found.value
    if value.value is None:
        return f"no {metric} ({value.reason_missing})"
    return f"{metric} {value.value:.4g}, n = {value.n_fake}"


def measure_profile(
    model: GenerativeModel, dataset: ImageDataset, conditions: Conditions, *, num_images: int = PROFILE_IMAGES
) -> BitProfile | None:
    """Where the bits of the model's main likelihood lie on the first test images; None if it has no such axis.

    Raises:
        SweepError: Fewer than two images, or a bound that is not finite.
    """
    images = torch.from_numpy(dataset.test.images[:num_images])
    if len(images) < 2:
        raise SweepError(f"a profile needs at least 2 test images, not {len(images)}")
    generator = torch.Generator().manual_seed(conditions.likelihood_seed)
    found = [model.profile(batch, generator=generator) for batch in images.split(conditions.batch_size)]
    profiles = [profile for profile in found if profile is not None]
    return _summary(profiles, math.prod(model.image_shape), conditions.likelihood_seed) if profiles else None


def _summary(profiles: list[Profile], dimensions: int, seed: int) -> BitProfile:
    first = profiles[0]
    bits = bits_per_dim(-torch.cat([p.nats.cpu() for p in profiles]), dimensions)  # (N, L)
    errors = torch.cat([p.error.cpu() for p in profiles]).double().mean(0)
    if not bool(torch.isfinite(bits).all() and torch.isfinite(errors).all()):
        raise SweepError(f"the pieces of {first.kind} are not all finite")
    means, deviations = zip(*(mean_interval(column)[:2] for column in bits.unbind(1)), strict=True)
    parts = {
        name: float(bits_per_dim(-torch.cat([p.parts[name].cpu() for p in profiles]), dimensions).mean())
        for name in first.parts
    }
    return BitProfile(
        kind=first.kind, label=first.label, error_label=first.error_label, positions=tuple(first.positions.tolist()),
        bits=means, standard_errors=deviations, errors=tuple(errors.tolist()), parts=parts,
        bits_per_dim=sum(means) + sum(parts.values()), n_images=len(bits), seed=seed,
    )
