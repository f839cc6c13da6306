"""Losses and gradient penalties of adversarial models, as pure functions of logits and images.

Non-saturating: Goodfellow et al. 2014 (arXiv:1406.2661). Wasserstein and the penalty on interpolates: Gulrajani
et al. 2017 (arXiv:1704.00028). Relativistic pairing with R1 and R2: Huang et al. 2024 (arXiv:2501.05441), after
Jolicoeur-Martineau 2019 (arXiv:1807.00734) and Mescheder et al. 2018 (arXiv:1801.04406). All are minimised.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def relativistic_d_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E softplus(-(D(real) - D(fake))), each real image paired with a fake one; Huang et al., Eq. 2 for D."""
    return F.softplus(fake_logits - real_logits).mean()


def relativistic_g_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E softplus(-(D(fake) - D(real))); Huang et al., Eq. 2 for G."""
    return F.softplus(real_logits - fake_logits).mean()


def nonsaturating_d_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log sigmoid(D(real)) - E log(1 - sigmoid(D(fake))); Goodfellow et al., Eq. 1."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def nonsaturating_g_loss(fake_logits: Tensor) -> Tensor:
    """-E log sigmoid(D(fake)), whose slope does not vanish where D is sure; Goodfellow et al., Sec. 3."""
    return F.softplus(-fake_logits).mean()


def wasserstein_d_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E D(fake) - E D(real): minus an estimate of the distance, if D is 1-Lipschitz; Gulrajani et al., Eq. 2."""
    return fake_logits.mean() - real_logits.mean()


def wasserstein_g_loss(fake_logits: Tensor) -> Tensor:
    """-E D(fake); Gulrajani et al., Alg. 1, line 12."""
    return -fake_logits.mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """E |grad_x D(x)|^2: R1 on real images, R2 on generated ones; Huang et al., Eq. 3 and 4.

    Args:
        logits: D(images), (B,).
        images: The input with ``requires_grad``, (B, C, H, W).
    """
    return input_gradient(logits, images).square().sum(dim=(1, 2, 3)).mean()


def interpolated_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, weights: Tensor
) -> Tensor:
    """E (|grad_x D(x)| - 1)^2 at x = w real + (1 - w) fake; Gulrajani et al., Eq. 3.

    Args:
        discriminator: Images (B, C, H, W) to logits (B,).
        real: Images, (B, C, H, W); nothing is differentiated with respect to them.
        fake: Generated images of the same shape, likewise.
        weights: Uniform in [0, 1), (B,), one for each pair.
    """
    between = torch.lerp(fake.detach(), real.detach(), weights[:, None, None, None]).requires_grad_()
    gradient = input_gradient(discriminator(between), between)
    return (torch.linalg.vector_norm(gradient, dim=(1, 2, 3)) - 1).square().mean()


def input_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """Row i is the gradient of D(x_i) with respect to x_i, (B, C, H, W), itself differentiable."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient
