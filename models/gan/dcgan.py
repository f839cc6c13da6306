"""DCGAN: the convolutional GAN that first trained reliably, with batch normalisation in both networks.

Radford et al. 2016 (arXiv:1511.06434) with the non-saturating loss of Goodfellow et al. 2014 and Adam with beta_1
= 0.5. Batch normalisation and a moving average of weights do not mix: the running statistics belong to the weights
that made them, not to their average. So the weights are sampled as training leaves them, in evaluation mode.
Deviations: conditional (``models.gan.convolutional``); the learning rate falls to zero, as that of all models here;
the generator's update draws latents of its own.
"""

from __future__ import annotations

from torch import Tensor

from models.base import Stage
from models.gan.convolutional import ConvDiscriminator, ConvGenerator
from models.gan.family import AdversarialFamily
from models.gan.losses import nonsaturating_d_loss, nonsaturating_g_loss
from models.gan.stage import UnaveragedStage

__all__ = ["Model"]


class NonSaturatingStage(UnaveragedStage):
    """Each network learns to tell, and to be taken for, real images."""

    betas = (0.5, 0.999)

    def sureness(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The logit of a real image, as published: its zero is chance."""
        return real_logits

    def discriminator_objective(self, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """Real and generated images in batches of their own, as their statistics differ."""
        real_logits = self.discriminator(self.augmentation(real), labels)
        fake_logits = self.discriminator(self.augmentation(fake), labels)
        loss = nonsaturating_d_loss(real_logits, fake_logits)
        self.observe(real_logits, fake_logits, d_loss=loss)
        return loss

    def generator_objective(self, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        loss = nonsaturating_g_loss(self.discriminator(self.augmentation(fake), labels))
        self.log("g_loss", loss)
        return loss


class Model(AdversarialFamily):
    """Class-conditional DCGAN."""

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
        augment: str,
        augment_probability: float,
        ada_images: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settle(
            ConvGenerator(image_shape, num_classes, latent_dim=latent_dim, width=width),
            ConvDiscriminator(image_shape, num_classes, width=width, normalise=True),
        )

    def stages(self) -> list[Stage]:
        return [NonSaturatingStage(self.generator, self.discriminator, **self.stage_options("batch_size"))]
