"""Shared networks: the moving average against its recursion, the U-Net's shapes and start, schedules."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.base import drop_labels, image_generators, normal_noise, uniform_noise, warmup_cosine
from models.nets.ema import EMA, ema_decay
from models.nets.embeddings import sinusoidal_embedding
from models.nets.unet import CrossAttention, ResBlock, SelfAttention, UNet, group_norm
from tests.models.tiny import randomised


@given(seen=st.floats(1, 1e7), batch=st.integers(1, 512), half_life=st.floats(1, 1e6))
def test_decay_halves_the_past_once_per_half_life(seen: float, batch: int, half_life: float) -> None:
    decay = ema_decay(seen, batch, half_life)
    effective = min(half_life, 0.05 * seen)
    assert 0 <= decay < 1
    assert decay == pytest.approx(math.exp(-math.log(2) * batch / effective), abs=1e-12)


def test_decay_ramps_up_to_the_half_life() -> None:
    assert ema_decay(0, 32, 1000) == 0
    ramp = [ema_decay(32 * step, 32, 1000) for step in range(1, 1000)]
    assert all(a <= b for a, b in itertools.pairwise(ramp))
    assert ramp[624] == ramp[-1] == pytest.approx(0.5 ** (32 / 1000))


def test_the_average_is_the_recursion_written_out() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    ema = EMA(network, half_life=100, batch_size=10)
    expected = {k: v.clone() for k, v in network.state_dict().items()}
    for step in range(1, 300):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn_like(p))
            network[1].running_mean += 1
        ema.update(network)
        decay = 0.5 ** (10 / min(100, 0.05 * step * 10))
        for name, p in network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    for name, p in ema.average.named_parameters():
        torch.testing.assert_close(p, expected[name])
        assert not p.requires_grad
    assert torch.equal(ema.average[1].running_mean, network[1].running_mean)  # buffers are copied
    ema.copy_to(network)
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name])
        assert p.requires_grad


def test_the_average_resumes_from_its_state() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    straight, first = (EMA(network, half_life=1000, batch_size=8) for _ in range(2))
    steps = [randomised(nn.Linear(3, 2), 1.0, seed) for seed in range(20)]
    for step in steps:
        straight.update(step)
    for step in steps[:9]:
        first.update(step)
    second = EMA(nn.Linear(3, 2), half_life=1000, batch_size=8)
    second.load_state_dict(first.state_dict())
    for step in steps[9:]:
        second.update(step)
    assert int(second.updates) == 20
    assert torch.equal(second.average.weight, straight.average.weight)


def unet(**changes: int) -> UNet:
    torch.manual_seed(0)
    arguments = {"width": 8, "blocks": 1, "vector_dim": 16, "patch_size": 2} | changes
    return UNet(1, 2, **arguments)


@pytest.mark.parametrize(("levels", "patch_size", "size"), [(1, 1, (3, 5)), (2, 2, (8, 12)), (3, 2, (16, 8))])
def test_unet_shapes_and_zero_start(levels: int, patch_size: int, size: tuple[int, int]) -> None:
    network = unet(levels=levels, patch_size=patch_size, blocks=2)
    x, vector = torch.randn(2, 1, *size), torch.randn(2, 16)
    assert torch.equal(network(x, vector), torch.zeros(2, 2, *size))
    out = randomised(network)(x, vector)
    assert out.shape == (2, 2, *size) and out.is_contiguous() and float(out.detach().std()) > 1e-3


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (7, 7)])
def test_unet_refuses_sizes_that_do_not_halve(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"divisible by 4, not \({size[0]}, {size[1]}\)"):
        unet()(torch.randn(1, 1, *size), torch.randn(1, 16))


def test_unet_uses_its_vector_and_every_parameter() -> None:
    network = randomised(unet(blocks=2))
    x, vector = torch.randn(2, 1, 8, 8), torch.randn(2, 16)
    assert (network(x, vector) - network(x, vector + 1)).abs().max() > 1e-3
    network(x, vector).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_unet_gives_the_same_in_either_memory_format() -> None:
    x, vector = torch.randn(2, 1, 8, 8), torch.randn(2, 16)
    plain = randomised(unet())(x, vector)
    last = randomised(unet()).to(memory_format=torch.channels_last)(x, vector)
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-5)


def test_unet_sees_the_whole_image_through_attention() -> None:
    network = randomised(unet())
    x = torch.randn(1, 1, 32, 32)
    other = x.clone()
    other[..., 0, 0] += 1
    difference = (network(x, torch.zeros(1, 16)) - network(other, torch.zeros(1, 16))).abs()
    assert float(difference[..., -1, -1].detach().max()) > 0


def test_attention_by_hand() -> None:
    torch.manual_seed(0)
    block = randomised(SelfAttention(64)).requires_grad_(False)
    x = torch.randn(1, 64, 2, 3)
    q, k, v = block.qkv(block.norm(x)).flatten(2)[0].reshape(3, 2, 32, 6)
    weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(32), dim=-1)  # (heads, 6, 6)
    mixed = (v @ weights.transpose(1, 2)).reshape(1, 64, 2, 3)
    torch.testing.assert_close(block(x), x + block.out(mixed), rtol=1e-4, atol=1e-5)


def test_cross_attention_by_hand() -> None:
    """One head: every pixel takes the mean of the tokens' values, weighted by exp(q . k / sqrt(C))."""
    torch.manual_seed(0)
    layer = randomised(CrossAttention(8, 6))
    x, tokens = torch.randn(2, 8, 3, 2), torch.randn(2, 4, 6)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    found = layer(x, tokens, mask) - x
    q, (k, v) = layer.q(layer.norm(x)), layer.kv(layer.token_norm(tokens)).chunk(2, dim=-1)
    for image, length in ((0, 4), (1, 2)):
        weights = torch.softmax(torch.einsum("chw,lc->hwl", q[image], k[image, :length]) / 8**0.5, dim=-1)
        mixed = torch.einsum("hwl,lc->chw", weights, v[image, :length])
        torch.testing.assert_close(found[image], layer.out(mixed[None])[0], rtol=1e-4, atol=1e-5)


def test_unet_reads_tokens() -> None:
    torch.manual_seed(0)
    net = UNet(1, 1, width=8, blocks=1, vector_dim=16, token_dim=6)
    x, vector, tokens = torch.randn(2, 1, 8, 8), torch.randn(2, 16), torch.randn(2, 3, 6)
    assert torch.equal(net(x, vector), net(x, vector, tokens))  # its branch starts as the identity
    randomised(net)
    seen = net(x, vector, tokens)
    assert (seen - net(x, vector, tokens.flip(0))).abs().max() > 1e-3
    longer, mask = torch.cat([tokens, torch.randn(2, 2, 6)], dim=1), torch.tensor([[True] * 3 + [False] * 2] * 2)
    torch.testing.assert_close(net(x, vector, longer, mask), seen)
    seen.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_unet_without_tokens_refuses_them() -> None:
    net = UNet(1, 1, width=8, blocks=1, vector_dim=16)
    with pytest.raises(ValueError, match="built without token_dim"):
        net(torch.randn(1, 1, 8, 8), torch.randn(1, 16), torch.randn(1, 3, 6))


def test_residual_blocks_start_as_their_skip() -> None:
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ResBlock(8, 8)(x), x)
    wider = ResBlock(8, 16, vector_dim=4)
    assert torch.equal(wider(x, torch.randn(2, 4)), wider.skip(x))


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (16, 2), (48, 6), (96, 12), (128, 16), (256, 16), (7, 1)])
def test_groups_have_at_least_eight_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_sinusoids() -> None:
    x = torch.tensor([0.0, 1.0, -2.5])
    found = sinusoidal_embedding(x, 6)
    for i, value in enumerate(x.tolist()):
        angles = [value * 10_000 ** (-k / 3) for k in range(3)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert found[i].tolist() == pytest.approx(expected, abs=1e-6)


def test_learning_rate_schedule() -> None:
    assert [warmup_cosine(p) for p in (0.0, 0.01, 0.02, 0.51, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_noise_belongs_to_the_image_not_to_the_batch() -> None:
    whole = image_generators(6, torch.Generator().manual_seed(0))
    source = torch.Generator().manual_seed(0)
    parts = image_generators(2, source) + image_generators(4, source)
    assert torch.equal(normal_noise((2, 3), whole), normal_noise((2, 3), parts))
    uniform = uniform_noise((1000,), whole)
    assert uniform.dtype == torch.float64 and uniform.min() >= 0 and uniform.max() < 1
    assert torch.corrcoef(uniform).fill_diagonal_(0).abs().max() < 0.15


def test_labels_are_dropped_at_the_rate() -> None:
    torch.manual_seed(0)
    labels = torch.arange(10_000) % 10
    dropped = drop_labels(labels, 10, 0.1)
    share = float((dropped == 10).float().mean())
    assert share == pytest.approx(0.1, abs=0.012)
    assert torch.equal(dropped[dropped != 10], labels[dropped != 10])
    assert torch.equal(drop_labels(labels, 10, 0.0), labels)
