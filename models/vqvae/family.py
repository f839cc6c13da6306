"""What all models of discrete codes share: compress images to codes, then learn to write such codes.

van den Oord et al. 2017 (arXiv:1711.00937) with a normalised decoder: -log p(z) - log p(x | z) with
z = encode(x) is the length of a two-part code, an upper bound on -log p(x); weighting many codes near z gives a
tighter one. A member brings an autoencoder and a prior; likelihoods are the same for all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.base import (
    Asked,
    GenerativeModel,
    LikelihoodBound,
    Reconstruction,
    Samples,
    SelfCheck,
    Stage,
    Sweep,
    image_generators,
    to_float,
    to_uint8,
    uniform_noise,
)
from models.vqvae.autoencoder import AutoencoderStage, DiscreteAutoencoder
from models.vqvae.code_prior import CodePrior, PriorStage
from models.vqvae.drawing import Truncation
from models.vqvae.editing import painting
from models.vqvae.importance import DEFAULT_TEMPERATURE, ImportanceSampler, num_samples, propose
from models.vqvae.likelihood import log_prob, mass_error, mean_image
from models.vqvae.quantizer import Quantizer
from models.vqvae.quantizers import build_quantizer
from models.vqvae.sweeps import temperature_sweep

CHECKED_IMAGES = 8
TOLERANCE = 1e-4  # float32 pixel values: 6e-8 times the steepest slope of the narrowest mixture
TWO_PART, WEIGHTED = "two-part code", "importance-weighted"


class CodeFamily(GenerativeModel):
    """Two stages: the autoencoder, then the prior over its codes."""

    likelihood_kinds = (TWO_PART, WEIGHTED)
    slow_likelihood_kinds = (WEIGHTED,)
    sweep_options = ("temperature",)

    autoencoder: DiscreteAutoencoder
    prior: CodePrior
    proposal_temperature = DEFAULT_TEMPERATURE  # of the codes that are weighted; ``calibrate_likelihood`` chooses it

    def new_quantizer(self) -> Quantizer:
        """The one that the hyperparameters ask for."""
        h = self.hparams
        return build_quantizer(
            h.quantizer, levels=h.levels, codebook_size=h.codebook_size, codebook_dim=h.codebook_dim,
            commitment=h.commitment, cosine=h.cosine,
        )

    def settle(self, autoencoder: DiscreteAutoencoder, prior: CodePrior) -> None:
        """Take over the hyperparameters that all members have, and the two networks.

        Codes near those of an image are only known where there is one grid of them; else there is no bound from them.
        """
        self.image_shape = tuple(self.hparams.image_shape)
        self.num_classes = self.hparams.num_classes
        self.sampler = f"{prior.sampler}, then the decoder's mean"
        self.autoencoder = autoencoder.to(memory_format=torch.channels_last)
        self.prior = prior
        if len(autoencoder.grids) > 1:
            self.likelihood_kinds, self.slow_likelihood_kinds = (TWO_PART,), ()

    def likelihood_kind(self, kind: str | None) -> str:
        if kind == WEIGHTED and len(self.autoencoder.grids) > 1:
            raise ValueError(f"{kind!r} needs one grid of codes, and this model has {len(self.autoencoder.grids)}")
        return super().likelihood_kind(kind)

    def stages(self) -> list[Stage]:
        h = self.hparams
        training = {"batch_size": h.batch_size, "lr": h.lr, "ema_half_life": h.ema_half_life}
        return [
            AutoencoderStage(self.autoencoder, share=h.autoencoder_share, **training),
            PriorStage(
                self.prior, encode=self.encode, share=1 - h.autoencoder_share,
                num_classes=self.num_classes, label_dropout=h.label_dropout, **training,
            ),
        ]

    def sampling_modules(self) -> list[nn.Module]:
        return [self.prior, self.autoencoder.decoder]

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) -> indices int64 (N, T), grid by grid in raster order."""
        return self.autoencoder.indices(to_float(images))

    def pixel_parameters(self, indices: Tensor) -> Tensor:
        """Indices (N, T) -> parameters of p(x | z), (N, 3 K C, H, W)."""
        return self.autoencoder.pixel_parameters(indices)

    def mean_images(self, indices: Tensor) -> Tensor:
        """Indices (N, T) -> what the decoder expects to see, uint8 (N, C, H, W)."""
        return to_uint8(mean_image(self.pixel_parameters(indices), self.image_shape[0]))

    @torch.inference_mode()
    def reconstruct(self, images: Tensor) -> Reconstruction:
        self.check_images(images)
        indices = self.encode(images.to(self.device))
        a = self.autoencoder
        return Reconstruction(self.mean_images(indices), indices, a.grids, a.codebook_size)

    @torch.inference_mode()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        image: Tensor | None = None,
        mask: Tensor | None = None,
        cached: bool = True,
    ) -> Samples:
        """Contract of ``GenerativeModel.sample``; of a member whose prior draws code by code in raster order.

        Args:
            temperature: Divides the logits of every code, 0.001..100.
            top_k: Draw among that many likeliest codes; 0 for all.
            top_p: Draw among the fewest codes whose mass reaches this share, in (0, 1].
            image: uint8 (n, C, H, W), whose codes are kept where all their pixels are; needs a ``mask``.
            mask: bool (H, W) or (n, 1, H, W), True where the pixels of ``image`` are kept. Codes are drawn in
                raster order: what comes after is conditioned on kept codes, what comes before is not.
            cached: Use the key-value cache; False recomputes every position (for comparison).

        Raises:
            ValueError: if an option is out of range or does not go with another.
        """
        truncation = Truncation(temperature, top_k, top_p)
        return self.draw(n, condition, generator, image, mask, truncation=truncation, cached=cached)

    def draw(
        self, n: int, condition: Tensor | None, generator: torch.Generator, image: Tensor | None, mask: Tensor | None,
        **options: Any,
    ) -> Samples:
        """Codes from the prior, told ``options``, through the decoder; what is kept of a picture is put back."""
        labels, generators = self.labels_or_null(n, condition), image_generators(n, generator)
        if image is not None:
            self.check_images(image)
        kept, given = painting(n, image, mask, self.image_shape[1:]), None
        if kept is not None:
            kept = kept.to(self.device)
            given = kept.given(self.encode(kept.image), self.autoencoder.grids)
        noise = uniform_noise(self.prior.noise_shape(**options), generators).to(self.device)
        images = self.mean_images(self.prior.sample(labels, noise, given=given, **options))
        nfe = self.prior.evaluations(given, **options) + 1
        return Samples(images if kept is None else kept.finish(images), nfe)

    def sweeps(self, asked: Asked) -> tuple[Sweep, ...]:
        """The temperature of the codes."""
        self.check_asked(asked)
        return (temperature_sweep(asked, "code by code"),)

    # Likelihood.

    @torch.inference_mode()
    def log_likelihood_bound(
        self, images: Tensor, *, generator: torch.Generator, kind: str | None = None
    ) -> LikelihoodBound:
        """Contract of ``GenerativeModel.log_likelihood_bound``, without labels.

        "two-part code": log p(z) + log p(x | z) at z = encode(x), deterministic if log p(z) is no estimate;
        "importance-weighted": many codes near z (``importance.py``), a bound on average.
        """
        kind = self.likelihood_kind(kind)
        self.check_images(images)
        images, generators = images.to(self.device), image_generators(len(images), generator)
        return self.weighted_code(images, generators) if kind == WEIGHTED else self.two_part_code(images, generators)

    def two_part_code(self, images: Tensor, generators: list[torch.Generator]) -> LikelihoodBound:
        """log p(z) + log p(x | z) at z = encode(x) of uint8 images (N, C, H, W)."""
        indices, labels = self.encode(images), self.labels_or_null(len(images), None)
        parts = {
            "code": self.prior.log_prob(indices, labels, generators).double(),
            "pixels": log_prob(images, self.pixel_parameters(indices)).double().flatten(1).sum(1),
        }
        settings = self.code_settings() | self.prior.settings
        nfe = torch.full((len(images),), 2.0 + self.prior.bound_evaluations, dtype=torch.float64)  # encoder, decoder
        return LikelihoodBound(parts["code"] + parts["pixels"], TWO_PART, parts, settings, nfe)

    def weighted_code(self, images: Tensor, generators: list[torch.Generator]) -> LikelihoodBound:
        """log 1/k sum_j p(z_j) p(x | z_j) / q(z_j | x) of uint8 images (N, C, H, W)."""
        samples = num_samples(self.prior)
        found = self.importance_sampler().weigh(
            images, generators, temperature=self.proposal_temperature, num_samples=samples
        )
        settings = self.code_settings() | {"samples": samples, "temperature": self.proposal_temperature}
        cost = 1.0 + samples * (1 + self.prior.path_evaluations)  # encoder; decoder and prior for every sample
        nfe = torch.full((len(images),), cost, dtype=torch.float64)
        parts = found.parts
        return LikelihoodBound(sum(parts.values(), torch.zeros(())), WEIGHTED, parts, settings, nfe)

    def code_settings(self) -> dict[str, float | str]:
        """How many codes there are."""
        grids = " and ".join(f"{rows} x {columns}" for rows, columns in self.autoencoder.grids)
        return {"codes": f"{grids} of {self.autoencoder.codebook_size}"}

    def importance_sampler(self) -> ImportanceSampler:
        """What draws and weighs codes near those of images, without labels."""
        return ImportanceSampler(self.autoencoder, self.prior, self.num_classes)

    @torch.inference_mode()
    def calibrate_likelihood(self, images: Tensor, *, generator: torch.Generator) -> None:
        """Choose how near the weighted codes are, on uint8 validation images (N, C, H, W), the first few of them."""
        self.check_images(images)
        if WEIGHTED in self.likelihood_kinds:
            self.proposal_temperature = self.importance_sampler().calibrate(images.to(self.device), generator)

    @torch.inference_mode()
    def check_likelihood(self, images: Tensor, *, kind: str, generator: torch.Generator) -> SelfCheck:
        """All that is multiplied is a distribution, at the codes of the first few uint8 images given.

        Checked are the decoder's mass over the 256 levels of every pixel, what the prior checks of itself, and for
        weighted codes the mass of the distribution that they are drawn from.
        """
        kind = self.likelihood_kind(kind)
        self.check_images(images)
        images = images[:CHECKED_IMAGES].to(self.device)
        indices = self.encode(images)
        pixels = mass_error(self.pixel_parameters(indices), self.image_shape[0])
        prior = self.prior.check(indices, self.labels_or_null(len(indices), None))
        text = (
            f"at the codes of {len(indices)} held-out images, largest deviation from a sum of one: decoder over 256 "
            f"levels {pixels:.1e}, {prior.text}"
        )
        worst = max(pixels, prior.deviation)
        if kind == WEIGHTED:
            drawn = propose(self.autoencoder, to_float(images), self.proposal_temperature).mass_error
            text, worst = f"{text}; drawn codes over the codebook {drawn:.1e}", max(worst, drawn)
        return SelfCheck(text, worst <= TOLERANCE)
