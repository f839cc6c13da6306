"""GAN: a generator and a discriminator play against each other; one evaluation makes an image.

R3GAN, Huang et al. 2024 (arXiv:2501.05441): relativistic pairing loss with R1 and R2 at every
step, Adam with beta_1 = 0; learning rate, gamma and beta_2 move with the budget (their Table 5).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from models.base import Stage, own_rows, to_float
from models.gan.family import AdversarialFamily
from models.gan.losses import discriminator_loss, generator_loss, gradient_penalty
from models.gan.networks import Discriminator, Generator

BURN_IN = 0.5  # fraction of the budget over which gamma and beta_2 move
GAMMA_START = 10.0  # gamma begins this many times higher than it ends
BETA_2 = (0.9, 0.99)


def burn_in(progress: float) -> float:
    """Cosine from 0 to 1 over the first ``BURN_IN`` of the budget."""
    return 0.5 * (1 - math.cos(math.pi * min(progress / BURN_IN, 1.0)))


class AdversarialStage(Stage):
    """Alternating updates; the averaged generator is what is kept."""

    name = "adversarial"

    def __init__(self, network: Generator, discriminator: Discriminator, *, r1_gamma: float, **training: Any) -> None:
        super().__init__(network, **training)
        self.automatic_optimization = False
        self.discriminator = discriminator
        self.r1_gamma = r1_gamma

    def configure_optimizers(self) -> Any:
        """Adam without momentum for both networks."""
        return [
            torch.optim.Adam(
                [{"params": list(net.parameters()), "initial_lr": self.lr}], lr=self.lr, betas=(0.0, BETA_2[0]),
                fused=True,
            )
            for net in (self.network, self.discriminator)
        ]

    def set_progress(self, progress: float) -> None:
        super().set_progress(progress)
        beta_2 = BETA_2[0] + burn_in(progress) * (BETA_2[1] - BETA_2[0])
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["betas"] = (0.0, beta_2)

    def gamma(self) -> float:
        """Weight of R1 and R2 now, from GAMMA_START * r1_gamma down to r1_gamma (geometric)."""
        return self.r1_gamma * GAMMA_START ** (1 - burn_in(self.progress))

    def generate(self, labels: Tensor) -> Tensor:
        latent_dim = self.network.label.embedding_dim
        z = own_rows(lambda n: torch.randn(n, latent_dim, device=labels.device), len(labels))
        return self.network(z, labels)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, labels = to_float(batch["image"]), batch["label"]
        g_optimizer, d_optimizer = self.optimizers()
        self.update(d_optimizer, self.discriminator_objective(real, labels))
        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            real_logits = self.discriminator(real, labels)
        g_loss = generator_loss(real_logits, self.discriminator(self.generate(labels), labels))
        self.update(g_optimizer, g_loss)
        self.discriminator.requires_grad_(True)
        self.log("g_loss", g_loss)

    def discriminator_objective(self, real: Tensor, labels: Tensor) -> Tensor:
        """Relativistic loss + gamma / 2 (R1 + R2); Eq. 5."""
        with torch.no_grad():
            fake = self.generate(labels)
        real, fake = real.requires_grad_(), fake.requires_grad_()
        real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
        loss = discriminator_loss(real_logits, fake_logits)
        r1, r2 = gradient_penalty(real_logits, real), gradient_penalty(fake_logits, fake)
        self.log_dict({"d_loss": loss, "r1": r1, "r2": r2, "gap": (real_logits - fake_logits).mean()})
        return loss + self.gamma() / 2 * (r1 + r2)

    def update(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class GAN(AdversarialFamily):
    """Class-conditional R3GAN."""

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        latent_dim: int,
        width: int,
        blocks: int,
        patch_size: int,
        batch_size: int,
        lr: float,
        r1_gamma: float,
        ema_half_life: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        shape = {"width": width, "blocks": blocks, "patch_size": patch_size}
        self.settle(
            Generator(image_shape, num_classes, latent_dim=latent_dim, **shape),
            Discriminator(image_shape, num_classes, **shape),
        )

    def stages(self) -> list[Stage]:
        h = self.hparams
        return [
            AdversarialStage(
                self.generator, self.discriminator, r1_gamma=h.r1_gamma,
                batch_size=h.batch_size, lr=h.lr, ema_half_life=h.ema_half_life,
            )
        ]
