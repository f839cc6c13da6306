"""Sources whose best denoiser E[x_0 | x_sigma] and whose density at every noise level are known exactly.

Known-answer cases: with these denoisers the variational bounds must reach the source's entropy and the
probability-flow ODE its density. Calculations are float64 and follow the shape of the images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.base import to_float
from models.diffusion.bound import per_image_sum


@dataclass(frozen=True)
class IndependentPixels:
    """Every pixel and channel drawn alike: ``pmf`` over the 256 levels, float64 (256,), sums to 1."""

    pmf: Tensor

    def __post_init__(self) -> None:
        if self.pmf.shape != (256,) or bool((self.pmf < 0).any()) or abs(float(self.pmf.sum()) - 1) > 1e-9:
            raise ValueError("pmf must be 256 probabilities that sum to 1")

    @cached_property
    def levels(self) -> Tensor:
        """Levels that occur, int64 (K,)."""
        return self.pmf.nonzero().squeeze(1)

    @property
    def entropy(self) -> float:
        """Entropy of one pixel in nats."""
        return float(torch.special.entr(self.pmf.double()).sum())

    @property
    def second_moment(self) -> float:
        """E[x_0^2] of one pixel on the scale [-1, 1]."""
        return float((self.pmf[self.levels].double() * to_float(self.levels).double().square()).sum())

    def sample(self, n: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Images uint8 (n, *shape)."""
        drawn = torch.multinomial(self.pmf, n * math.prod(shape), replacement=True, generator=generator)
        return drawn.to(torch.uint8).reshape(n, *shape)

    def log_joint(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log pmf(k) + log N(x; level k, sigma^2) in nats, (B, C, H, W, K), for sigma (B,)."""
        s = sigma.double()[:, None, None, None, None]
        distance = (x.double()[..., None] - to_float(self.levels).double()) / s
        return self.pmf[self.levels].double().log() - 0.5 * distance.square() - s.log() - 0.5 * math.log(2 * math.pi)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_sigma = x], float64 (B, C, H, W), for sigma (B,)."""
        return (torch.softmax(self.log_joint(x, sigma), dim=-1) * to_float(self.levels).double()).sum(-1)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log of the density of x_sigma at x, nats, float64 (B,), for sigma (B,)."""
        return per_image_sum(self.log_joint(x, sigma).logsumexp(-1))


@dataclass(frozen=True)
class CorrelatedGaussian:
    """x_0 ~ N(mean, covariance) for flattened images: ``mean`` (D,), ``covariance`` (D, D), float64."""

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        dimensions = len(self.mean)
        if self.mean.ndim != 1 or self.covariance.shape != (dimensions, dimensions):
            raise ValueError(f"mean (D,) and covariance (D, D) must fit, not {tuple(self.covariance.shape)}")

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (D,) and eigenvectors in columns (D, D) of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance.double())
        return values, vectors

    def rotated(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> coordinates along the eigenvectors, about the mean, (B, D)."""
        return (x.double().flatten(1) - self.mean.double()) @ self.spectrum[1]

    def sample(self, n: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Draws of x_0, float64 (n, *shape)."""
        values, vectors = self.spectrum
        eps = torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64)
        return (self.mean.double() + (eps * values.clamp(min=0).sqrt()) @ vectors.T).reshape(n, *shape)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """mean + Sigma (Sigma + sigma^2 I)^-1 (x - mean), float64 (B, C, H, W), for sigma (B,)."""
        values, vectors = self.spectrum
        gain = values / (values + sigma.double()[:, None].square())
        return (self.mean.double() + (gain * self.rotated(x)) @ vectors.T).reshape(x.shape)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log N(x; mean, Sigma + sigma^2 I), nats, float64 (B,), for sigma (B,)."""
        variance = self.spectrum[0] + sigma.double()[:, None].square()
        return -0.5 * (self.rotated(x).square() / variance + variance.log() + math.log(2 * math.pi)).sum(1)
