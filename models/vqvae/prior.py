"""Second stage: an autoregressive transformer over the code indices, raster order.

van den Oord et al. 2017 (arXiv:1711.00937), Sec. 3.3, with a transformer in place of PixelCNN.
The class token stands where a start token would; the null class gives the prior without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.nets.transformer import Transformer
from models.vqvae.code_layers import CodeEmbedding, CodeHead, small_embedding
from models.vqvae.code_prior import UNKNOWN, CodePrior, PriorCheck
from models.vqvae.drawing import Truncation

EVERYTHING = Truncation()


class AutoregressivePrior(CodePrior):
    """p(indices | label) = prod_t p(index_t | index_<t, label)."""

    sampler = "autoregressive with key-value cache"

    def __init__(
        self, *, codebook_size: int, num_codes: int, num_classes: int, dim: int, depth: int,
        levels: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.codebook_size, self.num_codes = codebook_size, num_codes
        self.token = CodeEmbedding(codebook_size, dim, levels=levels)
        self.label = small_embedding(num_classes + 1, dim)  # the last row is "no label"
        head = CodeHead(codebook_size, dim, levels=levels)
        self.transformer = Transformer(dim=dim, depth=depth, length=num_codes, head=head)

    def logits(self, indices: Tensor, labels: Tensor) -> Tensor:
        """indices int64 (B, T), labels (B,) -> (B, T, codebook_size); position t sees indices before t."""
        stream = torch.cat([self.label(labels)[:, None], self.token(indices[:, :-1])], dim=1)
        return self.transformer(stream)

    def loss(self, indices: Tensor, labels: Tensor) -> Tensor:
        """-log p(indices | label), the mean over codes, in nats."""
        return F.cross_entropy(self.logits(indices, labels).flatten(0, 1), indices.flatten())

    def log_prob(
        self, indices: Tensor, labels: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """log p(indices | label) in nats, (B,), exactly; nothing is drawn."""
        logits = self.logits(indices, labels).flatten(0, 1)  # (B T, K)
        return -F.cross_entropy(logits, indices.flatten(), reduction="none").reshape(indices.shape).sum(1)

    def path_log_prob(
        self, indices: Tensor, labels: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """There is one path, raster order."""
        return self.log_prob(indices, labels)

    def noise_shape(self, **options: Any) -> tuple[int, ...]:
        """One number per code."""
        return (self.num_codes,)

    def evaluations(self, given: Tensor | None = None, **options: Any) -> int:
        """One per position, up to the last that is drawn in any row."""
        if given is None:
            return self.num_codes
        drawn = (given == UNKNOWN).any(0).nonzero()
        return int(drawn.max()) + 1 if len(drawn) else 0

    def sample(
        self, labels: Tensor, noise: Tensor, *, given: Tensor | None = None, truncation: Truncation = EVERYTHING,
        cached: bool = True,
    ) -> Tensor:
        """Draw indices (B, T) by inverting the cumulative distribution, in raster order.

        What is drawn depends on the codes before it, given or drawn, and not on given codes that come later:
        a model that goes from left to right cannot look ahead.

        Args:
            labels: int64 (B,).
            noise: In [0, 1), float64 (B, T), one number per code.
            given: Codes int64 (B, T) that stay as they are, ``UNKNOWN`` where one is to be drawn.
            truncation: Temperature, top-k and top-p of every draw.
            cached: Keep keys and values of earlier positions instead of recomputing them.
        """
        cache = self.transformer.new_cache(len(labels)) if cached else None
        stream = self.label(labels)[:, None]  # (B, 1, dim)
        indices = noise.new_zeros(noise.shape, dtype=torch.int64) if given is None else given.clone()
        for t in range(self.evaluations(given)):
            if t > 0:
                token = self.token(indices[:, t - 1 : t])
                stream = token if cached else torch.cat([stream, token], dim=1)
            logits = self.transformer(stream, cache, position=t if cached else 0)[:, -1]
            drawn = truncation.draw(logits, noise[:, t])
            indices[:, t] = drawn if given is None else torch.where(given[:, t] == UNKNOWN, drawn, given[:, t])
        return indices

    def check(self, indices: Tensor, labels: Tensor) -> PriorCheck:
        """The mass of every conditional over the codebook, and that none depends on its own or on later codes.

        Otherwise the product of conditionals would not be a distribution.
        """
        codes, ahead = self.mass_error(indices, labels), self.look_ahead(indices, labels)
        text = f"prior over the codebook {codes:.1e}; look-ahead of the prior {ahead:.1e}"
        return PriorCheck(text, max(codes, ahead))

    def mass_error(self, indices: Tensor, labels: Tensor) -> float:
        """Largest |sum over the codebook of p(last index | those before) - 1|, through ``log_prob``.

        Args:
            indices: int64 (N, T).
            labels: int64 (N,).
        """
        before = torch.log_softmax(self.logits(indices, labels).double(), dim=-1)[:, :-1]
        head = before.gather(2, indices[:, :-1, None]).sum((1, 2))  # log p(all but the last)
        mass = torch.zeros_like(head)
        for index in range(self.codebook_size):
            last = torch.cat([indices[:, :-1], torch.full_like(indices[:, :1], index)], dim=1)
            mass += (self.log_prob(last, labels).double() - head).exp()
        return float((mass - 1).abs().max())

    def look_ahead(self, indices: Tensor, labels: Tensor) -> float:
        """Largest change of p(index_t | ...) when index_t and all later ones are replaced, over a few t."""
        plain = self.logits(indices, labels).softmax(-1)
        changes = []
        for t in sorted({0, self.num_codes // 2, self.num_codes - 1}):
            other = torch.cat([indices[:, :t], (indices[:, t:] + 1) % self.codebook_size], dim=1)
            changes.append((self.logits(other, labels).softmax(-1) - plain)[:, : t + 1].abs().max())
        return float(torch.stack(changes).max())
