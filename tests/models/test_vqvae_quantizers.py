"""Quantisers with a learned codebook: nearest codes, losses, gradients, averages, and codes that come back to life."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.vqvae.codebook import Codebook, nearest
from models.vqvae.ema import EMACodebook, kmeans, seeds, smoothed
from models.vqvae.quantizer import Quantizer
from models.vqvae.quantizers import LEARNED, build_quantizer
from models.vqvae.rotation import Rotation, rotated
from models.vqvae.straight_through import StraightThrough
from models.vqvae.usage import WINDOW, Usage

K, D = 7, 3
NAMES = ["fsq", *LEARNED]


def built(name: str, cosine: bool = False) -> Quantizer:
    torch.manual_seed(0)
    return build_quantizer(name, levels=(4, 3), codebook_size=K, codebook_dim=D, commitment=0.25, cosine=cosine)


def encodings(d: int = D, seed: int = 0) -> Tensor:
    return torch.randn(5, d, 4, 6, generator=torch.Generator().manual_seed(seed))


def unit(z: Tensor, cosine: bool) -> Tensor:
    return F.normalize(z, dim=-1) if cosine else z


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_codes_of_the_indices_are_what_was_quantised(name: str, cosine: bool) -> None:
    quantizer = built(name, cosine).eval()
    found = quantizer.quantize(encodings(quantizer.codebook_dim))
    assert found.indices.shape == (5, 4, 6) and found.indices.dtype == torch.int64
    assert int(found.indices.min()) >= 0 and int(found.indices.max()) < quantizer.codebook_size
    torch.testing.assert_close(quantizer.codes(found.indices), found.z_q)
    shares = torch.bincount(found.indices.flatten(), minlength=quantizer.codebook_size).double() / 120
    assert float(found.perplexity) == pytest.approx(float(torch.prod(shares**-shares)))


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("name", LEARNED)
def test_the_code_is_the_nearest_by_brute_force(name: str, cosine: bool) -> None:
    quantizer = built(name, cosine).eval()
    z_e = encodings()
    rows = unit(z_e.movedim(1, -1), cosine)
    codebook = unit(quantizer.codebook.detach(), cosine)
    distances = (rows[..., None, :] - codebook).square().sum(-1)
    assert torch.equal(quantizer.quantize(z_e).indices, distances.argmin(-1))
    if cosine:
        assert torch.equal(distances.argmin(-1), F.cosine_similarity(rows[..., None, :], codebook, dim=-1).argmax(-1))


def test_nearest_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, codebook = torch.randn(50, D), torch.randn(K, D)
    whole = nearest(rows, codebook)
    monkeypatch.setattr("models.vqvae.codebook.BLOCK", 7)
    assert torch.equal(nearest(rows, codebook), whole)


@pytest.mark.parametrize("name", LEARNED)
def test_losses_by_hand(name: str) -> None:
    quantizer, z_e = built(name).eval(), encodings()
    found = quantizer.quantize(z_e)
    z_q = quantizer.codes(found.indices).flatten().tolist()
    mean = sum((z - q) ** 2 for z, q in zip(z_e.flatten().tolist(), z_q, strict=True)) / len(z_q)
    expected = {"commitment_loss": 0.25 * mean} | ({"codebook_loss": mean} if name == "original" else {})
    assert {name: float(value.detach()) for name, value in found.losses.items()} == pytest.approx(expected)


def test_which_loss_moves_what() -> None:
    quantizer, z_e = built("original"), encodings().requires_grad_()
    losses = quantizer.quantize(z_e).losses
    moved = {
        loss: [g is not None for g in torch.autograd.grad(v, [z_e, quantizer.codebook], allow_unused=True)]
        for loss, v in losses.items()
    }
    assert moved == {"codebook_loss": [False, True], "commitment_loss": [True, False]}


@pytest.mark.parametrize("name", ["ema", "original"])
def test_the_gradient_passes_straight_through(name: str) -> None:
    quantizer, z_e = built(name), encodings().requires_grad_()
    weight = torch.randn(z_e.shape)
    (gradient,) = torch.autograd.grad((quantizer.quantize(z_e).z_q * weight).sum(), z_e)
    torch.testing.assert_close(gradient, weight)


def test_the_rotation_against_its_matrix() -> None:
    """The gradient at the encoding is scale R^T g, with R the textbook rotation in the plane of both vectors."""
    generator = torch.Generator().manual_seed(0)
    e, q, g = (torch.randn(D, dtype=torch.float64, generator=generator) for _ in range(3))
    e.requires_grad_()
    e_hat, q_hat = (v.detach() / v.detach().norm() for v in (e, q))
    cosine = e_hat @ q_hat
    skew = torch.outer(q_hat, e_hat) - torch.outer(e_hat, q_hat)
    rotation = torch.eye(D, dtype=torch.float64) + skew + skew @ skew / (1 + cosine)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(D, dtype=torch.float64))
    assert float(torch.linalg.det(rotation)) == pytest.approx(1)
    found = rotated(e, q)
    torch.testing.assert_close(found.detach(), q)
    (gradient,) = torch.autograd.grad(found @ g, e)
    torch.testing.assert_close(gradient, q.norm() / e.detach().norm() * rotation.T @ g)
    torch.testing.assert_close(gradient @ e_hat / gradient.norm(), g @ q_hat / g.norm())  # angles are kept


def test_the_rotation_of_vectors_that_have_no_direction_is_finite() -> None:
    e = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0]], requires_grad=True)
    q = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, 0]])
    found = rotated(e, q)
    (gradient,) = torch.autograd.grad(found.sum(), e)
    assert found.isfinite().all() and gradient.isfinite().all()


def test_counts_and_sums_are_moving_averages() -> None:
    """Three updates against the recursion of App. A.1, summed vector by vector."""
    quantizer = EMACodebook(K, D, decay=0.9, threshold=0.0)
    quantizer.updates += 1  # no k-means
    counts, sums = [1.0] * K, quantizer.codebook.tolist()
    for step in range(3):
        z_e = encodings(seed=step)
        indices = quantizer.quantize(z_e).indices.flatten().tolist()
        rows = z_e.movedim(1, -1).flatten(0, 2).tolist()
        for i in range(K):
            mine = [row for row, index in zip(rows, indices, strict=True) if index == i]
            counts[i] = 0.9 * counts[i] + 0.1 * len(mine)
            sums[i] = [0.9 * s + 0.1 * sum(row[j] for row in mine) for j, s in enumerate(sums[i])]
    torch.testing.assert_close(quantizer.counts, torch.tensor(counts))
    expected = torch.tensor([[s / n for s in row] for row, n in zip(sums, counts, strict=True)])
    torch.testing.assert_close(quantizer.codebook, expected, rtol=1e-3, atol=1e-4)


def test_smoothing_keeps_the_total_and_leaves_no_zero() -> None:
    counts = torch.tensor([0.0, 3.0, 5.0])
    assert float(smoothed(counts).sum()) == pytest.approx(8)
    assert (smoothed(counts) > 0).all()
    torch.testing.assert_close(smoothed(counts), counts, rtol=0, atol=1e-4)


def clusters(n: int, count: int, spread: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points (n, 8) around ``count`` random centres, and their clusters (n,)."""
    centres = torch.randn(count, 8, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(count, (n,), generator=generator)
    return centres[which] + spread * torch.randn(n, 8, generator=generator), which


def test_k_means_ends_where_centres_are_means_and_finds_clusters() -> None:
    torch.manual_seed(0)
    rows, which = clusters(400, 6)
    centres, counts = kmeans(rows, 6)
    labels = torch.cdist(rows, centres).argmin(1)
    assert counts.tolist() == torch.bincount(labels, minlength=6).tolist()
    for i in range(6):
        torch.testing.assert_close(centres[i], rows[labels == i].mean(0))
        assert len(which[labels == i].unique()) == 1


def test_seeds_are_far_apart_and_there_may_be_too_few_rows() -> None:
    torch.manual_seed(0)
    rows, _ = clusters(200, 5, spread=1e-6)
    assert float(torch.pdist(seeds(rows, 5)).min()) > 0.1
    assert seeds(rows[:2], 5).shape == (5, 8)
    centres, counts = kmeans(rows[:2], 5)
    assert centres.isfinite().all() and float(counts.sum()) == 2


def fit(quantizer: Codebook, steps: int) -> int:
    """Codes in use on new points of a mixture of 64 clusters after training on batches of 512."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(p, lr=1e-2) if (p := list(quantizer.parameters())) else None
    for step in range(steps):
        rows, _ = clusters(512, 64, seed=step)
        loss = sum(quantizer.quantize(rows[..., None, None]).losses.values())
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    rows, _ = clusters(4096, 64, seed=10**6)
    return len(quantizer.eval().quantize(rows[..., None, None]).indices.unique())


def from_random(threshold: float) -> EMACodebook:
    """Moving averages without the k-means start."""
    quantizer = EMACodebook(64, 8, threshold=threshold)
    quantizer.updates += 1
    return quantizer


def test_codes_stay_alive(record_property) -> None:
    """A mixture of 64 clusters gets a code each; the original codebook from a random start uses 32 of 64."""
    torch.manual_seed(0)
    used = {
        "ema": fit(EMACodebook(64, 8), 200),
        "random start, revived": fit(from_random(2.0), 200),
        "random start": fit(from_random(0.0), 200),
        "original": fit(StraightThrough(64, 8), 200),
    }
    record_property("codes_used", used)
    assert used["ema"] >= 0.95 * 64
    assert used["random start, revived"] >= 0.9 * 64
    assert used["random start"] < 0.8 * 64
    assert used["original"] < 0.8 * 64


def test_a_code_that_is_not_chosen_becomes_an_encoding_of_the_batch() -> None:
    quantizer = EMACodebook(K, D, decay=0.9, threshold=2.0)
    quantizer.updates += 1
    quantizer.counts.fill_(10.0)
    quantizer.codebook.copy_(torch.randn(K, D))
    quantizer.codebook[3] = 1000.0  # too far for anybody
    quantizer.sums.copy_(10 * quantizer.codebook)
    for step in range(16):  # 10 * 0.9^15 = 2.06
        assert (quantizer.codebook[3] > 900).all(), step
        z_e = encodings(seed=step)
        quantizer.quantize(z_e)
    rows = z_e.movedim(1, -1).flatten(0, 2)
    assert float((rows - quantizer.codebook[3]).abs().sum(1).min()) == 0
    assert float(quantizer.counts[3]) == pytest.approx(120 / K)
    torch.testing.assert_close(quantizer.sums[3], quantizer.codebook[3] * 120 / K)


def test_a_small_batch_does_not_expire_what_is_in_use() -> None:
    """Half of the equal share is the most that the threshold can be."""
    quantizer = EMACodebook(8, 1, threshold=2.0)
    z_e = torch.arange(8.0).reshape(8, 1, 1, 1)  # one encoding for each code: counts of 1
    for _ in range(5):
        quantizer.quantize(z_e)
    torch.testing.assert_close(quantizer.counts, torch.ones(8))
    torch.testing.assert_close(quantizer.codebook.flatten().sort().values, torch.arange(8.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["ema", "rotation"])
def test_the_codebook_changes_in_training_only_and_not_where_no_gradient_is_recorded(name: str) -> None:
    quantizer = built(name)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}

    def changed() -> bool:
        return any(not torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())

    with torch.no_grad():
        quantizer.quantize(encodings())
    quantizer.eval().quantize(encodings())
    assert not changed()
    quantizer.train().quantize(encodings())
    assert changed()


def test_going_on_from_a_saved_codebook_is_exact() -> None:
    def steps(quantizer: EMACodebook, first: int, last: int) -> EMACodebook:
        for step in range(first, last):
            torch.manual_seed(step)
            quantizer.quantize(encodings(seed=step))
        return quantizer

    whole = steps(EMACodebook(40, D), 0, 6)
    half, resumed = steps(EMACodebook(40, D), 0, 3), EMACodebook(40, D)
    resumed.load_state_dict(half.state_dict())
    steps(resumed, 3, 6)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in resumed.state_dict().items())


def test_usage_counts_a_window() -> None:
    usage = Usage(4, {"_top": 1, "_bottom": 2})
    for _ in range(WINDOW):
        usage.add(torch.tensor([[0, 1, 2], [3, 1, 1]]))
    found = usage.statistics()
    expected = {"codes_used_top": 2, "dead_codes_top": 2, "perplexity_top": 2, "codes_used_bottom": 2}
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["perplexity_bottom"] == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    usage.add(torch.tensor([[2, 0, 0]]))
    assert usage.statistics()["codes_used_top"] == 3
    for _ in range(WINDOW):
        usage.add(torch.tensor([[2, 0, 0]]))
    assert usage.statistics()["codes_used_top"] == 1 and usage.statistics()["dead_codes_bottom"] == 3


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown quantizer 'vq'; allowed: fsq, ema, original, rotation"):
        built("vq")
    with pytest.raises(ValueError, match="at least 2 codes of at least 1 dimension, not 1 of 3"):
        StraightThrough(1, 3)
    with pytest.raises(ValueError, match="commitment must not be negative"):
        Rotation(4, 3, commitment=-1.0)
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
        EMACodebook(4, 3, decay=1.0)
