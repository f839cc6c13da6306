"""VQ-VAE-2: a top and a bottom grid of codes, then one autoregressive transformer over both, top first.

Razavi et al. 2019 (arXiv:1906.00446). Deviation: instead of a prior for each level there is one over the
sequence of all codes, which is p(top) p(bottom | top) by the chain rule; learned positions tell it the level.
"""

from __future__ import annotations

from models.vqvae.family import CodeFamily
from models.vqvae.hierarchy import TwoLevelAutoencoder
from models.vqvae.prior import AutoregressivePrior


class VQVAE2(CodeFamily):
    """Two grids of codes, written top first, each in raster order."""

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
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        autoencoder = TwoLevelAutoencoder(
            tuple(image_shape), width=width, downsample=downsample, top=self.new_quantizer(),
            bottom=self.new_quantizer(),
        )
        prior = AutoregressivePrior(
            codebook_size=autoencoder.codebook_size, num_codes=autoencoder.num_codes, num_classes=num_classes,
            dim=prior_dim, depth=prior_depth, levels=autoencoder.digit_levels,
        )
        self.settle(autoencoder, prior)


Model = VQVAE2
