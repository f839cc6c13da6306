"""A first stage that is also trained to look real: a patch discriminator and its features; it gives up the bound.

Esser et al. 2021, "Taming Transformers" (VQGAN, arXiv:2012.09841), Eq. 4 to 6, with the hinge loss. Deviations:
constant weights in place of the adaptive one of Eq. 7, and in place of LPIPS, whose network must be downloaded,
the distance of the discriminator's own features (feature matching, Larsen et al. 2016, arXiv:1512.09300). What is
judged is the decoder's mean; the likelihood stays in the loss, but is no longer what the codes are learned for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import to_float
from models.gan.networks import SLOPE, scaled_conv
from models.vqvae.autoencoder import AutoencoderStage, DiscreteAutoencoder
from models.vqvae.likelihood import mean_image

REASON = (
    "trained with an adversarial or perceptual term: its codes and decoder are fitted to look real, not to the "
    "likelihood of a two-part code"
)


class PatchDiscriminator(nn.Module):
    """Images (B, C, H, W) to a logit for every patch, (B, 1, H / 4, W / 4), and the features on the way."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([
            nn.Sequential(nn.PixelUnshuffle(2), scaled_conv(4 * channels, width, 3), nn.LeakyReLU(SLOPE)),
            nn.Sequential(scaled_conv(width, 2 * width, 3), nn.LeakyReLU(SLOPE), nn.AvgPool2d(2)),
            nn.Sequential(scaled_conv(2 * width, 2 * width, 3), nn.LeakyReLU(SLOPE)),
        ])
        self.head = nn.Conv2d(2 * width, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return self.head(x), features


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """(E max(0, 1 - D(x)) + E max(0, 1 + D(x'))) / 2, what the discriminator minimises; Lim and Ye 2017."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def feature_distance(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Mean over layers of the mean squared difference of features, each list of (B, C, H, W)."""
    return torch.stack([F.mse_loss(b, a.detach()) for a, b in zip(real, fake, strict=True)]).mean()


class AdversarialAutoencoderStage(AutoencoderStage):
    """Alternating updates of a discriminator and of the autoencoder, which adds two weighted terms to its loss.

    Args:
        adversarial: Weight of -E D(x').
        perceptual: Weight of the distance of features of x and x'.
    """

    def __init__(
        self, network: DiscreteAutoencoder, discriminator: PatchDiscriminator, *, adversarial: float,
        perceptual: float, **training: Any,
    ) -> None:
        super().__init__(network, **training)
        self.automatic_optimization = False
        self.discriminator = discriminator
        self.adversarial = adversarial
        self.perceptual = perceptual

    def configure_optimizers(self) -> Any:
        """The autoencoder's, and Adam with little momentum for the discriminator."""
        groups = [{"params": list(self.discriminator.parameters()), "initial_lr": self.lr}]
        return [super().configure_optimizers(), torch.optim.Adam(groups, lr=self.lr, betas=(0.5, 0.99), fused=True)]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real = to_float(batch["image"])
        parameters, quantized = self.network(real)
        fake = mean_image(parameters, real.shape[1])
        optimizer, d_optimizer = self.optimizers()
        d_loss = hinge_loss(self.discriminator(real)[0], self.discriminator(fake.detach())[0])
        self.update(d_optimizer, d_loss)
        self.discriminator.requires_grad_(False)
        loss = self.objective(batch["image"], parameters, quantized) + self.realism(real, fake)
        self.update(optimizer, loss)
        self.discriminator.requires_grad_(True)
        self.log("d_loss", d_loss)

    def realism(self, real: Tensor, fake: Tensor) -> Tensor:
        """The weighted adversarial and perceptual terms for images in [-1, 1], (B, C, H, W); logged without weights."""
        with torch.no_grad():
            _, real_features = self.discriminator(real)
        fake_logits, fake_features = self.discriminator(fake)
        g_loss, distance = -fake_logits.mean(), feature_distance(real_features, fake_features)
        self.log("g_loss", g_loss)
        self.log("feature_loss", distance)
        return self.adversarial * g_loss + self.perceptual * distance

    def update(self, optimizer: Any, loss: Tensor) -> None:
        """One step of one of the two."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
