"""Quantisers against vector-quantize-pytorch: same inputs and codebook, same codes, losses, gradients and updates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vector_quantize_pytorch as vqp
from torch import Tensor
from torch.nn import functional as F

from models.vqvae.codebook import Codebook
from models.vqvae.ema import EMACodebook
from models.vqvae.fsq import FSQ
from models.vqvae.rotation import Rotation
from models.vqvae.straight_through import StraightThrough

K, D = 16, 4


def encodings(seed: int, d: int = D) -> Tensor:
    return torch.randn(4, d, 6, 6, generator=torch.Generator().manual_seed(seed))


def reference(codebook: Tensor, **options: Any) -> vqp.VectorQuantize:
    """Theirs with our codebook."""
    theirs = vqp.VectorQuantize(
        dim=D, codebook_size=K, accept_image_fmap=True, decay=0.99, sync_codebook=False, **options
    )
    with torch.no_grad():
        theirs._codebook.embed.copy_(codebook[None])
        theirs._codebook.embed_avg.copy_(codebook[None])
    return theirs.train()


def pair(cosine: bool, kind: type[EMACodebook], **options: Any) -> tuple[EMACodebook, vqp.VectorQuantize]:
    torch.manual_seed(0)
    ours = kind(K, D, commitment=0.25, cosine=cosine, **options).train()
    ours.updates += 1  # no k-means
    rotate = kind is Rotation
    theirs = reference(
        ours.codebook, commitment_weight=0.25, rotation_trick=rotate, use_cosine_sim=cosine,
        threshold_ema_dead_code=options["threshold"],
    )  # fmt: skip
    theirs._codebook.reset_cluster_size = 144 / K  # of a code that was replaced; theirs is the threshold
    return ours, theirs


def outputs(z_q: Tensor, loss: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of something that depends on codes and losses."""
    weight = torch.randn(z_q.shape, generator=torch.Generator().manual_seed(7))
    return torch.autograd.grad((z_q * weight).sum() + loss, inputs)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("kind", [EMACodebook, Rotation])
def test_moving_averages(kind: type[EMACodebook], cosine: bool) -> None:
    ours, theirs = pair(cosine, kind, threshold=0.0)
    for step in range(5):
        mine, other = (encodings(step).requires_grad_() for _ in range(2))
        found = ours.quantize(mine)
        z_q, indices, loss = theirs(other)
        assert torch.equal(found.indices, indices)
        torch.testing.assert_close(found.z_q, z_q, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.losses["commitment_loss"], loss)
        (own,), (their,) = outputs(found.z_q, sum(found.losses.values()), [mine]), outputs(z_q, loss, [other])
        torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-5)
        book = theirs._codebook
        for a, b in ((ours.codebook, book.embed), (ours.counts, book.cluster_size), (ours.sums, book.embed_avg)):
            torch.testing.assert_close(a, b[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cosine", [False, True])
def test_codes_expire_at_the_same_step_and_are_drawn_alike(cosine: bool) -> None:
    ours, theirs = pair(cosine, EMACodebook, threshold=2.0)
    expired = 0
    for step in range(30):
        before = ours.codebook.clone()
        z_e = encodings(step) + torch.tensor([3.0, 0, 0, 0])[None, :, None, None] * (step % 2)
        torch.manual_seed(step)
        indices = ours.quantize(z_e.requires_grad_()).indices
        torch.manual_seed(step)
        assert torch.equal(indices, theirs(z_e)[1])
        expired += int(((ours.codebook - before).abs().amax(1) > 0.5).sum())
        torch.testing.assert_close(ours.counts, theirs._codebook.cluster_size[0])
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0], rtol=1e-4, atol=1e-5)
    assert expired > 0


def test_the_original_codebook() -> None:
    """Theirs has one loss for both terms, which is ours with beta = 1."""
    torch.manual_seed(0)
    ours: Codebook = StraightThrough(K, D, commitment=1.0)
    with torch.no_grad():
        ours.codebook.copy_(torch.randn(K, D))
    theirs = reference(
        ours.codebook.detach(), commitment_weight=1.0, learnable_codebook=True, ema_update=False, rotation_trick=False
    )
    mine, other = (encodings(0).requires_grad_() for _ in range(2))
    found = ours.quantize(mine)
    z_q, indices, loss = theirs(other)
    assert torch.equal(found.indices, indices)
    torch.testing.assert_close(found.z_q, z_q)
    for value in found.losses.values():
        torch.testing.assert_close(value, loss)
    own = outputs(found.z_q, sum(found.losses.values()), [mine, ours.codebook])
    their = outputs(z_q, loss, [other, theirs._codebook.embed])
    torch.testing.assert_close(own[0], their[0])
    torch.testing.assert_close(own[1], their[1][0])


@pytest.mark.parametrize("levels", [(3,), (8, 5, 5, 5), (8, 6, 5), (7, 4)])
def test_finite_scalars(levels: tuple[int, ...]) -> None:
    ours, theirs = FSQ(levels), vqp.FSQ(list(levels), channel_first=True)
    mine, other = ((3 * encodings(0, len(levels))).requires_grad_() for _ in range(2))
    found = ours.quantize(mine)
    z_q, indices = theirs(other)
    assert torch.equal(found.indices, indices.long())
    torch.testing.assert_close(found.z_q, z_q)
    weight = torch.randn(z_q.shape)
    (own,), (their,) = (torch.autograd.grad((z * weight).sum(), x) for z, x in ((found.z_q, mine), (z_q, other)))
    torch.testing.assert_close(own, their)
    torch.testing.assert_close(ours.codes(found.indices), theirs.indices_to_codes(indices))


def test_cosine_codes_have_unit_length() -> None:
    ours, _ = pair(True, EMACodebook, threshold=0.0)
    z_q = ours.quantize(encodings(0)).z_q
    torch.testing.assert_close(z_q.norm(dim=1), torch.ones(4, 6, 6))
    torch.testing.assert_close(F.normalize(z_q, dim=1), z_q)
