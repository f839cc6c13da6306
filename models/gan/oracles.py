"""A decoder whose likelihood is known: x = W z + b + sigma eps, so that x ~ N(b, W W^T + sigma^2 I).

Probabilistic principal component analysis, Tipping and Bishop 1999. What annealed importance
sampling finds is held against it: the exact value must lie inside the sandwich of both directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.gan.ais import Target


def linear_gaussian_log_prob(x: Tensor, weight: Tensor, bias: Tensor, sigma: float) -> Tensor:
    """log N(x; b, W W^T + sigma^2 I) in nats, float64 (N,).

    Args:
        x: Data, (N, D).
        weight: W, (D, d).
        bias: b, (D,).
        sigma: Standard deviation of the observation noise, > 0.
    """
    weight = weight.double()
    covariance = weight @ weight.T + sigma**2 * torch.eye(len(weight), dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(bias.double(), covariance)
    return normal.log_prob(x.double())


@dataclass(frozen=True)
class LinearGaussian:
    """The decoder with weight (D, d), bias (D,) and noise sigma, all float64."""

    weight: Tensor
    bias: Tensor
    sigma: float

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) of x (N, D), float64 (N,)."""
        return linear_gaussian_log_prob(x, self.weight, self.bias, self.sigma)

    def target(self, x: Tensor, chains: int) -> Target:
        """What annealed importance sampling needs to know, for x (N, D) and so many chains each."""
        rows = x.double().repeat_interleave(chains, 0)
        dimensions = rows.shape[1]
        constant = -dimensions * (math.log(self.sigma) + 0.5 * math.log(2 * math.pi))

        def log_likelihood(z: Tensor, classes: Tensor) -> Tensor:
            residual = (rows - z @ self.weight.T - self.bias) / self.sigma
            return constant - 0.5 * residual.square().sum(1)

        return Target(log_likelihood, latent_dim=self.weight.shape[1], dtype=torch.float64)

    def simulate(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (n, d) and the data (n, D) drawn from them."""
        z = torch.randn(n, self.weight.shape[1], generator=generator, dtype=torch.float64)
        eps = torch.randn(n, len(self.weight), generator=generator, dtype=torch.float64)
        return z, z @ self.weight.T + self.bias + self.sigma * eps
