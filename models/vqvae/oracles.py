"""The likelihood of a tiny model of codes by summing over every grid of codes and every order, to hold bounds against.

-log p(z*) - log p(x | z*) is longer than -log p(x) by exactly -log q(z* | x), the posterior's bits of
the codes that were sent (Hinton and van Camp 1993: what bits back would return).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from models.base import to_float
from models.vqvae.code_prior import CodePrior
from models.vqvae.family import CodeFamily
from models.vqvae.importance import Proposal, propose
from models.vqvae.likelihood import log_prob
from models.vqvae.masked_prior import MaskedPrior

MAX_GRIDS = 4096
MAX_CODES = 6  # 720 orders


@dataclass(frozen=True)
class Enumerated:
    """Exact log p(x) and log q(z* | x) of z* = encode(x), in nats, float64 (N,) each; and sum_z p(z), which is 1."""

    log_prob: Tensor
    log_posterior: Tensor
    prior_mass: float


@torch.inference_mode()
def enumerated_log_prob(model: CodeFamily, images: Tensor) -> Enumerated:
    """Sum p(z) p(x | z) over all grids of codes, without labels.

    Args:
        model: So small that it has at most ``MAX_GRIDS`` grids of codes.
        images: uint8 (N, C, H, W).

    Raises:
        ValueError: if there are more grids.
    """
    model.check_images(images)
    grids, images = every_grid(model), images.to(model.device)
    log_prior = exact_log_prior(model.prior, grids, model.labels_or_null(len(grids), None))
    joint = log_prior + decoded_log_prob(model, grids, images)  # (N, grids)
    total = joint.logsumexp(1)
    sent = (grids == model.encode(images)[:, None]).all(2).long().argmax(1)
    return Enumerated(total, joint.gather(1, sent[:, None])[:, 0] - total, float(log_prior.exp().sum()))


def every_grid(model: CodeFamily) -> Tensor:
    """All grids of codes, int64 (K ** T, T).

    Raises:
        ValueError: if they are more than ``MAX_GRIDS``.
    """
    size, positions = model.autoencoder.codebook_size, model.prior.num_codes
    if size**positions > MAX_GRIDS:
        raise ValueError(f"{size} ** {positions} grids of codes are too many to enumerate; at most {MAX_GRIDS}")
    return torch.tensor(list(itertools.product(range(size), repeat=positions)), device=model.device)


def decoded_log_prob(model: CodeFamily, grids: Tensor, images: Tensor) -> Tensor:
    """log p(x | z) of uint8 images (N, C, H, W) for every grid (G, T), float64 (N, G)."""
    pixels = model.pixel_parameters(grids)
    each = [log_prob(image.expand(len(grids), -1, -1, -1), pixels).double().flatten(1).sum(1) for image in images]
    return torch.stack(each)


@torch.inference_mode()
def order_log_probs(prior: MaskedPrior, indices: Tensor, labels: Tensor) -> Tensor:
    """log p(indices | label, order) for every order in which the codes can be revealed, float64 (T!, B).

    Raises:
        ValueError: if there are more than ``MAX_CODES`` codes.
    """
    if prior.num_codes > MAX_CODES:
        raise ValueError(f"the orders of {prior.num_codes} codes are too many to enumerate; at most {MAX_CODES} codes")
    orders = torch.tensor(list(itertools.permutations(range(prior.num_codes))), device=indices.device)
    return torch.stack([prior.ordered_log_prob(indices, labels, order.expand(indices.shape)) for order in orders])


def exact_log_prior(prior: CodePrior, indices: Tensor, labels: Tensor) -> Tensor:
    """log p(indices | label), float64 (B,), summed over all orders where the prior has any."""
    if not isinstance(prior, MaskedPrior):
        return prior.log_prob(indices, labels).double()
    found = order_log_probs(prior, indices, labels)
    return found.logsumexp(0) - torch.tensor(float(len(found))).double().log()


@torch.inference_mode()
def expected_weighted_bound(model: CodeFamily, images: Tensor, num_samples: int) -> Tensor:
    """E log 1/k sum_j p(z_j) p(x | z_j) / q(z_j | x) over all k-tuples of grids of codes, float64 (N,).

    Args:
        model: With a prior of one path, and few grids: their number to the power k is at most ``MAX_GRIDS``.
        images: uint8 (N, C, H, W).
        num_samples: k.
    """
    grids, labels = every_grid(model), model.labels_or_null(len(every_grid(model)), None)
    if len(grids) ** num_samples > MAX_GRIDS:
        raise ValueError(f"{len(grids)} ** {num_samples} tuples are too many to enumerate; at most {MAX_GRIDS}")
    proposal = propose(model.autoencoder, to_float(images), model.proposal_temperature).log_probabilities
    own = [Proposal(row.expand(len(grids), -1, -1)) for row in proposal]
    log_q = torch.stack([q.log_prob(grids) for q in own])
    log_w = exact_log_prior(model.prior, grids, labels) + decoded_log_prob(model, grids, images) - log_q  # (N, grids)
    tuples = torch.tensor(list(itertools.product(range(len(grids)), repeat=num_samples)))  # (tuples, k)
    means = log_w[:, tuples].logsumexp(2) - torch.tensor(float(num_samples)).double().log()
    return (log_q[:, tuples].sum(2).exp() * means).sum(1)
