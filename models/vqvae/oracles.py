"""The likelihood of a tiny VQ-VAE by summing over every grid of codes, to hold the two-part code against.

-log p(z*) - log p(x | z*) is longer than -log p(x) by exactly -log q(z* | x), the posterior's bits of
the codes that were sent (Hinton and van Camp 1993: what bits back would return).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from models.vqvae.family import CodeFamily
from models.vqvae.likelihood import log_prob

MAX_GRIDS = 4096


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
    size, positions = model.autoencoder.codebook_size, model.prior.num_codes
    if size**positions > MAX_GRIDS:
        raise ValueError(f"{size} ** {positions} grids of codes are too many to enumerate; at most {MAX_GRIDS}")
    grids = torch.tensor(list(itertools.product(range(size), repeat=positions)), device=model.device)
    log_prior = model.prior.log_prob(grids, model.labels_or_null(len(grids), None)).double()
    pixels = model.pixel_parameters(grids)
    images = images.to(model.device)
    each = [log_prob(image.expand(len(grids), -1, -1, -1), pixels).double().flatten(1).sum(1) for image in images]
    joint = log_prior + torch.stack(each)  # (N, grids)
    total = joint.logsumexp(1)
    sent = (grids == model.encode(images)[:, None]).all(2).long().argmax(1)
    return Enumerated(total, joint.gather(1, sent[:, None])[:, 0] - total, float(log_prior.exp().sum()))
