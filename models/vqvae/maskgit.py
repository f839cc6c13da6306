"""MaskGIT: the codes of the VQ-VAE, written many at a time by a transformer that sees all that is there already.

Chang et al. 2022 (arXiv:2202.04200); the first stage is that of ``vqvae``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.base import Asked, Samples, Sweep
from models.vqvae.autoencoder import Autoencoder
from models.vqvae.drawing import Truncation, checked_temperature
from models.vqvae.family import CodeFamily
from models.vqvae.masked_prior import MaskedPrior
from models.vqvae.sweeps import MOST_STEPS, choice_sweep, steps_sweep, temperature_sweep


class MaskGIT(CodeFamily):
    """One grid of codes, the most certain first."""

    sweep_options = ("steps", "temperature", "choice_temperature")

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
        num_steps: int,
        choice_temperature: float,
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
        autoencoder = Autoencoder(
            tuple(image_shape), width=width, downsample=downsample, quantizer=self.new_quantizer()
        )
        prior = MaskedPrior(
            codebook_size=autoencoder.codebook_size, num_codes=autoencoder.num_codes, num_classes=num_classes,
            dim=prior_dim, depth=prior_depth, levels=autoencoder.digit_levels, grid=autoencoder.grids[0],
        )
        self.settle(autoencoder, prior)
        self.sampler = f"{prior.sampler}, {num_steps} steps, then the decoder's mean"

    @torch.inference_mode()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator,
        num_steps: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        choice_temperature: float | None = None,
        image: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Samples:
        """Contract of ``GenerativeModel.sample``.

        Args:
            num_steps: Steps of parallel decoding, 1..1000, of which at most one per code is taken (default: the
                preset's).
            temperature: Divides the logits of every code, 0.001..100.
            top_k: Draw among that many likeliest codes; 0 for all.
            top_p: Draw among the fewest codes whose mass reaches this share, in (0, 1].
            choice_temperature: Of the noise on what is certain, 0..100 (default: the preset's).
            image: uint8 (n, C, H, W), whose codes are kept where all their pixels are; needs a ``mask``.
            mask: bool (H, W) or (n, 1, H, W), True where the pixels of ``image`` are kept. What is drawn is
                conditioned on all kept codes.

        Raises:
            ValueError: if an option is out of range or does not go with another.
        """
        steps = self.hparams.num_steps if num_steps is None else num_steps
        choice = self.hparams.choice_temperature if choice_temperature is None else choice_temperature
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"num_steps must lie in 1..{MOST_STEPS}, not {steps}")
        return self.draw(
            n, condition, generator, image, mask, num_steps=min(steps, self.prior.num_codes),
            truncation=Truncation(temperature, top_k, top_p),
            choice_temperature=checked_temperature(choice, "choice_temperature", least=0),
        )

    def sweeps(self, asked: Asked) -> tuple[Sweep, ...]:
        """Steps, the temperature of the codes, and that of the choice among them."""
        self.check_asked(asked)
        own = {"num_steps": self.hparams.num_steps, "choice_temperature": self.hparams.choice_temperature}
        series = f"parallel, {self.hparams.num_steps} steps"
        return (
            steps_sweep(asked, "parallel decoding", self.prior.num_codes, choice_temperature=own["choice_temperature"]),
            temperature_sweep(asked, series, **own),
            choice_sweep(asked, series, num_steps=own["num_steps"]),
        )


Model = MaskGIT
