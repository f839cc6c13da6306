"""Damage for tests: seeded bit flips and truncations, and ZIP files that say what is not so."""

from __future__ import annotations

import random
from collections.abc import Iterator


def damaged(whole: bytes, n: int = 100, seed: int = 0) -> Iterator[bytes]:
    """``n`` versions of a file, each with one bit flipped or its end cut off."""
    rng = random.Random(seed)
    for i in range(n):
        place = rng.randrange(len(whole))
        if i % 4 == 3:
            yield whole[:place]
        else:
            changed = bytearray(whole)
            changed[place] ^= 1 << rng.randrange(8)
            yield bytes(changed)


def one_sentence(message: str, name: str) -> bool:
    """Whether a message is one line that names the file."""
    return name in message and "\n" not in message and "Traceback" not in message and len(message) < 600
