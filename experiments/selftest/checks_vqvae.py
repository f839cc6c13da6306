"""The two-part code against the sum over all codes, and the decoder's levels against one.

van den Oord et al. 2017 (arXiv:1711.00937), Salimans et al. 2017 (arXiv:1701.05517), Sec. 2.1. The bounds from orders
and from weighted codes are in ``checks_codes``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from experiments.selftest.base import Check, Finding, all_of, at_least, close, largest_deviation

if TYPE_CHECKING:
    from torch import Tensor

    from models.vqvae.model import VQVAE

GROUP = "vqvae"
CODES = 4


def tiny() -> VQVAE:
    """Two code positions of four codes each, random weights throughout."""
    import torch

    from models.vqvae.model import VQVAE

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VQVAE(
            image_shape=(1, 2, 4), num_classes=2, levels=(2, 2), downsample=2, width=8, autoencoder_share=0.5,
            prior_dim=32, prior_depth=1, batch_size=4, lr=1e-3, ema_half_life=100, label_dropout=0.1,
        )
        with torch.no_grad():
            for parameter in model.parameters():  # layers that start at zero must take part
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def images(n: int) -> Tensor:
    """Random uint8 images (n, 1, 2, 4)."""
    import torch

    return torch.randint(0, 256, (n, 1, 2, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def two_part_gap() -> Finding:
    """-log p(z*) - log p(x | z*) + log p(x) = -log q(z* | x), with p(x) summed over all sixteen codes."""
    import torch

    from models.vqvae.likelihood import log_prob

    model, x = tiny(), images(6)
    codes = torch.tensor(list(itertools.product(range(CODES), repeat=2)))
    with torch.no_grad():
        log_p_z = model.prior.log_prob(codes, torch.full((len(codes),), model.num_classes)).double()
        pixels = model.pixel_parameters(codes)
        rows = [log_prob(image.expand(len(codes), -1, -1, -1), pixels).double().flatten(1).sum(1) for image in x]
        joint = torch.stack(rows) + log_p_z
        chosen = (codes[None] == model.encode(x)[:, None]).all(2).int().argmax(1)
        posterior = joint.log_softmax(1).gather(1, chosen[:, None])[:, 0]
        bound = model.log_likelihood_bound(x, generator=torch.Generator())
    if bound is None:
        raise ValueError("the model has no bound")
    gap = joint.logsumexp(1) - bound.log_likelihood
    note = f"gaps from {float(gap.min()):.3f} to {float(gap.max()):.3f} nats"
    return all_of(at_least(0.0, float(gap.min())), largest_deviation(-posterior, gap, absolute=1e-4, note=note))


def codes_sum_to_one() -> Finding:
    """The prior's probabilities of all sixteen grids of codes."""
    import torch

    model = tiny()
    codes = torch.tensor(list(itertools.product(range(CODES), repeat=2)))
    with torch.no_grad():
        total = [model.prior.log_prob(codes, torch.full((len(codes),), c)).double().exp().sum() for c in range(3)]
    return largest_deviation(np.ones(3), torch.stack(total).numpy(), absolute=1e-5)


def mixture_masses() -> tuple[np.ndarray, np.ndarray]:
    """Masses of random mixtures on the 256 levels, and their probabilities by differences of sigmoids."""
    import torch

    from models.vqvae.likelihood import log_prob

    rng = np.random.default_rng(2)
    n, k = 20, 3
    logits, means = rng.normal(size=(n, k)), rng.uniform(-1.3, 1.3, size=(n, k))
    log_scales = rng.uniform(-4, 0.5, size=(n, k))
    parameters = torch.from_numpy(np.concatenate([logits, means, log_scales], 1)).T[None, :, :, None]
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, n, 1)
    found = log_prob(levels, parameters.expand(256, -1, -1, -1)).exp()[:, 0, :, 0].numpy()
    edges = np.concatenate([[-np.inf], (np.arange(1, 256) - 0.5) / 127.5 - 1, [np.inf]])
    with np.errstate(over="ignore"):
        cdf = 1 / (1 + np.exp(-(edges[:, None, None] - means) / np.exp(log_scales)))
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return found, (np.diff(cdf, axis=0) * weights).sum(2)


def levels_sum_to_one() -> Finding:
    """The discretised logistic mixture's 256 masses."""
    total = mixture_masses()[0].sum(0)
    return largest_deviation(np.ones_like(total), total, absolute=1e-6)


def mixture_by_differences() -> Finding:
    """Differences of sigmoids between the edges of the bins, in float64."""
    found, expected = mixture_masses()
    # the program holds levels in float32, which moves an edge by 1e-7 of the range
    return largest_deviation(expected, found, absolute=1e-5 * float(expected.max()))


def mixture_in_the_tails() -> Finding:
    """One narrow component far away: SciPy's logarithms of tails at the ends and between them; and the mean image."""
    import torch
    from scipy.stats import logistic

    from models.vqvae.likelihood import log_prob, mass_error, mean_image

    levels, scale = np.array([0, 1, 200, 254, 255]), np.exp(-5.0)
    edges = (np.arange(257) - 0.5) / 127.5 - 1
    above = logistic.logsf((edges + 1.2) / scale)  # the mean is -1.2
    expected = above[levels] + np.log1p(-np.exp(above[levels + 1] - above[levels]))
    expected[0] = logistic.logcdf((edges[1] + 1.2) / scale)
    expected[-1] = above[255]
    one = torch.tensor([0.0, -1.2, -5.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    images = torch.from_numpy(levels.astype(np.uint8)).reshape(-1, 1, 1, 1)
    found = log_prob(images, one.expand(len(levels), -1, -1, -1)).flatten().numpy()
    two = torch.tensor([0.3, 1.0, -0.5, 2.0, -1.0, -1.0], dtype=torch.float64).reshape(1, 6, 1, 1)
    weight = 1 / (1 + np.exp(0.7))
    return all_of(
        largest_deviation(expected, found, relative=1e-4),  # levels are float32
        close(-0.5 * weight + 1.0 * (1 - weight), mean_image(two, 1), absolute=1e-6),
        close(0.0, mass_error(two, 1), absolute=1e-5),
    )


def bits_of_the_parts() -> Finding:
    """Code and pixels add up to the bound."""
    import torch

    model, x = tiny(), images(4)
    with torch.no_grad():
        bound = model.log_likelihood_bound(x, generator=torch.Generator())
    if bound is None:
        raise ValueError("the model has no bound")
    total = sum(float(part.double().sum()) for part in bound.parts.values())
    return close(float(bound.log_likelihood.sum()), total, relative=1e-9)


CHECKS = (
    Check("two-part gap by enumeration", GROUP, two_part_gap),
    Check("prior over codes sums to 1", GROUP, codes_sum_to_one),
    Check("logistic mixture sums to 1", GROUP, levels_sum_to_one),
    Check("logistic mixture by differences", GROUP, mixture_by_differences),
    Check("logistic mixture in the tails", GROUP, mixture_in_the_tails),
    Check("parts of the two-part code", GROUP, bits_of_the_parts),
)
