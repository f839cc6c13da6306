"""Generator and discriminator of DCGAN, sized for small images.

Radford et al. 2016 (arXiv:1511.06434), Sec. 3: strided convolutions instead of pooling, batch normalisation but at
the image side, ReLU and tanh in the generator, leaky ReLU in the discriminator, weights from N(0, 0.02). The class
joins as in Mirza and Osindero 2014 (arXiv:1411.1784): one-hot beside the latent, and as planes beside the image.
Deviation: as many levels as the image can be halved to 4 or an odd size, two at least.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.gan.networks import SLOPE, Pyramid
from models.nets.batch_norm import SharedBatchNorm2d

INIT_STD = 0.02
FINEST = 2  # pixels of the image along each side of a cell of the finest grid that has ``width`` channels


def initialise(network: nn.Module) -> None:
    """Weights from N(0, 0.02), of normalisation from N(1, 0.02), biases zero; Radford et al., Sec. 4."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, INIT_STD)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ConvGenerator(nn.Module):
    """Latent (B, latent_dim) and label (B,) to an image (B, C, H, W) in [-1, 1].

    In evaluation mode it normalises with running statistics, so that an image depends on its own latent only.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, latent_dim: int, width: int) -> None:
        super().__init__()
        pyramid = Pyramid.of(image_shape, width, FINEST)
        self.latent_dim, self.num_classes, self.start = latent_dim, num_classes, pyramid.deepest
        self.basis = nn.Linear(latent_dim + num_classes, math.prod(self.start), bias=False)
        layers: list[nn.Module] = [SharedBatchNorm2d(self.start[0]), nn.ReLU()]
        for deep, fine in zip(pyramid.channels[:0:-1], pyramid.channels[-2::-1], strict=True):
            layers += [nn.ConvTranspose2d(deep, fine, 4, stride=2, padding=1, bias=False)]
            layers += [SharedBatchNorm2d(fine), nn.ReLU()]
        last = nn.ConvTranspose2d(width, image_shape[0], 4, stride=2, padding=1)
        self.body = nn.Sequential(*layers, last, nn.Tanh())
        initialise(self)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        given = torch.cat([z, F.one_hot(labels, self.num_classes).to(z.dtype)], dim=1)
        h = self.basis(given).reshape(-1, *self.start)
        return self.body(h.contiguous(memory_format=torch.channels_last)).contiguous()


class ConvDiscriminator(nn.Module):
    """Image (B, C, H, W) and label (B,) to a logit (B,); ``normalise`` is for BatchNorm, which a critic has not."""

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, *, width: int, normalise: bool
    ) -> None:
        super().__init__()
        pyramid = Pyramid.of(image_shape, width, FINEST)
        self.num_classes = num_classes
        first = nn.Conv2d(image_shape[0] + num_classes, width, 4, stride=2, padding=1)
        layers: list[nn.Module] = [first, nn.LeakyReLU(SLOPE)]
        for fine, deep in zip(pyramid.channels[:-1], pyramid.channels[1:], strict=True):
            layers += [nn.Conv2d(fine, deep, 4, stride=2, padding=1, bias=not normalise)]
            layers += [SharedBatchNorm2d(deep)] if normalise else []
            layers += [nn.LeakyReLU(SLOPE)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(math.prod(pyramid.deepest), 1))
        initialise(self)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        planes = F.one_hot(labels, self.num_classes).to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        return self.body(torch.cat([x, planes], dim=1).contiguous(memory_format=torch.channels_last)).flatten()
