"""What a transformer over codes starts from: digits shared by codes, positions that are seen, neighbours."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from evaluation.speed import count_work
from models.vqvae.autoencoder import Autoencoder
from models.vqvae.code_layers import CodeEmbedding, CodeHead, Neighbours, digits_of
from models.vqvae.fsq import FSQ
from models.vqvae.masked_prior import MaskedPrior
from models.vqvae.prior import AutoregressivePrior
from tests.models.tiny import random_model, randomised, tiny_model

LEVELS = (4, 3, 2)
CODES = 24


def test_digits_are_those_of_the_quantiser() -> None:
    codes = FSQ(LEVELS).codes(torch.arange(CODES)[None, None])[0, :, 0].T  # (24, 3)
    parts = digits_of(CODES, LEVELS).split(LEVELS, dim=1)
    for column, part in zip(codes.T, parts, strict=True):
        assert torch.equal(part.sum(1), torch.ones(CODES))
        digit = part.argmax(1)
        one, other = digit[:, None] == digit, column[:, None] == column
        assert torch.equal(one, other)  # two codes share a digit where they share a coordinate
        assert len(digit.unique()) == part.shape[1]


def test_levels_must_make_the_codebook() -> None:
    with pytest.raises(ValueError, match=r"levels \(4, 3, 2\) make 24 codes, not 25"):
        digits_of(25, LEVELS)


def test_a_code_is_itself_and_its_digits() -> None:
    embedding = randomised(CodeEmbedding(CODES, 8, levels=LEVELS, special=1))
    own, shared = embedding.weight, embedding.shared
    expected = own[7] + shared[7 % 4] + shared[4 + 7 // 4 % 3] + shared[4 + 3 + 7 // 12 % 2]
    torch.testing.assert_close(embedding(torch.tensor([[7]]))[0, 0], expected)
    assert torch.equal(embedding(torch.tensor(CODES)), own[CODES])  # a special index has no digits


def test_a_logit_is_that_of_the_code_and_those_of_its_digits() -> None:
    head = randomised(CodeHead(CODES, 8, levels=LEVELS))
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    table = head.weight + digits_of(CODES, LEVELS) @ head.shared
    torch.testing.assert_close(head(x), F.linear(x, table, head.bias))


def test_learning_of_one_code_is_learning_of_those_that_share_its_digits() -> None:
    def gain(levels: tuple[int, ...], code: int) -> float:
        torch.manual_seed(0)
        head, x = CodeHead(CODES, 8, levels=levels), torch.ones(1, 8)
        before = head(x)
        F.cross_entropy(before, torch.tensor([0])).backward()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter -= 0.1 * parameter.grad
        return float((head(x) - before)[0, code].detach())

    assert gain(LEVELS, 4) > gain((), 4) + 1e-3  # code 4 has two of the three digits of code 0


def test_without_levels_nothing_is_shared() -> None:
    assert CodeEmbedding(CODES, 8).shared is None
    assert CodeHead(CODES, 8).shared is None
    assert CodeHead(CODES, 8)(torch.zeros(1, 8)).shape == (1, CODES)


@pytest.mark.parametrize("levels", [(), LEVELS])
def test_positions_are_not_drowned_by_the_codes_when_training_starts(levels: tuple[int, ...]) -> None:
    shape = {"codebook_size": CODES, "num_codes": 16, "num_classes": 3, "dim": 64, "depth": 1, "levels": levels}
    for prior in (AutoregressivePrior(**shape), MaskedPrior(**shape)):
        stream = prior.token(torch.arange(16)) + prior.label(torch.tensor(0))
        ratio = float((prior.transformer.positions.std() / stream.std()).detach())
        assert 0.4 < ratio < 1.5, type(prior).__name__


def test_neighbours_are_a_convolution_over_the_grid() -> None:
    layer = Neighbours((3, 5), 4)
    x = torch.randn(2, 15, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), x, rtol=0, atol=0)
    nn.init.normal_(layer.conv.weight, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(layer.norm.weight, generator=torch.Generator().manual_seed(2))
    normal = (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, correction=0) + 1e-5).sqrt() * layer.norm.weight
    image = (normal * torch.special.ndtr(normal)).reshape(2, 3, 5, 4).permute(0, 3, 1, 2)
    expected = F.conv2d(F.pad(image, (1, 1, 1, 1)), layer.conv.weight, layer.conv.bias)
    torch.testing.assert_close(layer(x), x + expected.permute(0, 2, 3, 1).reshape(2, 15, 4))


@pytest.mark.parametrize(("name", "expected"), [("vqvae", 17), ("maskgit", 4)])
def test_an_embedding_is_no_evaluation_of_a_network(name: str, expected: int) -> None:
    model = random_model(name)  # 4 x 4 codes; maskgit takes 3 steps
    _, evaluations = count_work(model, lambda n: lambda: model.sample(n, generator=torch.Generator().manual_seed(0)))
    assert evaluations == expected == model.sample(1, generator=torch.Generator().manual_seed(0)).nfe


def test_models_tell_their_priors_what_codes_are_made_of() -> None:
    for name in ("vqvae", "vqvae2", "maskgit"):
        model = tiny_model(name)
        assert model.prior.token.digits.shape[1] == sum(model.hparams.levels)
    assert [type(block.local) for block in tiny_model("maskgit").prior.transformer.blocks] == [Neighbours]
    plain = MaskedPrior(codebook_size=3, num_codes=4, num_classes=2, dim=32, depth=2)
    assert [type(block.local) for block in plain.transformer.blocks] == [nn.Identity, nn.Identity]
    assert Autoencoder((1, 8, 8), width=8, downsample=2, quantizer=FSQ(LEVELS)).digit_levels == LEVELS
