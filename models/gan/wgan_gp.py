"""WGAN-GP: a critic that estimates the Wasserstein distance, kept 1-Lipschitz by a penalty on its gradient.

Gulrajani et al. 2017 (arXiv:1704.00028), Alg. 1: several updates of the critic to one of the generator, the penalty
on straight lines between real and generated images, Adam without momentum, a critic without batch normalisation
(it would make the penalty of an image depend on the others). The networks are those of DCGAN; the generator keeps
its normalisation, so that its weights are sampled as training leaves them, without an average, in evaluation mode.
Deviations: conditional (``models.gan.convolutional``); the learning rate falls to zero, as that of all models here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.base import Stage, own_rows
from models.gan.convolutional import ConvDiscriminator, ConvGenerator
from models.gan.family import AdversarialFamily
from models.gan.losses import interpolated_penalty, wasserstein_d_loss, wasserstein_g_loss
from models.gan.stage import UnaveragedStage

__all__ = ["Model"]


class WassersteinStage(UnaveragedStage):
    """``n_critic`` updates of the critic, then one of the generator."""

    betas = (0.0, 0.9)

    def __init__(self, *networks: Any, penalty_weight: float, n_critic: int, batch_size: int, **training: Any) -> None:
        super().__init__(*networks, updates=n_critic, batch_size=n_critic * batch_size, **training)
        self.penalty_weight = penalty_weight

    def discriminator_objective(self, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """Minus the estimated distance + lambda times the penalty, all of what the critic sees; Eq. 3."""
        real, fake = self.augmentation(real), self.augmentation(fake)
        real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
        weights = own_rows(lambda n: torch.rand(n, device=real.device), len(real))
        penalty = interpolated_penalty(lambda x: self.discriminator(x, labels), real, fake, weights)
        loss = wasserstein_d_loss(real_logits, fake_logits)
        self.observe(real_logits, fake_logits, d_loss=loss, penalty=penalty)
        return loss + self.penalty_weight * penalty

    def generator_objective(self, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        loss = wasserstein_g_loss(self.discriminator(self.augmentation(fake), labels))
        self.log("g_loss", loss)
        return loss


class Model(AdversarialFamily):
    """Class-conditional WGAN-GP."""

    averages_weights = False

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        latent_dim: int,
        width: int,
        batch_size: int,
        lr: float,
        penalty_weight: float,
        n_critic: int,
        augment: str,
        augment_probability: float,
        ada_images: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settle(
            ConvGenerator(image_shape, num_classes, latent_dim=latent_dim, width=width),
            ConvDiscriminator(image_shape, num_classes, width=width, normalise=False),
        )

    def stages(self) -> list[Stage]:
        options = self.stage_options("batch_size", "penalty_weight", "n_critic")
        return [WassersteinStage(self.generator, self.discriminator, **options)]
