"""The rotation trick: the encoder's gradient is turned by the rotation that takes the encoding to its code.

Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick" (arXiv:2410.06424), Sec. 4.2:
q = sg(|q| / |e| R) e, so that angles between gradient and code are kept, where straight-through gives all
encodings of a cell the same gradient. The codebook is that of moving averages.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from models.vqvae.ema import EMACodebook

SMALLEST = 1e-6  # of a norm that is divided by


def rotated(e: Tensor, q: Tensor) -> Tensor:
    """e (..., d), rotated and stretched to q (..., d), as a linear map of e that has no gradient of its own.

    R = I - 2 r r^T + 2 q^ e^^T with unit vectors e^, q^ and r = (e^ + q^) / |e^ + q^|; Sec. 4.2.
    """
    e_hat, q_hat = (F.normalize(v.detach(), dim=-1, eps=SMALLEST) for v in (e, q))
    r = F.normalize(e_hat + q_hat, dim=-1, eps=SMALLEST)
    scale = q.detach().norm(dim=-1, keepdim=True) / e.detach().norm(dim=-1, keepdim=True).clamp(min=SMALLEST)
    reflected = 2 * (e * r).sum(-1, keepdim=True) * r
    return scale * (e - reflected + 2 * (e * e_hat).sum(-1, keepdim=True) * q_hat)


class Rotation(EMACodebook):
    """A codebook of moving averages whose gradient is rotated."""

    def passed(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """The codes (..., d); the gradient at encodings (..., d) is that at the codes, turned back and stretched."""
        return rotated(rows, chosen)
