"""GAN: a generator and a discriminator play against each other; one evaluation makes an image.

R3GAN, Huang et al. 2024 (arXiv:2501.05441): relativistic pairing loss with R1 and R2 at every step, Adam with beta_1 =
0. As in its published configurations gamma falls to a tenth, beta_2 rises from 0.9 to 0.99, and the half-life of the
weight average and the probability of augmentation rise from zero, each along half a cosine. Deviations: that takes half
the budget here and a fixed 20 or 200 million images there; gamma falls in ratio instead of difference; the learning
rate falls to zero over the whole budget, as that of all models here, not along the others to a quarter; the penalties
are taken at augmented images, where D sees them; the half-life is also at most 5 % of the images seen;
the generator is that of DCGAN, with batch normalisation, unless the paper's residual one is asked for: with the same
loss, discriminator and FLOPs it comes much closer to small images (``tests/benchmarks/README.md``). Its running
statistics are those of the trained weights, not of their average: the learning rate ends at zero, so both end alike.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from models.base import Stage
from models.gan.convolutional import ConvGenerator
from models.gan.family import AdversarialFamily
from models.gan.losses import gradient_penalty, relativistic_d_loss, relativistic_g_loss
from models.gan.networks import Discriminator, Generator
from models.gan.stage import AdversarialStage

BURN_IN = 0.5  # fraction of the budget over which all but the learning rate move
GAMMA_START = 10.0  # gamma begins this many times higher than it ends
BETA_2 = (0.9, 0.99)


def burn_in(progress: float) -> float:
    """Cosine from 0 to 1 over the first ``BURN_IN`` of the budget."""
    return 0.5 * (1 - math.cos(math.pi * min(progress / BURN_IN, 1.0)))


class RelativisticStage(AdversarialStage):
    """Relativistic pairing with R1 and R2; the averaged generator is what is kept."""

    betas = (0.0, BETA_2[0])

    def __init__(self, network: nn.Module, discriminator: Discriminator, *, r1_gamma: float, **training: Any) -> None:
        super().__init__(network, discriminator, **training)
        self.r1_gamma = r1_gamma
        self.ema_half_life = self.ema.half_life

    def set_progress(self, progress: float) -> None:
        """Learning rate, beta_2, half-life of the average and probability of augmentation; gamma is asked for."""
        super().set_progress(progress)
        risen = burn_in(progress)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["betas"] = (0.0, BETA_2[0] + risen * (BETA_2[1] - BETA_2[0]))
        self.ema.half_life = risen * self.ema_half_life
        self.augmentation.ramp(risen)

    def gamma(self) -> float:
        """Weight of R1 and R2 now, from GAMMA_START * r1_gamma down to r1_gamma (geometric)."""
        return self.r1_gamma * GAMMA_START ** (1 - burn_in(self.progress))

    def discriminator_objective(self, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """Relativistic loss + gamma / 2 (R1 + R2), both at what the discriminator sees; Eq. 5."""
        real, fake = self.augmentation(real).requires_grad_(), self.augmentation(fake).requires_grad_()
        real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
        loss = relativistic_d_loss(real_logits, fake_logits)
        r1, r2 = gradient_penalty(real_logits, real), gradient_penalty(fake_logits, fake)
        self.observe(real_logits, fake_logits, d_loss=loss, r1=r1, r2=r2)
        return loss + self.gamma() / 2 * (r1 + r2)

    def generator_objective(self, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """Relativistic loss with the roles exchanged; Eq. 2."""
        with torch.no_grad():
            real_logits = self.discriminator(self.augmentation(real), labels)
        loss = relativistic_g_loss(real_logits, self.discriminator(self.augmentation(fake), labels))
        self.log("g_loss", loss)
        return loss


def make_generator(
    kind: str, image_shape: tuple[int, int, int], num_classes: int, *, latent_dim: int, width: int, blocks: int,
    patch_size: int,
) -> nn.Module:
    """The generator of DCGAN ("convolutional", without ``blocks`` and ``patch_size``) or that of R3GAN ("residual").

    Raises:
        ValueError: if it is another kind.
    """
    if kind == "convolutional":
        return ConvGenerator(image_shape, num_classes, latent_dim=latent_dim, width=width)
    if kind == "residual":
        size = {"width": width, "blocks": blocks, "patch_size": patch_size}
        return Generator(image_shape, num_classes, latent_dim=latent_dim, **size)
    raise ValueError(f"generator must be convolutional or residual, not {kind!r}")


class GAN(AdversarialFamily):
    """Class-conditional R3GAN."""

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        latent_dim: int,
        generator: str,
        width: int,
        discriminator_width: int,
        blocks: int,
        patch_size: int,
        batch_size: int,
        lr: float,
        r1_gamma: float,
        ema_half_life: float,
        augment: str,
        augment_probability: float,
        ada_images: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        depth = {"blocks": blocks, "patch_size": patch_size}
        self.settle(
            make_generator(generator, image_shape, num_classes, latent_dim=latent_dim, width=width, **depth),
            Discriminator(image_shape, num_classes, width=discriminator_width, **depth),
        )

    def stages(self) -> list[Stage]:
        return [RelativisticStage(
            self.generator, self.discriminator, **self.stage_options("r1_gamma", "batch_size", "ema_half_life")
        )]
