"""Counting floating-point operations: a multiply-add is two; matrix products and convolutions count.

``torch.utils.flop_counter`` sees every operation that runs, forward, backward and gradients of
gradients. Its table by module hangs on hooks that refuse gradients with respect to an input (R1
and R2 penalties need them), so that table is left out here.
"""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import FlopCounterMode


class _NoModules:
    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: Any) -> None:
        pass


class FlopCounter(FlopCounterMode):
    """Context manager; ``get_total_flops()`` afterwards gives the count."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker = _NoModules()
