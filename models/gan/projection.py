"""Projection (inversion): the latent whose image is most like a given one, and yet likely.

The maximum a posteriori of p(x | z, c) p(z) with p(x | z, c) = N(x; G(z, c), sigma^2) and p(z) = N(0, I), by Adam
from several draws of the prior; Lipton and Tripathi 2017 (arXiv:1702.04782), Creswell and Bharath 2018
(arXiv:1802.05701) without and with the prior's term. Deviation: the class is searched too where it is not given.
What is left between an image and its projection is what the generator cannot make.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.base import normal_noise, to_float
from models.gan.likelihood import blocks

RATE = 0.1  # of Adam, falling to 0 as half a cosine

Decode = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Search:
    """How a latent is sought: noise of the pixels, steps of Adam, draws of the prior to start from.

    Raises:
        ValueError: if ``sigma`` is not above 0 or one of the numbers is below 1.
    """

    sigma: float = 0.1  # 13 grey levels: the image weighs more than the prior
    steps: int = 200
    restarts: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma must be a number above 0, not {self.sigma}")
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class Found:
    """Latents float32 (N, d), classes int64 (N,) and the objective there in nats, float64 (N,)."""

    latents: Tensor
    classes: Tensor
    objective: Tensor


def objective(decode: Decode, x: Tensor, z: Tensor, classes: Tensor, sigma: float) -> Tensor:
    """|x - G(z, c)|^2 / (2 sigma^2) + |z|^2 / 2: -log p(x, z | c) but for a constant, float64 (B,).

    Args:
        decode: G: latents (B, d) and classes (B,) to images (B, C, H, W).
        x: Images in [-1, 1], (B, C, H, W).
        z: Latents (B, d).
        classes: int64 (B,).
        sigma: Standard deviation of an image's pixels about G(z, c), > 0.
    """
    distance = (x - decode(z, classes)).flatten(1).double().square().sum(1)
    return distance / (2 * sigma**2) + z.double().square().sum(1) / 2


def descend(decode: Decode, x: Tensor, start: Tensor, classes: Tensor, how: Search) -> Found:
    """Adam from ``start`` (B, d); every row is a search of its own, as Adam works number by number."""
    z = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=RATE)
    for step in range(how.steps):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / how.steps))
        (z.grad,) = torch.autograd.grad(objective(decode, x, z, classes, how.sigma).sum(), z)
        optimizer.step()
    with torch.no_grad():
        return Found(z.detach(), classes, objective(decode, x, z, classes, how.sigma))


def best_of(found: list[Found], n: int) -> Found:
    """Of searches of n images, each with its restarts one after the other, the best of every image."""
    latents = torch.cat([f.latents.unflatten(0, (n, -1)) for f in found], dim=1)  # (n, K, d)
    classes = torch.cat([f.classes.unflatten(0, (n, -1)) for f in found], dim=1)
    values = torch.cat([f.objective.unflatten(0, (n, -1)) for f in found], dim=1)
    best, rows = values.argmin(1), torch.arange(n, device=values.device)
    return Found(latents[rows, best], classes[rows, best], values[rows, best])


def search(
    decode: Decode, images: Tensor, labels: Tensor | None, generators: list[torch.Generator], *, latent_dim: int,
    num_classes: int, how: Search,
) -> Found:
    """The most probable latent of every image; each depends on itself and its own generator only.

    Always as many images are sought at once, so that an image's arithmetic does not depend on its batch.

    Args:
        decode: Latents (B, d) and classes int64 (B,) to images (B, C, H, W).
        images: uint8 (N, C, H, W).
        labels: Classes int64 (N,); None seeks in every class and keeps the best.
        generators: One for each image: of the starts, which are the same in every class.
        latent_dim: d.
        num_classes: Classes that there are.
        how: Noise, steps and starts of each image.
    """
    starts = normal_noise((how.restarts, latent_dim), generators).to(images.device)
    tried = [labels] if labels is not None else [torch.full((len(images),), c) for c in range(num_classes)]
    candidates = torch.stack(tried, dim=1).to(images.device)  # (N, classes to try)
    parts = []
    for real, _, (block, start, classes) in blocks(generators, images, starts, candidates):
        x, begin = to_float(block).repeat_interleave(how.restarts, 0), start.flatten(0, 1)
        found = [
            descend(decode, x, begin, column.repeat_interleave(how.restarts), how) for column in classes.unbind(1)
        ]
        best = best_of(found, len(block))
        parts.append(Found(best.latents[:real], best.classes[:real], best.objective[:real]))
    return Found(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))
