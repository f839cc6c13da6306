"""The only U-Net (Ronneberger et al. 2015) with residual blocks and self-attention at the bottom.

As in Ho et al. 2020 and Dhariwal & Nichol 2021 (arXiv:2105.05233): GroupNorm, SiLU, scale and
shift by a global vector, zero-initialised last convolutions. Deviations: pixels are unshuffled
into channels first (a 28x28 image is computed at 14x14 and 7x7), which makes a step several
times cheaper on a CPU; attention only at the lowest resolution, to the image itself and, optionally,
to a sequence of tokens (words).
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


def num_heads(channels: int) -> int:
    """Attention heads of about ``HEAD_DIM`` channels each."""
    return max(h for h in range(1, max(1, channels // HEAD_DIM) + 1) if channels % h == 0)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the pixels of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = num_heads(channels)
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, H W, C / heads)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))


class CrossAttention(nn.Module):
    """The pixels of a feature map ask a sequence of tokens; padding is left out by a mask."""

    def __init__(self, channels: int, token_dim: int) -> None:
        super().__init__()
        self.heads = num_heads(channels)
        self.norm, self.token_norm = group_norm(channels), nn.LayerNorm(token_dim)
        self.q = nn.Conv2d(channels, channels, 1)
        self.kv = nn.Linear(token_dim, 2 * channels)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        b, c, h, w = x.shape
        q = self.q(self.norm(x)).reshape(b, self.heads, c // self.heads, h * w).transpose(-1, -2)
        kv = self.kv(self.token_norm(tokens)).reshape(b, -1, 2, self.heads, c // self.heads)
        k, v = kv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, C / heads)
        seen = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, L)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))


class Attention(nn.Module):
    """Self-attention and, if there are tokens, cross-attention to them."""

    def __init__(self, channels: int, token_dim: int | None) -> None:
        super().__init__()
        self.to_self = SelfAttention(channels)
        self.to_tokens = None if token_dim is None else CrossAttention(channels, token_dim)

    def forward(self, x: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.to_self(x)
        return x if self.to_tokens is None or tokens is None else self.to_tokens(x, tokens, mask)


class Level(nn.Module):
    """The blocks of one resolution on the way down or up, the last ones with attention."""

    def __init__(
        self, channels: list[int], out_channels: int, vector_dim: int, attention: bool, token_dim: int | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(c, out_channels, vector_dim) for c in channels)
        self.attention = nn.ModuleList(Attention(out_channels, token_dim) for _ in channels if attention)

    def steps(self) -> list[tuple[nn.Module, nn.Module | None]]:
        """Each block with the attention that follows it."""
        return list(zip(self.blocks, self.attention or [None] * len(self.blocks), strict=True))


class UNet(nn.Module):
    """Image and global vector to image.

    Args:
        in_channels, out_channels: Channels of the image going in and coming out.
        width: Channels at the highest resolution; each lower one has twice as many.
        blocks: Residual blocks per resolution.
        levels: Number of resolutions.
        vector_dim: Width of the global vector.
        token_dim: Width of the tokens that pixels may ask at the lowest resolution; None for no tokens.
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
        token_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.multiple = patch_size * 2 ** (levels - 1)
        self.token_dim = token_dim
        widths = [width * 2**i for i in range(levels)]
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(patch_size), nn.Conv2d(in_channels * patch_size**2, width, 3, padding=1)
        )
        self.down, self.shrink, skips, c = nn.ModuleList(), nn.ModuleList(), [width], width
        for i, w in enumerate(widths):
            last = i == levels - 1
            self.down.append(Level([c] + [w] * (blocks - 1), w, vector_dim, last, token_dim))
            self.shrink.append(nn.Identity() if last else nn.Conv2d(w, w, 3, stride=2, padding=1))
            skips += [w] * (blocks if last else blocks + 1)
            c = w
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, w in reversed(list(enumerate(widths))):
            ins = [(c if j == 0 else w) + skips.pop() for j in range(blocks + 1)]
            self.up.append(Level(ins, w, vector_dim, i == levels - 1, token_dim))
            self.grow.append(nn.Identity() if i == 0 else nn.Upsample(scale_factor=2, mode="nearest"))
            c = w
        self.head = nn.Sequential(
            group_norm(width),
            nn.SiLU(),
            zero_init(nn.Conv2d(width, out_channels * patch_size**2, 3, padding=1)),
            nn.PixelShuffle(patch_size),
        )

    def forward(
        self, x: Tensor, vector: Tensor, tokens: Tensor | None = None, token_mask: Tensor | None = None
    ) -> Tensor:
        """Image to image, told a vector and, if the network takes them, tokens.

        Args:
            x: float32 (B, C_in, H, W).
            vector: (B, vector_dim).
            tokens: (B, L, token_dim); without them a network that takes tokens does as if it did not.
            token_mask: bool (B, L), True where a token counts; at least one in every row.

        Returns:
            float32 (B, C_out, H, W).

        Raises:
            ValueError: if height or width do not fit, or tokens are given to a network that takes none.
        """
        if x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise ValueError(f"height and width must be divisible by {self.multiple}, not {tuple(x.shape[-2:])}")
        if tokens is not None and self.token_dim is None:
            raise ValueError("this network was built without token_dim and takes no tokens")
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for level, shrink in zip(self.down, self.shrink, strict=True):
            for block, attention in level.steps():
                h = block(h, vector)
                h = h if attention is None else attention(h, tokens, token_mask)
                skips.append(h)
            if not isinstance(shrink, nn.Identity):
                h = shrink(h)
                skips.append(h)
        for level, grow in zip(self.up, self.grow, strict=True):
            for block, attention in level.steps():
                h = block(torch.cat([h, skips.pop()], dim=1), vector)
                h = h if attention is None else attention(h, tokens, token_mask)
            h = grow(h)
        return self.head(h).contiguous()
