"""The training step that all members share: drop labels, augment, draw noise, and ask the member for its loss."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from models.base import Stage, drop_labels, own_rows, to_float
from models.diffusion.augment import NUM_DRAWS, augment
from models.diffusion.network import NoiseConditionalUNet


class DenoisingStage(Stage):
    """Trains ``network`` on noised images; members say how a batch is noised and what is lost."""

    name = "denoiser"

    def __init__(
        self, network: NoiseConditionalUNet, *, num_classes: int, label_dropout: float, augment: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(network, **training)
        self.num_classes = num_classes
        self.label_dropout = label_dropout
        self.augment = augment

    @abstractmethod
    def loss(self, x_0: Tensor, labels: Tensor, eps: Tensor, augmented: Tensor | None) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            x_0: Clean images in [-1, 1], (B, C, H, W).
            labels: int64 (B,), some of them "no label".
            eps: Standard normal noise, (B, C, H, W).
            augmented: What was done to the images, (B, 3), if they are augmented.
        """

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x_0, augmented = to_float(batch["image"]), None
        labels = drop_labels(batch["label"], self.num_classes, self.label_dropout)
        if self.augment:
            draws = own_rows(lambda n: torch.rand(n, NUM_DRAWS, device=x_0.device), len(x_0))
            x_0, augmented = augment(x_0, draws, self.augment)
        eps = own_rows(lambda n: torch.randn(n, *x_0.shape[1:], device=x_0.device), len(x_0))
        loss = self.loss(x_0, labels, eps, augmented)
        self.log("loss", loss)
        return loss
