"""The only transformer: pre-norm blocks, causal with a key-value cache, or seeing the whole sequence.

Vaswani et al. 2017 (arXiv:1706.03762) in the GPT-2 layout: LayerNorm, fused qkv, GELU MLP of
four times the width, learned positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_DIM = 32


class KeyValueCache:
    """Keys and values of one block, room for a whole sequence and ``filled`` positions of it: (B, 2, heads, T, dim)."""

    def __init__(self, room: Tensor) -> None:
        self.room = room
        self.filled = 0

    def append(self, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Add one position, (B, 2, heads, dim), and return keys and values of all, (B, heads, t, dim) each."""
        self.room[:, :, :, self.filled] = keys_values
        self.filled += 1
        seen = self.room[:, :, :, : self.filled]
        return seen[:, 0], seen[:, 1]


class Block(nn.Module):
    """Attention, then MLP, each on a normalised input and added to the stream, behind the layer ``local``."""

    def __init__(self, dim: int, *, causal: bool = True, local: nn.Module) -> None:
        super().__init__()
        self.local = local
        self.heads = max(1, dim // HEAD_DIM)
        self.causal = causal
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.mlp[-1].weight)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = self.local(x)
        b, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, d // self.heads)
        if cache is None:
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:  # one new position attends to all before it and to itself
            k, v = cache.append(qkv[:, 0, 1:])
            y = F.scaled_dot_product_attention(qkv[:, 0, 0, :, None], k, v)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Stream of embeddings (B, T, dim) to what ``head`` makes of it; ``causal``: position t sees none after it.

    ``local`` makes one more layer in front of every block, from the stream to the stream; it sees all positions.
    """

    def __init__(
        self, *, dim: int, depth: int, length: int, head: nn.Module, causal: bool = True,
        local: Callable[[], nn.Module] = nn.Identity,
    ) -> None:
        super().__init__()
        if dim % HEAD_DIM:
            raise ValueError(f"the transformer's width must be divisible by {HEAD_DIM}, not {dim}")
        if causal and local is not nn.Identity:
            raise ValueError("a causal transformer cannot have layers that see all positions")
        self.causal = causal
        self.positions = nn.Parameter(0.02 * torch.randn(length, dim))
        self.blocks = nn.ModuleList(Block(dim, causal=causal, local=local()) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = head

    def new_cache(self, batch: int) -> list[KeyValueCache]:
        """An empty cache per block for ``batch`` sequences.

        Raises:
            ValueError: if later positions change what earlier ones keep.
        """
        if not self.causal:
            raise ValueError("only a causal transformer can keep keys and values")
        length, dim = self.positions.shape
        heads = max(1, dim // HEAD_DIM)
        shape = (batch, 2, heads, length, dim // heads)
        return [KeyValueCache(self.positions.new_empty(shape)) for _ in self.blocks]

    def forward(
        self, x: Tensor, cache: list[KeyValueCache] | None = None, position: int = 0, asked: Tensor | None = None
    ) -> Tensor:
        """Whole sequences without a cache; one position (B, 1, dim) at a time with one.

        The head sees all positions or, flattened to (n, dim), the n that are ``asked``, bool (B, T).
        """
        x = x + self.positions[position : position + x.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache[i])
        return self.head(self.norm(x if asked is None else x[asked]))
