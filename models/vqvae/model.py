"""VQ-VAE: one grid of codes of any quantiser, then an autoregressive transformer over them.

van den Oord et al. 2017 (arXiv:1711.00937); finite scalar quantisation (Mentzer et al. 2023, arXiv:2309.15505)
unless another quantiser is asked for. With an adversarial or perceptual term (Esser et al. 2021,
arXiv:2012.09841) it has no likelihood.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.base import LikelihoodBound, Stage
from models.vqvae.adversarial import REASON, AdversarialAutoencoderStage, PatchDiscriminator
from models.vqvae.autoencoder import Autoencoder
from models.vqvae.family import CodeFamily
from models.vqvae.prior import AutoregressivePrior


class VQVAE(CodeFamily):
    """One grid of codes, written in raster order."""

    autoencoder: Autoencoder

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        levels: tuple[int, ...],
        downsample: int,
        width: int,
        autoencoder_share: float,
        prior_dim: int,
        prior_depth: int,
        batch_size: int,
        lr: float,
        ema_half_life: float,
        label_dropout: float,
        quantizer: str = "fsq",
        codebook_size: int = 512,
        codebook_dim: int = 16,
        commitment: float = 0.25,
        cosine: bool = False,
        adversarial: float = 0.0,
        perceptual: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        autoencoder = Autoencoder(
            tuple(image_shape), width=width, downsample=downsample, quantizer=self.new_quantizer()
        )
        prior = AutoregressivePrior(
            codebook_size=autoencoder.codebook_size, num_codes=autoencoder.num_codes, num_classes=num_classes,
            dim=prior_dim, depth=prior_depth, levels=autoencoder.digit_levels,
        )
        self.settle(autoencoder, prior)
        self.discriminator: PatchDiscriminator | None = None
        if adversarial or perceptual:
            self.discriminator = PatchDiscriminator(image_shape[0], width)
            self.likelihood_kinds, self.slow_likelihood_kinds, self.likelihood_missing = (), (), REASON

    def stages(self) -> list[Stage]:
        stages, h = super().stages(), self.hparams
        if self.discriminator is not None:
            stages[0] = AdversarialAutoencoderStage(
                self.autoencoder, self.discriminator, adversarial=h.adversarial, perceptual=h.perceptual,
                share=h.autoencoder_share, batch_size=h.batch_size, lr=h.lr, ema_half_life=h.ema_half_life,
            )
        return stages

    def log_likelihood_bound(
        self, images: Tensor, *, generator: torch.Generator, kind: str | None = None
    ) -> LikelihoodBound | None:
        """Contract of ``GenerativeModel.log_likelihood_bound``; None if the bound was given up in training."""
        if kind is None and not self.likelihood_kinds:
            return None
        return super().log_likelihood_bound(images, generator=generator, kind=kind)
