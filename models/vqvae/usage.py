"""How many codes are in use while a quantiser trains: counts over a window of batches.

One batch has about as many positions as there are codes and says little about which are dead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WINDOW = 50  # batches


class Usage(nn.Module):
    """Counts of every code in the last ``WINDOW`` batches of all processes, level by level.

    Args:
        codebook_size: K of every level.
        levels: Name and number of positions of every level, in the order of the indices.
    """

    counts: Tensor  # int32 (WINDOW, levels, K), a ring
    batches: Tensor

    def __init__(self, codebook_size: int, levels: dict[str, int]) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.levels = levels
        self.register_buffer("counts", torch.zeros(WINDOW, len(levels), codebook_size, dtype=torch.int32))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def add(self, indices: Tensor) -> None:
        """Count the indices int64 (B, T) of one batch."""
        parts = indices.split(list(self.levels.values()), dim=1)
        row = torch.stack([torch.bincount(part.flatten(), minlength=self.codebook_size) for part in parts])
        self.counts[int(self.batches) % WINDOW] = row.to(self.counts)
        self.batches += 1

    def statistics(self) -> dict[str, float]:
        """Codes used, dead codes (never used) and perplexity within the window; names end in the level's."""
        found = {}
        for name, counts in zip(self.levels, self.counts.sum(0), strict=True):
            shares = counts.double() / counts.sum().clamp(min=1)
            used = int((counts > 0).sum())
            found[f"codes_used{name}"] = float(used)
            found[f"dead_codes{name}"] = float(self.codebook_size - used)
            found[f"perplexity{name}"] = float(torch.special.entr(shares).sum().exp())
        return found
