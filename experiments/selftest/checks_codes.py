"""Bounds over codes that draw something: orders of a masked prior, and codes near those of an image.

Hoogeboom et al. 2022 (arXiv:2110.02037), Burda et al. 2016 (arXiv:1509.00519).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from experiments.selftest.base import Check, Finding, all_of, at_least, close, largest_deviation
from experiments.selftest.checks_vqvae import images, tiny

if TYPE_CHECKING:
    from torch import Tensor

    from models.vqvae.masked_prior import MaskedPrior

GROUP = "codes"
T, CODES = 4, 3
DRAWS = 4000
HOT = 4.0  # a proposal that reaches every code


def masked() -> MaskedPrior:
    """Four codes of three kinds, random weights throughout."""
    import torch

    from models.vqvae.masked_prior import MaskedPrior

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = MaskedPrior(codebook_size=CODES, num_codes=T, num_classes=2, dim=32, depth=1)
        with torch.no_grad():
            for parameter in prior.parameters():  # layers that start at zero must take part
                parameter.add_(0.15 * torch.randn_like(parameter))
    return prior.eval()


def by_order(prior: MaskedPrior, row: Tensor) -> np.ndarray:
    """log p(row | order) for the 24 orders, one conditional after the other, from the network's logits."""
    import torch

    found = []
    for order in itertools.permutations(range(T)):
        hidden, total = torch.ones(1, T, dtype=torch.bool), 0.0
        for place in order:
            logits = prior.logits(row[None], hidden, torch.tensor([2]))[0, place]
            total += float(logits.double().log_softmax(-1)[row[place]])
            hidden[0, place] = False
        found.append(total)
    return np.array(found)


def any_order_bound() -> Finding:
    """The mean over all 24 orders, and the sum over them above it."""
    import torch

    from models.base import image_generators

    prior, row = masked(), torch.tensor([0, 2, 1, 1])
    generators = image_generators(DRAWS, torch.Generator().manual_seed(0))
    with torch.no_grad():
        orders = by_order(prior, row)
        found = prior.log_prob(row.expand(DRAWS, -1), torch.full((DRAWS,), 2), generators)
    mean, error = float(found.mean()), float(found.std()) / DRAWS**0.5
    exact = float(np.logaddexp.reduce(orders) - math.log(len(orders)))
    return all_of(close(orders.mean(), mean, absolute=4 * error), at_least(mean, exact))


def order_is_unbiased() -> Finding:
    """The mean of p(codes | order) over drawn orders and over all 24."""
    import torch

    from models.base import image_generators

    prior, row = masked(), torch.tensor([2, 0, 0, 1])
    generators = image_generators(DRAWS, torch.Generator().manual_seed(1))
    with torch.no_grad():
        orders = by_order(prior, row)
        found = prior.path_log_prob(row.expand(DRAWS, -1), torch.full((DRAWS,), 2), generators)
    ratio = (found - float(np.logaddexp.reduce(orders) - math.log(len(orders)))).exp()
    return close(1.0, float(ratio.mean()), absolute=4 * float(ratio.std()) / DRAWS**0.5)


def exact_and_proposal(model: object, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """log p(z) p(x | z) and log q(z | x) of all sixteen grids, the proposal by hand from distances."""
    import torch

    from models.base import to_float
    from models.vqvae.fsq import FSQ
    from models.vqvae.likelihood import log_prob
    from models.vqvae.model import VQVAE

    assert isinstance(model, VQVAE)
    grids = torch.tensor(list(itertools.product(range(4), repeat=2)))
    with torch.no_grad():
        log_p = model.prior.log_prob(grids, torch.full((16,), model.num_classes)).double()
        joint = log_p + log_prob(x.expand(16, -1, -1, -1), model.pixel_parameters(grids)).double().flatten(1).sum(1)
        quantizer = model.autoencoder.quantizer
        assert isinstance(quantizer, FSQ)
        z = quantizer.bound(model.autoencoder.encode(to_float(x)).movedim(1, -1))[0, 0]  # (2, d), in steps of a level
        table = quantizer.codes(torch.arange(4)[None, None])[0, :, 0].T
        squared = ((z[:, None] - table) ** 2).sum(-1).double()  # neighbours are at distance 1
        q = (-squared / HOT).log_softmax(-1)
    return joint.numpy(), (q[0, grids[:, 0]] + q[1, grids[:, 1]]).numpy()


def weighted_code_is_unbiased() -> Finding:
    """The mean weight is p(x), summed over all sixteen grids; the mean of its logarithm is that over the proposal."""
    import torch

    from models.base import image_generators

    model, x = tiny(), images(1)
    joint, log_q = exact_and_proposal(model, x)
    generators = image_generators(DRAWS, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = model.importance_sampler().weigh(
            x.expand(DRAWS, -1, -1, -1), generators, temperature=HOT, num_samples=1
        ).bound
    ratio = (found - float(np.logaddexp.reduce(joint))).exp()
    return all_of(
        close(1.0, float(ratio.mean()), absolute=4 * float(ratio.std()) / DRAWS**0.5),
        close(float((np.exp(log_q) * (joint - log_q)).sum()), float(found.mean()),
              absolute=4 * float(found.std()) / DRAWS**0.5),
    )  # fmt: skip


def weighted_code_tightens() -> Finding:
    """Bounds of 1, 4 and 64 samples rise, below p(x), and their parts add up."""
    import torch

    from models.base import image_generators

    model, x = tiny(), images(1)
    exact = float(np.logaddexp.reduce(exact_and_proposal(model, x)[0]))
    means, errors, parts = [], [], []
    for samples in (1, 4, 64):
        generators = image_generators(500, torch.Generator().manual_seed(0))
        with torch.inference_mode():
            found = model.importance_sampler().weigh(
                x.expand(500, -1, -1, -1), generators, temperature=HOT, num_samples=samples
            )
        means.append(float(found.bound.mean()))
        errors.append(4 * float(found.bound.std()) / 500**0.5)
        parts.append(float(sum(float(part.mean()) for part in found.parts.values())))
    return all_of(
        at_least(means[0], means[1]), at_least(means[1], means[2]), at_least(means[2] - errors[2], exact),
        largest_deviation(np.array(means), np.array(parts), absolute=1e-9),
    )


CHECKS = (
    Check("any-order bound by all orders", GROUP, any_order_bound),
    Check("one order is unbiased", GROUP, order_is_unbiased),
    Check("weighted codes are unbiased", GROUP, weighted_code_is_unbiased),
    Check("weighted codes tighten the bound", GROUP, weighted_code_tightens),
)
