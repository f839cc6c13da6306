"""What quantisers with a learned codebook share: the nearest code, and a term that keeps the encoder near it.

van den Oord et al. 2017 (arXiv:1711.00937), Eq. 1 to 3. How the codebook learns and which gradient the encoder
gets are the business of the files beside this one. With cosine codes both sides are projected to the unit
sphere first (Yu et al. 2022, arXiv:2110.04627), so that the nearest code is the one of the smallest angle.
Deviation: squared distances are means over vectors and dimensions, as the log-likelihood is one over pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.vqvae.quantizer import Quantized, Quantizer, perplexity

BLOCK = 16_384  # vectors whose distances to all codes are held in memory at once


@torch.no_grad()
def nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code in squared distance, (N, d) and (K, d) -> int64 (N,); Eq. 1."""
    norms = codebook.square().sum(1)
    return torch.cat([torch.addmm(norms, part, codebook.T, alpha=-2).argmin(1) for part in rows.split(BLOCK)])


class Codebook(Quantizer):
    """The nearest of ``codebook_size`` vectors ``codebook``, (K, d), which a subclass has as parameter or buffer.

    Args:
        codebook_size: K, at least 2.
        codebook_dim: d.
        commitment: beta of Eq. 3, the weight of the commitment loss.
        cosine: Project encodings and codes to the unit sphere.

    Raises:
        ValueError: if an argument is out of range.
    """

    codebook: Tensor

    def __init__(
        self, codebook_size: int, codebook_dim: int, *, commitment: float = 0.25, cosine: bool = False
    ) -> None:
        super().__init__()
        if codebook_size < 2 or codebook_dim < 1:
            raise ValueError(
                f"a codebook needs at least 2 codes of at least 1 dimension, not {codebook_size} of {codebook_dim}"
            )
        if commitment < 0:
            raise ValueError(f"commitment must not be negative, not {commitment}")
        self.codebook_size = codebook_size
        self.codebook_dim = codebook_dim
        self.commitment = commitment
        self.cosine = cosine

    def in_code_space(self, z_e: Tensor) -> Tensor:
        return self.projected(z_e.movedim(1, -1))

    def quantize(self, z_e: Tensor) -> Quantized:
        """z_e (B, d, H, W) -> the nearest codes; in training the codebook may change afterwards."""
        rows = self.in_code_space(z_e)  # (B, H, W, d)
        if self.learns:
            self.start(rows.detach())
        codebook = self.projected(self.codebook)
        indices = nearest(rows.detach().flatten(0, -2), codebook.detach()).unflatten(0, rows.shape[:-1])
        chosen = F.embedding(indices, codebook)
        losses = self.losses(rows, chosen)
        z_q = self.passed(rows, chosen.detach()).movedim(-1, 1)
        if self.learns:
            self.update(rows.detach(), indices)
        return Quantized(z_q, indices, losses, perplexity(indices, self.codebook_size))

    def codes(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.projected(self.codebook)).movedim(-1, 1)

    def projected(self, vectors: Tensor) -> Tensor:
        """Vectors (..., d), on the unit sphere if codes are cosine codes."""
        return F.normalize(vectors, dim=-1) if self.cosine else vectors

    def losses(self, rows: Tensor, chosen: Tensor) -> dict[str, Tensor]:
        """beta |z_e - sg(e)|^2 for encodings and their codes (..., d); the third term of Eq. 3."""
        return {"commitment_loss": self.commitment * F.mse_loss(rows, chosen.detach())}

    def passed(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """The codes (..., d) with the gradient that encodings (..., d) get: here it passes straight through."""
        return rows + (chosen - rows).detach()

    def start(self, rows: Tensor) -> None:
        """Called with the encodings (B, H, W, d) of every training batch before they are quantised."""

    def update(self, rows: Tensor, indices: Tensor) -> None:
        """Called with the encodings (B, H, W, d) of every training batch and their indices (B, H, W)."""
