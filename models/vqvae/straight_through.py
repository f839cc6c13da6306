"""The original quantiser: the codebook is a parameter that gradient descent pulls towards its encodings.

van den Oord et al. 2017, "Neural Discrete Representation Learning" (arXiv:1711.00937), Eq. 3. Codes start at
random and nothing revives one that no encoding is near to: it is here as what the other quantisers improve on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.vqvae.codebook import Codebook


class StraightThrough(Codebook):
    """Codebook loss and commitment loss; codes start uniformly in [-1 / K, 1 / K]."""

    def __init__(self, codebook_size: int, codebook_dim: int, **options: float) -> None:
        super().__init__(codebook_size, codebook_dim, **options)
        self.codebook = nn.Parameter((2 * torch.rand(codebook_size, codebook_dim) - 1) / codebook_size)

    def losses(self, rows: Tensor, chosen: Tensor) -> dict[str, Tensor]:
        """|sg(z_e) - e|^2 + beta |z_e - sg(e)|^2; the second and third term of Eq. 3."""
        return {"codebook_loss": F.mse_loss(chosen, rows.detach()), **super().losses(rows, chosen)}
