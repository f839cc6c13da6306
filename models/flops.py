"""Counting floating-point operations: a multiply-add is two; matrix products and convolutions count.

``torch.utils.flop_counter`` sees every operation that runs, forward, backward and gradients of
gradients. Its table by module hangs on hooks that refuse gradients with respect to an input (R1
and R2 penalties need them), so that table is left out here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Shape = tuple[int, ...]


def _attention(query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _convolution_backward(
    gradient: Shape, images: Shape, weight: Shape, bias_sizes: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, output_mask: list[bool], *args: Any, **kwargs: Any,
) -> int:
    """As many as the forward pass for the gradient of the images, and again for that of the weights.

    torch 2.14 counts the weights of grouped convolutions as if they were dense.
    """
    positions = math.prod((images if transposed else gradient)[2:])
    return 2 * sum(output_mask[:2]) * images[0] * positions * math.prod(weight)


OURS = {
    torch.ops.aten.convolution_backward: _convolution_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class _NoModules:
    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: Any) -> None:
        pass


class FlopCounter(FlopCounterMode):
    """Context manager; ``get_total_flops()`` afterwards gives the count."""

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=OURS)
        self.mod_tracker = _NoModules()
