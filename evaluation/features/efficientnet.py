"""EfficientNet-Lite0: inverted residuals without squeeze-and-excitation, ReLU6 instead of swish.

Tan & Le 2019 (arXiv:1905.11946), Table 1; the Lite variant is TensorFlow's (tpu/models/official/efficientnet/
lite). The weights are TensorFlow's, so padding is its "SAME" (more on the right and below), batch norm's eps
1e-3 and pixels go through (x - 127) / 128. Deviation: the whole image is resized to 224x224, not a central
87.5 % of it, since what a generator does near the border counts too.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.features.catalog import ExtractorError
from evaluation.features.network import PhotographNetwork, Seen

SIZE = 224
NUM_FEATURES = 1280
NUM_CLASSES = 1000
# expansion, channels, blocks, stride of the first, kernel size (Table 1)
STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)


class SameConv2d(nn.Conv2d):
    """Convolution whose output is ceil(input / stride) wide; an odd padding is one more on the right and below."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with TensorFlow's eps."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Expand with 1x1, filter each channel, project with 1x1; the input is added where the shape stays."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.expand = expansion > 1
        if self.expand:
            self.expand_conv, self.bn0 = SameConv2d(channels_in, wide, 1), norm(wide)
        self.depthwise_conv, self.bn1 = SameConv2d(wide, wide, kernel, stride, groups=wide), norm(wide)
        self.project_conv, self.bn2 = SameConv2d(wide, channels_out, 1), norm(channels_out)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        h = F.relu6(self.bn0(self.expand_conv(x))) if self.expand else x
        h = F.relu6(self.bn1(self.depthwise_conv(h)))
        h = self.bn2(self.project_conv(h))
        return x + h if self.residual else h


class EfficientNetLite0(PhotographNetwork):
    """The network; parameters are named as in the published file but for leading underscores."""

    num_features = NUM_FEATURES
    resize = f"{SIZE}x{SIZE} bicubic, antialiased"

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv2d(3, 32, 3, 2), norm(32)
        self.blocks = nn.ModuleList()
        channels = 32
        for expansion, width, repeats, stride, kernel in STAGES:
            for place in range(repeats):
                self.blocks.append(Block(channels, width, expansion, 1 if place else stride, kernel))
                channels = width
        self.conv_head, self.bn1 = SameConv2d(channels, NUM_FEATURES, 1), norm(NUM_FEATURES)
        self.fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, x: Tensor) -> Seen:
        """Features and logits of float32 images (B, 3, 224, 224), pixels as (0..255 - 127) / 128."""
        h = F.relu6(self.bn0(self.conv_stem(x)))  # (B, 32, 112, 112)
        for block in self.blocks:
            h = block(h)  # (B, 320, 7, 7) at last
        features = F.relu6(self.bn1(self.conv_head(h))).mean((2, 3))  # (B, 1280)
        return Seen(features, self.fc(features))

    def look_rgb(self, images: Tensor) -> Seen:
        """Features and logits of uint8 images (B, 3, H, W)."""
        x = F.interpolate(images.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True)
        return self((x.clamp(0, 255) - 127) / 128)


def load_network(weights: Path) -> EfficientNetLite0:
    """The network with the weights of a file; ``ExtractorError`` if it holds others."""
    network = EfficientNetLite0()
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict({re.sub(r"(^|\.)_", r"\1", name): value for name, value in state.items()})
    except (OSError, RuntimeError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ExtractorError(f"{weights} does not hold weights of EfficientNet-Lite0: {reason}") from None
    return network
