"""The only U-Net (Ronneberger et al. 2015) with residual blocks and self-attention at the bottom.

As in Ho et al. 2020 and Dhariwal & Nichol 2021 (arXiv:2105.05233): GroupNorm, SiLU, scale and
shift by a global vector, zero-initialised last convolutions. Deviations: pixels are unshuffled
into channels first (a 28x28 image is computed at 14x14 and 7x7), which makes a step several
times cheaper on a CPU; attention only at the lowest resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_DIM = 32


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """Set a layer's weights and bias to zero, so that its branch starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with groups of at least 8 channels, at most 16 groups."""
    groups = max(g for g in range(1, 17) if channels % g == 0 and (g == 1 or channels // g >= 8))
    return nn.GroupNorm(groups, channels)


class ResBlock(nn.Module):
    """Two 3x3 convolutions; a global vector, if there is one, scales and shifts between them."""

    def __init__(self, in_channels: int, out_channels: int, vector_dim: int | None = None) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.affine = None if vector_dim is None else nn.Linear(vector_dim, 2 * out_channels)
        self.norm2 = group_norm(out_channels)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))  # (B, C_out, H, W)
        if self.affine is not None:
            scale, shift = self.affine(vector)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        return self.skip(x) + self.conv2(F.silu(h))


class SelfAttention(nn.Module):
    """Multi-head self-attention over the pixels of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(h for h in range(1, max(1, channels // HEAD_DIM) + 1) if channels % h == 0)
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, H W, C / heads)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))


class Level(nn.Module):
    """The blocks of one resolution on the way down or up, the last ones with attention."""

    def __init__(self, channels: list[int], out_channels: int, vector_dim: int, attention: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(c, out_channels, vector_dim) for c in channels)
        self.attention = nn.ModuleList(
            SelfAttention(out_channels) if attention else nn.Identity() for _ in channels
        )


class UNet(nn.Module):
    """Image and global vector to image.

    Args:
        in_channels, out_channels: Channels of the image going in and coming out.
        width: Channels at the highest resolution; each lower one has twice as many.
        blocks: Residual blocks per resolution.
        levels: Number of resolutions.
        vector_dim: Width of the global vector.
        patch_size: Pixel-unshuffle factor; height and width must be divisible by
            ``patch_size * 2 ** (levels - 1)``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        blocks: int = 2,
        levels: int = 2,
        vector_dim: int = 128,
        patch_size: int = 2,
    ) -> None:
        super().__init__()
        self.multiple = patch_size * 2 ** (levels - 1)
        widths = [width * 2**i for i in range(levels)]
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(patch_size), nn.Conv2d(in_channels * patch_size**2, width, 3, padding=1)
        )
        self.down, self.shrink, skips, c = nn.ModuleList(), nn.ModuleList(), [width], width
        for i, w in enumerate(widths):
            last = i == levels - 1
            self.down.append(Level([c] + [w] * (blocks - 1), w, vector_dim, attention=last))
            self.shrink.append(nn.Identity() if last else nn.Conv2d(w, w, 3, stride=2, padding=1))
            skips += [w] * (blocks if last else blocks + 1)
            c = w
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, w in reversed(list(enumerate(widths))):
            ins = [(c if j == 0 else w) + skips.pop() for j in range(blocks + 1)]
            self.up.append(Level(ins, w, vector_dim, attention=i == levels - 1))
            self.grow.append(nn.Identity() if i == 0 else nn.Upsample(scale_factor=2, mode="nearest"))
            c = w
        self.head = nn.Sequential(
            group_norm(width),
            nn.SiLU(),
            zero_init(nn.Conv2d(width, out_channels * patch_size**2, 3, padding=1)),
            nn.PixelShuffle(patch_size),
        )

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """x float32 (B, C_in, H, W), vector (B, vector_dim) -> (B, C_out, H, W)."""
        if x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise ValueError(f"height and width must be divisible by {self.multiple}, not {tuple(x.shape[-2:])}")
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for level, shrink in zip(self.down, self.shrink, strict=True):
            for block, attention in zip(level.blocks, level.attention, strict=True):
                h = attention(block(h, vector))
                skips.append(h)
            if not isinstance(shrink, nn.Identity):
                h = shrink(h)
                skips.append(h)
        for level, grow in zip(self.up, self.grow, strict=True):
            for block, attention in zip(level.blocks, level.attention, strict=True):
                h = attention(block(torch.cat([h, skips.pop()], dim=1), vector))
            h = grow(h)
        return self.head(h).contiguous()
