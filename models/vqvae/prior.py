"""Second stage: an autoregressive transformer over the code indices, raster order.

van den Oord et al. 2017 (arXiv:1711.00937), Sec. 3.3, with a transformer in place of PixelCNN.
The class token stands where a start token would; the null class gives the prior without labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Stage, drop_labels
from models.nets.transformer import Transformer


class CodePrior(nn.Module):
    """p(indices | label) = prod_t p(index_t | index_<t, label)."""

    sampler = "autoregressive with key-value cache"

    def __init__(self, *, codebook_size: int, num_codes: int, num_classes: int, dim: int, depth: int) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.token = nn.Embedding(codebook_size, dim)
        self.label = nn.Embedding(num_classes + 1, dim)  # the last row is "no label"
        self.transformer = Transformer(dim=dim, depth=depth, length=num_codes, out_dim=codebook_size)

    def logits(self, indices: Tensor, labels: Tensor) -> Tensor:
        """indices int64 (B, T), labels (B,) -> (B, T, codebook_size); position t sees indices before t."""
        stream = torch.cat([self.label(labels)[:, None], self.token(indices[:, :-1])], dim=1)
        return self.transformer(stream)

    def log_prob(self, indices: Tensor, labels: Tensor) -> Tensor:
        """log p(indices | label) in nats, (B,)."""
        logits = self.logits(indices, labels).transpose(1, 2)  # (B, K, T)
        return -F.cross_entropy(logits, indices, reduction="none").sum(1)

    def sample(self, labels: Tensor, uniform: Tensor, *, cached: bool = True) -> Tensor:
        """Draw indices (B, T) by inverting the cumulative distribution.

        Args:
            labels: int64 (B,).
            uniform: Noise in [0, 1), float64 (B, T), one number per code.
            cached: Keep keys and values of earlier positions instead of recomputing them.
        """
        cache = self.transformer.new_cache() if cached else None
        stream = self.label(labels)[:, None]  # (B, 1, dim)
        drawn: list[Tensor] = []
        for t in range(self.num_codes):
            logits = self.transformer(stream, cache, position=t if cached else 0)[:, -1]
            cumulative = F.softmax(logits.double(), dim=-1).cumsum(-1)
            index = torch.searchsorted(cumulative, uniform[:, t, None] * cumulative[:, -1:], right=True)
            drawn.append(index.clamp(max=logits.shape[-1] - 1))
            token = self.token(drawn[-1])
            stream = token if cached else torch.cat([stream, token], dim=1)
        return torch.cat(drawn, dim=1)


class PriorStage(Stage):
    """Minimise -log p(indices | label), the mean over codes, in nats."""

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
        loss = -self.network.log_prob(batch["indices"], labels).mean() / self.network.num_codes
        self.log("loss", loss)
        return loss
