"""A tighter bound than the two-part code: codes near encode(x), each weighted by how much too often it was drawn.

Burda et al. 2016, "Importance Weighted Autoencoders" (arXiv:1509.00519), Eq. 8: for z_1..z_k from a distribution
q(z | x) whose probability is known, E log 1/k sum_j p(z_j) p(x | z_j) / q(z_j | x) lies below log p(x) and rises with
k. q takes every position by itself: a softmax over the codebook of the squared distance to the encoder's output,
beyond that of the code it was rounded to. At temperature 0 it is that code, and the bound the two-part code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.base import image_generators, to_float, uniform_noise
from models.vqvae.autoencoder import Autoencoder
from models.vqvae.code_prior import CodePrior
from models.vqvae.drawing import inverted
from models.vqvae.likelihood import log_prob
from models.vqvae.quantizer import Quantizer

TEMPERATURES = (1 / 64, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)  # in squared distances between neighbouring codes
DEFAULT_TEMPERATURE = 1 / 8
CALIBRATION_IMAGES, CALIBRATION_SAMPLES = 8, 8
LEAST_DISTANCE = 1e-8


@dataclass(frozen=True)
class Proposal:
    """q(z | x) = prod_t q(z_t | x): log probabilities of the codes at every position, float64 (N, T, K)."""

    log_probabilities: Tensor

    def draw(self, uniform: Tensor) -> Tensor:
        """Noise in [0, 1), float64 (N, T) -> indices int64 (N, T)."""
        return inverted(self.log_probabilities.exp(), uniform)

    def log_prob(self, indices: Tensor) -> Tensor:
        """log q(indices | x) in nats, float64 (N,)."""
        return self.log_probabilities.gather(2, indices[..., None])[..., 0].sum(1)

    @property
    def mass_error(self) -> float:
        """Largest |sum over the codebook of q(z_t | x) - 1|."""
        return float((self.log_probabilities.exp().sum(-1) - 1).abs().max())


@dataclass(frozen=True)
class Weighted:
    """k samples of N images: log p(z), log p(x | z) and log q(z | x), float64 (k, N) each."""

    code: Tensor
    pixels: Tensor
    proposal: Tensor

    @property
    def log_weights(self) -> Tensor:
        """log p(z) p(x | z) / q(z | x), (k, N)."""
        return self.code + self.pixels - self.proposal

    @property
    def bound(self) -> Tensor:
        """log 1/k sum_j of the weights, (N,)."""
        return self.log_weights.logsumexp(0) - torch.tensor(float(len(self.code))).double().log()

    @property
    def parts(self) -> dict[str, Tensor]:
        """What adds up to the bound, (N,) each: code and pixels as the weighted samples have them, and bits back.

        log p(x) = E log p(z) + E log p(x | z) - E log p(z | x) over the posterior, which the weights stand for.
        """
        share = self.log_weights.softmax(0)
        code, pixels = (share * self.code).sum(0), (share * self.pixels).sum(0)
        return {"code": code, "pixels": pixels, "bits back": self.bound - code - pixels}


def code_table(quantizer: Quantizer, device: torch.device) -> Tensor:
    """All codes of the codebook, (K, d)."""
    every = torch.arange(quantizer.codebook_size, device=device)
    return quantizer.codes(every[None, None])[0, :, 0].T


def neighbour_distance(table: Tensor) -> Tensor:
    """Median over the codes (K, d) of the squared distance to the nearest other one, a scalar; 1 for a single code."""
    if len(table) == 1:
        return table.new_ones(())
    distances = torch.cdist(table, table).fill_diagonal_(torch.inf)
    return distances.amin(1).median().square().clamp(min=LEAST_DISTANCE)


@torch.no_grad()
def propose(autoencoder: Autoencoder, x: Tensor, temperature: float) -> Proposal:
    """q(z | x) of images x in [-1, 1], (N, C, H, W).

    ``temperature`` is in units of the squared distance between neighbouring codes.
    """
    z_e, quantizer = autoencoder.encode(x), autoencoder.quantizer
    table = code_table(quantizer, x.device)
    points = quantizer.in_code_space(z_e).flatten(1, 2).contiguous()
    distances = torch.cdist(points, table[None], compute_mode="donot_use_mm_for_euclid_dist").square()  # (N, T, K)
    rounded = quantizer.quantize(z_e).indices.flatten(1)
    excess = (distances - distances.gather(2, rounded[..., None])).clamp(min=0).double()
    return Proposal((-excess / (temperature * neighbour_distance(table).double())).log_softmax(-1))


class ImportanceSampler:
    """Draws codes near those of images and weighs them.

    Args:
        autoencoder: Of one grid of codes.
        prior: Over its codes.
        null: The label that means none.
    """

    def __init__(self, autoencoder: Autoencoder, prior: CodePrior, null: int) -> None:
        self.autoencoder, self.prior, self.null = autoencoder, prior, null

    def weigh(
        self, images: Tensor, generators: list[torch.Generator], *, temperature: float, num_samples: int
    ) -> Weighted:
        """Weighted samples of uint8 images (N, C, H, W), row by row from its generator."""
        proposal = propose(self.autoencoder, to_float(images), temperature)
        labels = torch.full((len(images),), self.null, device=images.device)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(num_samples):
            indices = proposal.draw(uniform_noise((self.prior.num_codes,), generators).to(images.device))
            pixels = log_prob(images, self.autoencoder.pixel_parameters(indices)).double().flatten(1).sum(1)
            code = self.prior.path_log_prob(indices, labels, generators).double()
            found.append((code, pixels, proposal.log_prob(indices)))
        return Weighted(*(torch.stack(column) for column in zip(*found, strict=True)))

    def calibrate(self, images: Tensor, generator: torch.Generator) -> float:
        """The temperature whose bound is the highest on the first few uint8 validation images, with the same noise."""
        images = images[:CALIBRATION_IMAGES]
        seeds = generator.get_state()
        bounds: dict[float, float] = {}
        for temperature in TEMPERATURES:
            generator.set_state(seeds)
            own = image_generators(len(images), generator)
            found = self.weigh(images, own, temperature=temperature, num_samples=CALIBRATION_SAMPLES)
            bounds[temperature] = float(found.bound.mean())
        return max(bounds, key=lambda temperature: bounds[temperature])


def num_samples(prior: CodePrior, evaluations: int = 64, least: int = 8) -> int:
    """Samples of the bound: as many as ``evaluations`` of the prior allow, and no fewer than ``least``."""
    return max(least, evaluations // prior.path_evaluations)

