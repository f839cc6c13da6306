"""The only transformer: pre-norm decoder blocks with causal attention and a key-value cache.

Vaswani et al. 2017 (arXiv:1706.03762) in the GPT-2 layout: LayerNorm, fused qkv, GELU MLP of
four times the width, learned positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_DIM = 32


class KeyValueCache:
    """Keys and values of one block for the positions already seen, each (B, heads, length, dim)."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions and return all."""
        self.keys = keys if self.keys is None else torch.cat([self.keys, keys], dim=2)
        self.values = values if self.values is None else torch.cat([self.values, values], dim=2)
        return self.keys, self.values


class Block(nn.Module):
    """Attention, then MLP, each on a normalised input and added to the stream."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = max(1, dim // HEAD_DIM)
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.mlp[-1].weight)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if cache is not None:  # one new position attends to all before it
            k, v = cache.append(k, v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Stream of embeddings (B, T, dim) to outputs (B, T, out_dim), causally."""

    def __init__(self, *, dim: int, depth: int, length: int, out_dim: int) -> None:
        super().__init__()
        if dim % HEAD_DIM:
            raise ValueError(f"the transformer's width must be divisible by {HEAD_DIM}, not {dim}")
        self.positions = nn.Parameter(0.02 * torch.randn(length, dim))
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, out_dim)

    def new_cache(self) -> list[KeyValueCache]:
        """An empty cache per block."""
        return [KeyValueCache() for _ in self.blocks]

    def forward(self, x: Tensor, cache: list[KeyValueCache] | None = None, position: int = 0) -> Tensor:
        """Whole sequences without a cache; one position (B, 1, dim) at a time with one."""
        x = x + self.positions[position : position + x.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache[i])
        return self.head(self.norm(x))
