"""VQ-VAE: finite scalar quantisation, then an autoregressive transformer over the codes.

van den Oord et al. 2017 (arXiv:1711.00937), Mentzer et al. 2023 (arXiv:2309.15505).
"""

from __future__ import annotations

from models.vqvae.autoencoder import Autoencoder
from models.vqvae.family import CodeFamily
from models.vqvae.prior import AutoregressivePrior


class VQVAE(CodeFamily):
    """One grid of codes, written in raster order."""

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
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        autoencoder = Autoencoder(tuple(image_shape), width=width, downsample=downsample, levels=tuple(levels))
        prior = AutoregressivePrior(
            codebook_size=autoencoder.codebook_size, num_codes=autoencoder.num_codes, num_classes=num_classes,
            dim=prior_dim, depth=prior_depth,
        )
        self.settle(autoencoder, prior)
