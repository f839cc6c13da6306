"""Bits per dimension of uint8 images from a bound in nats: -log p(x) / (D ln 2).

Every kind of likelihood a model offers is scored on the first images of the test split and carries
its standard error, the choices it depends on and what its self-check found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from evaluation.record import Likelihood
from evaluation.sharing import in_turns
from models.base import GenerativeModel, LikelihoodBound, SelfCheck, image_generators, processes

CHECKED = 8  # images that a self-check looks at
ELSEWHERE = "the first process has it"


@dataclass(frozen=True)
class ScoredBound:
    """A kind of likelihood with the images it was computed on, uint8 (N, C, H, W), and its nats (N,)."""

    likelihood: Likelihood
    images: NDArray[np.uint8]
    log_likelihood: NDArray[np.float64]


def bits_per_dim(log_likelihood: Tensor, dimensions: int) -> Tensor:
    """Log-likelihood in nats (N,) -> bits per dimension (N,), float64."""
    return -log_likelihood.double() / (dimensions * math.log(2))


def mean_interval(values: Tensor) -> tuple[float, float, float, float]:
    """Mean of (N,), N >= 2, its standard error, and the ends of Student's 95 % interval for it."""
    n = len(values)
    mean, error = float(values.mean()), float(values.std() / math.sqrt(n))
    half = float(stdtrit(n - 1, 0.975)) * error
    return mean, error, mean - half, mean + half


def summarise(bounds: list[LikelihoodBound], dimensions: int, check: SelfCheck | None = None) -> Likelihood:
    """Mean over all images of some batches, with its error (evaluation noise) and the parts it adds up from."""
    bits = torch.cat([bits_per_dim(b.log_likelihood, dimensions) for b in bounds])
    if not torch.isfinite(bits).all():
        return missing("the bound is not finite", bounds[0].kind)
    mean, error, low, high = mean_interval(bits)
    parts = {
        name: float(torch.cat([bits_per_dim(b.parts[name], dimensions) for b in bounds]).mean())
        for name in bounds[0].parts
    }
    counts = [b.nfe for b in bounds if b.nfe is not None]
    return Likelihood(
        mean, low, high, bounds[0].kind, parts, len(bits), standard_error=error, settings=bounds[0].settings,
        self_check=check.text if check else None, self_check_passed=check.passed if check else None,
        nfe=float(torch.cat(counts).mean()) if counts else None, tried=bounds[0].tried,
    )


def score_likelihood(
    model: GenerativeModel, images: Tensor, *, generator: torch.Generator, batch_size: int, kind: str | None = None,
    on_images: Callable[[int], None] = lambda done: None,
) -> ScoredBound:
    """One kind of likelihood of uint8 images (N, C, H, W), N >= 2; of several processes the first one has it.

    Args:
        model: In evaluation mode.
        images: uint8 (N, C, H, W).
        generator: CPU generator; an image's bound depends on it and its own index only.
        batch_size: Images per batch.
        kind: One of ``model.likelihood_kinds`` (default: the main one).
        on_images: Told after every batch how many images are done.
    """
    kind = model.likelihood_kind(kind)

    def compute(batch: Tensor) -> dict[str, Any]:
        bound = model.log_likelihood_bound(batch, generator=generator, kind=kind)
        assert bound is not None, f"{type(model).__name__} lists {kind} and returned nothing"
        return _in_memory(bound)

    found = in_turns(
        images.split(batch_size), compute, skip=lambda batch: image_generators(len(batch), generator),
        on_item=lambda done: on_images(min(done * batch_size, len(images))),
    )
    if processes()[0] > 0:
        return ScoredBound(missing(ELSEWHERE, kind), images[:0].cpu().numpy(), np.zeros(0))
    bounds = [LikelihoodBound(**bound) for bound in found]
    check = model.check_likelihood(images[:CHECKED], kind=kind, generator=generator)
    nats = torch.cat([b.log_likelihood for b in bounds]).double().cpu().numpy()
    return ScoredBound(summarise(bounds, images[0].numel(), check), images.cpu().numpy(), nats)


def _in_memory(bound: LikelihoodBound) -> dict[str, Any]:
    """A bound's fields, off its device."""
    nfe = None if bound.nfe is None else bound.nfe.cpu()
    parts = {name: values.cpu() for name, values in bound.parts.items()}
    return vars(bound) | {"log_likelihood": bound.log_likelihood.cpu(), "parts": parts, "nfe": nfe}


def missing(reason: str, kind: str | None = None) -> Likelihood:
    """A likelihood that is not there, and why."""
    return Likelihood(None, None, None, kind, {}, 0, reason)
