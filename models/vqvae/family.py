"""What all models of discrete codes share: compress images to codes, then learn to write such codes.

van den Oord et al. 2017 (arXiv:1711.00937) with a normalised decoder: -log p(z) - log p(x | z) with
z = encode(x) is the length of a two-part code, an upper bound on -log p(x). A member brings an autoencoder
and a prior; sampling and the likelihood are the same for all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.base import (
    GenerativeModel,
    LikelihoodBound,
    Reconstruction,
    Samples,
    SelfCheck,
    Stage,
    image_generators,
    to_float,
    to_uint8,
    uniform_noise,
)
from models.vqvae.autoencoder import Autoencoder, AutoencoderStage
from models.vqvae.likelihood import log_prob, mass_error, mean_image
from models.vqvae.prior import CodePrior, PriorStage

CHECKED_IMAGES = 8
TOLERANCE = 1e-4  # float32 pixel values: 6e-8 times the steepest slope of the narrowest mixture


class CodeFamily(GenerativeModel):
    """Two stages: the autoencoder, then the prior over its codes."""

    likelihood_kinds = ("two-part code",)

    autoencoder: Autoencoder
    prior: CodePrior

    def settle(self, autoencoder: Autoencoder, prior: CodePrior) -> None:
        """Take over the hyperparameters that all members have, and the two networks."""
        self.image_shape = tuple(self.hparams.image_shape)
        self.num_classes = self.hparams.num_classes
        self.sampler = f"{prior.sampler}, then the decoder's mean"
        self.autoencoder = autoencoder.to(memory_format=torch.channels_last)
        self.prior = prior

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
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, cached: bool = True
    ) -> Samples:
        """Contract of ``GenerativeModel.sample``.

        Args:
            cached: Use the key-value cache; False recomputes every position (for comparison).
        """
        labels = self.labels_or_null(n, condition)
        uniform = uniform_noise((self.prior.num_codes,), image_generators(n, generator)).to(self.device)
        indices = self.prior.sample(labels, uniform, cached=cached)
        return Samples(self.mean_images(indices), nfe=self.prior.num_codes + 1)

    @torch.inference_mode()
    def log_likelihood_bound(
        self, images: Tensor, *, generator: torch.Generator, kind: str | None = None
    ) -> LikelihoodBound:
        """Two-part code without labels: log p(z) + log p(x | z) at z = encode(x). Deterministic.

        Contract of ``GenerativeModel.log_likelihood_bound``; the generator is not used.
        """
        kind = self.likelihood_kind(kind)
        self.check_images(images)
        images = images.to(self.device)
        indices = self.encode(images)
        parts = {
            "code": self.prior.log_prob(indices, self.labels_or_null(len(images), None)).double(),
            "pixels": log_prob(images, self.pixel_parameters(indices)).double().flatten(1).sum(1),
        }
        grids = " and ".join(f"{rows} x {columns}" for rows, columns in self.autoencoder.grids)
        codes = f"{grids} of {self.autoencoder.codebook_size}"
        nfe = torch.full((len(images),), 3.0, dtype=torch.float64)  # encoder, prior, decoder
        return LikelihoodBound(parts["code"] + parts["pixels"], kind, parts, {"codes": codes}, nfe)

    @torch.inference_mode()
    def check_likelihood(self, images: Tensor, *, kind: str, generator: torch.Generator) -> SelfCheck:
        """Both halves of the code are distributions, at the codes of the first few uint8 images given.

        Checked are the decoder's mass over the 256 levels of every pixel, the mass of every conditional
        of the prior over the codebook, and that no conditional depends on its own or on later codes
        (or the product of conditionals would not be a distribution).
        """
        self.likelihood_kind(kind)
        self.check_images(images)
        indices = self.encode(images[:CHECKED_IMAGES].to(self.device))
        pixels = mass_error(self.pixel_parameters(indices), self.image_shape[0])
        labels = self.labels_or_null(len(indices), None)
        codes = self.prior_mass_error(indices, labels)
        ahead = self.look_ahead(indices, labels)
        text = (
            f"at the codes of {len(indices)} held-out images, largest deviation from a sum of one: decoder over 256 "
            f"levels {pixels:.1e}, prior over the codebook {codes:.1e}; look-ahead of the prior {ahead:.1e}"
        )
        return SelfCheck(text, max(pixels, codes, ahead) <= TOLERANCE)

    def prior_mass_error(self, indices: Tensor, labels: Tensor) -> float:
        """Largest |sum over the codebook of p(last index | those before) - 1|, through ``CodePrior.log_prob``.

        Args:
            indices: int64 (N, T).
            labels: int64 (N,).
        """
        before = torch.log_softmax(self.prior.logits(indices, labels).double(), dim=-1)[:, :-1]
        head = before.gather(2, indices[:, :-1, None]).sum((1, 2))  # log p(all but the last)
        mass = torch.zeros_like(head)
        for index in range(self.autoencoder.codebook_size):
            last = torch.cat([indices[:, :-1], torch.full_like(indices[:, :1], index)], dim=1)
            mass += (self.prior.log_prob(last, labels).double() - head).exp()
        return float((mass - 1).abs().max())

    def look_ahead(self, indices: Tensor, labels: Tensor) -> float:
        """Largest change of p(index_t | ...) when index_t and all later ones are replaced, over a few t."""
        size = self.autoencoder.codebook_size
        plain = self.prior.logits(indices, labels).softmax(-1)
        changes = []
        for t in sorted({0, self.prior.num_codes // 2, self.prior.num_codes - 1}):
            other = torch.cat([indices[:, :t], (indices[:, t:] + 1) % size], dim=1)
            changes.append((self.prior.logits(other, labels).softmax(-1) - plain)[:, : t + 1].abs().max())
        return float(torch.stack(changes).max())
