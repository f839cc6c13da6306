"""A normalised distribution over the 256 levels of a pixel: the discretised logistic mixture.

Salimans et al. 2017, "PixelCNN++" (arXiv:1701.05517), Sec. 2.1. Each pixel and channel has its
own mixture, independent given the code. Deviation: colour channels are not conditioned on each
other. The probability of a bin is computed in log space without cancellation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.base import to_float

HALF_BIN = 1 / 255
MIN_LOG_SCALE = -7.0


def split_parameters(parameters: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, 3 K C, H, W) -> log weights, means and log scales, each (B, C, K, H, W)."""
    b, total, h, w = parameters.shape
    logits, means, log_scales = parameters.reshape(b, channels, 3, total // (3 * channels), h, w).unbind(2)
    return F.log_softmax(logits, dim=2), means, log_scales.clamp(min=MIN_LOG_SCALE)


def log_prob(images: Tensor, parameters: Tensor) -> Tensor:
    """log p(pixel) in nats of uint8 images (B, C, H, W); sums to one over the 256 levels.

    With a = (x + half bin - mean) / scale and b = (x - half bin - mean) / scale,
    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)). The outermost bins reach
    to infinity, as in PixelCNN++.
    """
    log_weights, means, log_scales = split_parameters(parameters, images.shape[1])
    x = to_float(images)[:, :, None]  # (B, C, 1, H, W)
    inverse_scale = torch.exp(-log_scales)
    below = F.logsigmoid((x + HALF_BIN - means) * inverse_scale)  # log sigmoid(a)
    above = F.logsigmoid((means - x + HALF_BIN) * inverse_scale)  # log sigmoid(-b)
    width = torch.log(-torch.expm1(-2 * HALF_BIN * inverse_scale))
    level = images[:, :, None]
    inside = torch.where(level == 0, below, torch.where(level == 255, above, below + above + width))
    return torch.logsumexp(log_weights + inside, dim=2)


def mean_image(parameters: Tensor, channels: int) -> Tensor:
    """Mean of every pixel in [-1, 1], (B, C, H, W)."""
    log_weights, means, _ = split_parameters(parameters, channels)
    return (log_weights.exp() * means.clamp(-1, 1)).sum(dim=2)


def mass_error(parameters: Tensor, channels: int) -> float:
    """Largest |sum over the 256 levels of p(pixel) - 1| of decoder outputs (B, 3 K C, H, W), in float64."""
    b, _, h, w = parameters.shape
    shape = (b, channels, h, w)
    mass = torch.zeros(shape, dtype=torch.float64, device=parameters.device)
    for level in range(256):
        images = torch.full(shape, level, dtype=torch.uint8, device=parameters.device)
        mass += log_prob(images, parameters.double()).exp()
    return float((mass - 1).abs().max())
