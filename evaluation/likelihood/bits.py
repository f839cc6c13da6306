"""Bits per dimension of uint8 images from a bound in nats: -log p(x) / (D ln 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evaluation.record import Likelihood
from models.base import GenerativeModel, LikelihoodBound

NORMAL_95 = 1.959964


def bits_per_dim(log_likelihood: Tensor, dimensions: int) -> Tensor:
    """Log-likelihood in nats (N,) -> bits per dimension (N,), float64."""
    return -log_likelihood.double() / (dimensions * math.log(2))


def summarise(bounds: list[LikelihoodBound], dimensions: int) -> Likelihood:
    """Mean over images with the normal 95 % interval of the mean (evaluation noise)."""
    bits = torch.cat([bits_per_dim(b.log_likelihood, dimensions) for b in bounds])
    mean, error = float(bits.mean()), float(bits.std() / math.sqrt(len(bits)))
    parts = {
        name: float(torch.cat([bits_per_dim(b.parts[name], dimensions) for b in bounds]).mean())
        for name in bounds[0].parts
    }
    low, high = mean - NORMAL_95 * error, mean + NORMAL_95 * error
    return Likelihood(mean, low, high, bounds[0].kind, parts, len(bits))


def score_likelihood(
    model: GenerativeModel, images: Tensor, *, generator: torch.Generator, batch_size: int
) -> Likelihood:
    """Bits per dimension of uint8 images (N, C, H, W), or the model's reason why it has none."""
    bounds = []
    for batch in images.split(batch_size):
        bound = model.log_likelihood_bound(batch, generator=generator)
        if bound is None:
            return missing(model.likelihood_missing)
        bounds.append(bound)
    result = summarise(bounds, images[0].numel())
    if result.bits_per_dim is None or not math.isfinite(result.bits_per_dim):
        return missing("the bound is not finite")
    return result


def missing(reason: str) -> Likelihood:
    """A likelihood that is not there, and why."""
    return Likelihood(None, None, None, None, {}, 0, reason)
