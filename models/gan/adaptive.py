"""Which augmentation the discriminator's images go through, and how likely it is.

Karras et al. 2020 (arXiv:2006.06676), Sec. 3: p rises while the discriminator is surer of training images than a
target, and falls below it. Deviation: p moves its full range in ``ada_images`` images, an option, because short
budgets never see the 500,000 of the paper.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.base import own_rows, processes, rows_of_all
from models.gan.augment import ADA_DRAWS, DIFFAUGMENT_DRAWS, ada, diffaugment

Augment = Literal["none", "diffaugment", "ada"]
AUGMENTATIONS = ("none", "diffaugment", "ada")
TARGET = 0.6
INTERVAL = 4  # steps between adjustments; Karras et al., App. D


def adjusted(p: float, overfitting: float, images: int, ada_images: float) -> float:
    """p after so many more images: a step towards 1 if ``overfitting`` is above the target, else towards 0; Sec. 3.1.

    Args:
        p: In [0, 1].
        overfitting: r_t = E sign(D(real)), in [-1, 1].
        images: Seen since the last adjustment.
        ada_images: Over which p could move from 0 to 1.
    """
    direction = (overfitting > TARGET) - (overfitting < TARGET)
    return min(max(p + direction * images / ada_images, 0.0), 1.0)


class Augmentation(nn.Module):
    """One of ``AUGMENTATIONS``. Of "ada", p and what was seen since its last adjustment are buffers, so resumable.

    Args:
        kind: Which.
        probability: Of "diffaugment": the share of images that are changed.
        ada_images: Of "ada": images over which p could move from 0 to 1.
    """

    p: Tensor
    signs: Tensor
    images: Tensor
    steps: Tensor

    def __init__(self, kind: str, *, probability: float, ada_images: float) -> None:
        super().__init__()
        if kind not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {kind!r}; allowed: {', '.join(AUGMENTATIONS)}")
        self.kind = kind
        self.probability = probability
        self.ada_images = ada_images
        for name in ("p", "signs"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        for name in ("images", "steps"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        if kind == "diffaugment":
            self.p.fill_(probability)

    def ramp(self, share: float) -> None:
        """Let "diffaugment" act with this share of its probability; p of "ada" is found and not scheduled."""
        if self.kind == "diffaugment":
            self.p.fill_(share * self.probability)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in units of [-1, 1] as the discriminator is to see them, with noise of their own."""
        if self.kind == "none":
            return x
        number = DIFFAUGMENT_DRAWS if self.kind == "diffaugment" else ADA_DRAWS
        draws = own_rows(lambda n: torch.rand(n, number, device=x.device), len(x))
        return (diffaugment if self.kind == "diffaugment" else ada)(x, draws, self.p)

    @torch.no_grad()
    def observe(self, sureness: Tensor) -> None:
        """Learn how sure the discriminator is of real images, (B,): positive where it takes them for real."""
        if self.kind != "ada":
            return
        self.signs += rows_of_all(sureness.sign()).double().sum().to(self.signs.device)
        self.images += len(sureness) * processes()[1]
        self.steps += 1
        if int(self.steps) == INTERVAL:
            seen = int(self.images)
            self.p.fill_(adjusted(float(self.p), float(self.signs) / seen, seen, self.ada_images))
            for tensor in (self.signs, self.images, self.steps):
                tensor.zero_()
