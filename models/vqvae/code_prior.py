"""What every prior over codes is: trained on indices, asked for their probability, and drawn from.

One file per idea beside this one; the family takes any of them. A prior whose probability is a sum over paths
(orders in which codes are revealed) gives a lower bound on its logarithm, and the unbiased probability along
one path, which importance weighting needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.base import Stage, drop_labels

UNKNOWN = -1  # among given codes: one that is to be drawn


@dataclass(frozen=True)
class PriorCheck:
    """How a prior's normalisation was checked, a part of a sentence with its figures, and the largest deviation."""

    text: str
    deviation: float


class CodePrior(nn.Module, ABC):
    """p(indices | label) over ``num_codes`` indices below ``codebook_size``; label ``num_classes`` is "none"."""

    sampler: ClassVar[str]
    settings: ClassVar[dict[str, float | str]] = {}  # what ``log_prob`` depends on

    num_codes: int
    codebook_size: int

    @property
    def bound_evaluations(self) -> int:
        """Network evaluations of ``log_prob``."""
        return 1

    @property
    def path_evaluations(self) -> int:
        """Network evaluations of ``path_log_prob``."""
        return 1

    @abstractmethod
    def loss(self, indices: Tensor, labels: Tensor) -> Tensor:
        """What training minimises, nats per code, a scalar; indices int64 (B, T), labels int64 (B,)."""

    @abstractmethod
    def log_prob(
        self, indices: Tensor, labels: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """log p(indices | label) in nats, (B,), or an estimate whose mean lies below it.

        Args:
            indices: int64 (B, T).
            labels: int64 (B,).
            generators: One per row, for estimates.
        """

    @abstractmethod
    def path_log_prob(
        self, indices: Tensor, labels: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """log of a number whose mean is p(indices | label), (B,); arguments as those of ``log_prob``."""

    @abstractmethod
    def noise_shape(self, **options: Any) -> tuple[int, ...]:
        """Shape of the uniform numbers that drawing one row takes."""

    @abstractmethod
    def sample(self, labels: Tensor, noise: Tensor, *, given: Tensor | None = None, **options: Any) -> Tensor:
        """Draw indices int64 (B, T).

        Args:
            labels: int64 (B,).
            noise: In [0, 1), float64 (B, *noise_shape).
            given: Codes int64 (B, T) that stay as they are, ``UNKNOWN`` where one is to be drawn.
            **options: What the prior's sampler takes.
        """

    @abstractmethod
    def evaluations(self, given: Tensor | None = None, **options: Any) -> int:
        """Network evaluations of ``sample``."""

    @abstractmethod
    def check(self, indices: Tensor, labels: Tensor) -> PriorCheck:
        """Hold what ``log_prob`` is made of against a sum of one, at some indices (N, T)."""


class PriorStage(Stage):
    """Minimise the prior's loss over the frozen first stage's codes."""

    name = "prior"

    def __init__(
        self,
        network: CodePrior,
        *,
        encode: Callable[[Tensor], Tensor],
        share: float,
        num_classes: int,
        label_dropout: float,
        **training: Any,
    ) -> None:
        super().__init__(network, **training)
        self.share = share
        self.encode = encode
        self.num_classes = num_classes
        self.label_dropout = label_dropout

    def precompute(self, images: Tensor) -> dict[str, Tensor]:
        """The frozen first stage's indices, int64 (N, T)."""
        return {"indices": self.encode(images)}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        labels = drop_labels(batch["label"], self.num_classes, self.label_dropout)
        loss = self.network.loss(batch["indices"], labels)
        self.log("loss", loss)
        return loss
