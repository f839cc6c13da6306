"""What every quantiser is: continuous vectors to the nearest of a finite set of codes, and back.

One file per idea beside this one; the autoencoder takes any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantized:
    """The codes of a batch.

    ``z_q`` (B, d, H, W) with the gradient that the quantiser gives its input; ``indices`` int64 (B, H, W);
    ``losses`` by name, scalars that are added to what the autoencoder minimises; ``perplexity`` of the batch's
    indices, a scalar from 1 to the codebook's size.
    """

    z_q: Tensor
    indices: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    perplexity: Tensor = field(default_factory=lambda: torch.tensor(1.0))


class Quantizer(nn.Module, ABC):
    """``codebook_size`` codes of ``codebook_dim`` numbers each; with ``digit_levels`` an index is made of digits."""

    codebook_size: int
    codebook_dim: int
    digit_levels: tuple[int, ...] = ()

    @property
    def learns(self) -> bool:
        """Whether quantising may change the codebook: in training mode, and where gradients are recorded.

        A stage that asks a frozen autoencoder for codes does so without gradients, whatever mode it is in.
        """
        return self.training and torch.is_grad_enabled()

    @abstractmethod
    def quantize(self, z_e: Tensor) -> Quantized:
        """z_e (B, d, H, W) -> codes and indices."""

    def in_code_space(self, z_e: Tensor) -> Tensor:
        """What is rounded to the nearest code, on the scale of the codes: z_e (B, d, H, W) -> (B, H, W, d)."""
        return z_e.movedim(1, -1)

    @abstractmethod
    def codes(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, H, W) -> z_q (B, d, H, W), the inverse of ``quantize``."""


def perplexity(indices: Tensor, codebook_size: int) -> Tensor:
    """exp of the entropy in nats of how often indices occur: how many codes are in use, a float32 scalar."""
    shares = torch.bincount(indices.flatten(), minlength=codebook_size).float() / indices.numel()
    return torch.exp(torch.special.entr(shares).sum())
