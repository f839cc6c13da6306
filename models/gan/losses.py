"""Losses of R3GAN: relativistic pairing and zero-centred gradient penalties.

Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN" (arXiv:2501.05441).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E softplus(-(D(real) - D(fake))), each real image paired with a fake one; Eq. 2 for D."""
    return F.softplus(fake_logits - real_logits).mean()


def generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E softplus(-(D(fake) - D(real))); Eq. 2 for G."""
    return F.softplus(real_logits - fake_logits).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """E |grad_x D(x)|^2: R1 on real images, R2 on generated ones; Eq. 3 and 4.

    Args:
        logits: D(images), (B,).
        images: The input with ``requires_grad``, (B, C, H, W).
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()
