"""Counted FLOPs against closed forms: a multiply-add is two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.flops import FlopCounter
from models.gan.losses import gradient_penalty
from models.gan.networks import Discriminator

B, C, D, SIZE = 3, 4, 6, 8
CONV = 2 * B * SIZE**2 * C * D * 9  # one 3x3 convolution, C to D channels


def count(call: Callable[[], object]) -> int:
    """FLOPs of a call."""
    with FlopCounter() as counter:
        call()
    return counter.get_total_flops()


def image(channels: int = C, gradient: bool = False) -> torch.Tensor:
    return torch.randn(B, channels, SIZE, SIZE, requires_grad=gradient)


@pytest.mark.parametrize(("gradient", "factor"), [(False, 2), (True, 3)])
def test_linear_and_convolution(gradient: bool, factor: int) -> None:
    # Backward: one product for the weight and, if the input needs a gradient, one more of the same size.
    linear, conv = nn.Linear(C, D), nn.Conv2d(C, D, 3, padding=1)
    x = torch.randn(B, C, requires_grad=gradient)
    assert count(lambda: linear(x)) == 2 * B * C * D
    assert count(lambda: linear(x).sum().backward()) == factor * 2 * B * C * D
    y = image(gradient=gradient)
    assert count(lambda: conv(y)) == CONV
    assert count(lambda: conv(y).sum().backward()) == factor * CONV


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 1), (8, 1), (1, 2), (4, 2)])
@pytest.mark.parametrize(("gradient", "factor"), [(False, 2), (True, 3)])
def test_convolutions_with_groups_and_strides(
    kind: type[nn.Module], groups: int, stride: int, gradient: bool, factor: int
) -> None:
    conv = kind(8, 16, 4, padding=1, stride=stride, groups=groups)
    x = image(8, gradient=gradient)
    # Each kernel is applied once at every output, or for every input if transposed.
    positions = conv(x)[0, 0].numel() if kind is nn.Conv2d else SIZE**2
    once = 2 * B * positions * 4**2 * 8 * 16 // groups
    assert count(lambda: conv(x)) == once
    assert count(lambda: conv(x).sum().backward()) == factor * once


def test_inference_mode_is_counted() -> None:
    conv, x = nn.Conv2d(C, D, 3, padding=1), image()
    with torch.inference_mode():
        assert count(lambda: conv(x)) == CONV


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal: bool) -> None:
    b, heads, t, d = 2, 3, 5, 8
    q, k, v = (torch.randn(b, heads, t, d, requires_grad=True) for _ in range(3))
    product = 2 * b * heads * t * t * d
    with torch.inference_mode():
        assert count(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)) == 2 * product
    # Fused attention keeps no scores: backward recomputes them and makes four gradients.
    assert count(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal).sum().backward()) == 7 * product


def test_gradient_of_a_gradient() -> None:
    """Two convolutions of equal cost 1 with a nonlinearity between, and the penalty |d out / d x|^2.

    Forward: 2. The gradient with respect to the input: 2. Backward of the penalty: each of the two
    input-gradient convolutions hands a gradient to what came in and one to its weight, 4 (torch makes
    that of the constant at the very end, too); the slope of the nonlinearity depends on the first
    convolution's output, whose backward makes the gradients of its weight and of the image, 2.
    """
    first, last = nn.Conv2d(C, C, 3, padding=1, bias=False), nn.Conv2d(C, C, 3, padding=1, bias=False)
    unit = 2 * B * SIZE**2 * C * C * 9
    x = image(gradient=True)
    with FlopCounter() as counter:
        logits = last(torch.tanh(first(x))).sum((1, 2, 3))
        forward = counter.get_total_flops()
        penalty = gradient_penalty(logits, x)
        inner = counter.get_total_flops() - forward
        penalty.backward()
        outer = counter.get_total_flops() - forward - inner
    assert (forward, inner, outer) == (2 * unit, 2 * unit, 6 * unit)


def test_a_second_count_starts_at_zero_and_more_images_cost_more() -> None:
    network = Discriminator((C, SIZE, SIZE), 2, width=8, blocks=1, patch_size=2)
    labels = torch.zeros(B, dtype=torch.int64)
    one, again = (count(lambda: network(image(), labels)) for _ in range(2))
    assert one == again > 0
    assert count(lambda: network(torch.cat([image(), image()]), torch.cat([labels, labels]))) == 2 * one
