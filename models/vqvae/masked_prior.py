"""Second stage: a transformer that sees some codes and predicts the hidden ones, many at a time.

Chang et al. 2022, "MaskGIT" (arXiv:2202.04200): masks on the cosine schedule, decoding in a few steps that keep what
is most certain. Its likelihood is that of revealing codes one by one in a random order, bounded as by Hoogeboom et al.
2022, "Autoregressive Diffusion Models" (arXiv:2110.02037); parallel decoding draws from something else.
Deviations: the label is added to every code instead of being a token; a convolution over the grid in front of every
block; half of all training masks have a uniform instead of the cosine schedule's size and each counts the mean
over its hidden codes, which is what the bound asks for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import own_rows, uniform_noise
from models.nets.transformer import Transformer
from models.vqvae.code_layers import CodeEmbedding, CodeHead, Neighbours, small_embedding
from models.vqvae.code_prior import UNKNOWN, CodePrior, PriorCheck
from models.vqvae.drawing import Truncation

BOUND_EVALUATIONS = 16  # of the any-order estimate, one in each stratum of the number of visible codes
EVERYTHING = Truncation()


class MaskedPrior(CodePrior):
    """p(indices | label) = the mean over all orders of prod_t p(index of place t | those of places < t, label).

    Args:
        codebook_size: K.
        num_codes: T.
        num_classes: Without "none".
        dim: Width of the transformer, a multiple of 32.
        depth: Its blocks.
        levels: Of the digits that codes are made of (``models.vqvae.code_layers``).
        grid: Rows and columns, if codes shall see their neighbours by convolution too.
    """

    sampler = "confidence-ordered parallel decoding"
    settings = {"code": f"any-order estimate, {BOUND_EVALUATIONS} evaluations"}  # noqa: RUF012 - read only

    def __init__(
        self, *, codebook_size: int, num_codes: int, num_classes: int, dim: int, depth: int,
        levels: tuple[int, ...] = (), grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.codebook_size, self.num_codes = codebook_size, num_codes
        self.token = CodeEmbedding(codebook_size, dim, levels=levels, special=1)  # the last index is "hidden"
        self.label = small_embedding(num_classes + 1, dim)  # the last row is "no label"
        head = CodeHead(codebook_size, dim, levels=levels)
        local = nn.Identity if grid is None else partial(Neighbours, grid, dim)
        self.transformer = Transformer(
            dim=dim, depth=depth, length=num_codes, head=head, causal=False, local=local
        )

    @property
    def bound_evaluations(self) -> int:
        return BOUND_EVALUATIONS

    @property
    def path_evaluations(self) -> int:
        return self.num_codes

    def logits(self, indices: Tensor, hidden: Tensor, labels: Tensor, asked: Tensor | None = None) -> Tensor:
        """indices int64 (B, T), of which those ``hidden``, bool (B, T), are not seen -> (B, T, codebook_size).

        With ``asked``, bool (B, T), only those of these n places: (n, codebook_size).
        """
        seen = indices.masked_fill(hidden, self.codebook_size)
        return self.transformer(self.token(seen) + self.label(labels)[:, None], asked=asked)

    def conditionals(self, indices: Tensor, hidden: Tensor, labels: Tensor) -> Tensor:
        """log p(index_i | visible codes, label) in nats at hidden places i, (B, T); 0 at visible ones."""
        logits = self.logits(indices, hidden, labels, asked=hidden)
        found = logits.new_zeros(indices.shape)
        found[hidden] = -F.cross_entropy(logits, indices[hidden], reduction="none")
        return found

    # Training and likelihood.

    def loss(self, indices: Tensor, labels: Tensor) -> Tensor:
        """Mean over the hidden codes of every image, then over images: half the masks cosine, half uniform in size.

        As the head sees hidden codes only, a step costs an eighth less; how many there are in a batch, and with it
        the FLOPs of a step, differs by less than 0.2 % between batches of 32, as shares are stratified.
        """
        t = self.num_codes

        def draw(n: int) -> Tensor:
            noise = torch.rand(n, t + 1, device=indices.device)
            return torch.cat([mask_shares(noise[:, :1].flatten())[:, None], noise[:, 1:]], dim=1)

        noise = own_rows(draw, len(indices))
        count = (noise[:, 0] * t).ceil().clamp(1, t)
        hidden = places(noise[:, 1:]) < count[:, None]
        return -(self.conditionals(indices, hidden, labels).sum(1) / count).mean()

    def log_prob(
        self, indices: Tensor, labels: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """Any-order estimate, float64 (B,), whose mean over orders lies below log p(indices | label).

        E over orders of sum_t log p(z_t | z_<t) = T E over n uniform in 0..T-1, and over which n codes are visible,
        of the mean over hidden codes of log p(z_i | visible) (Hoogeboom et al. 2022, Eq. 5 and 6). n is stratified
        over ``BOUND_EVALUATIONS`` evaluations, each with an order of its own.
        """
        rows = uniform_noise((BOUND_EVALUATIONS, self.num_codes + 1), checked(generators)).to(indices.device)
        total = torch.zeros(len(indices), dtype=torch.float64, device=indices.device)
        for j, noise in enumerate(rows.unbind(1)):
            visible = ((j + noise[:, 0]) / BOUND_EVALUATIONS * self.num_codes).long().clamp(max=self.num_codes - 1)
            hidden = places(noise[:, 1:]) >= visible[:, None]
            found = self.conditionals(indices, hidden, labels).double().sum(1)
            total += self.num_codes * found / (self.num_codes - visible)
        return total / BOUND_EVALUATIONS

    def path_log_prob(
        self, indices: Tensor, labels: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """log p(indices | label, order) of one random order, float64 (B,); T evaluations."""
        order = places(uniform_noise((self.num_codes,), checked(generators)).to(indices.device))
        return self.ordered_log_prob(indices, labels, order)

    def ordered_log_prob(self, indices: Tensor, labels: Tensor, order: Tensor) -> Tensor:
        """sum_t log p(code revealed at t | those before), float64 (B,); ``order`` int64 (B, T): when each code is."""
        total = torch.zeros(len(indices), dtype=torch.float64, device=indices.device)
        for t in range(self.num_codes):
            found = self.conditionals(indices, order >= t, labels)
            total += found.double().masked_fill(order != t, 0).sum(1)
        return total

    def check(self, indices: Tensor, labels: Tensor) -> PriorCheck:
        """The mass of every conditional over the codebook, and that none depends on hidden codes.

        Every second code is hidden; the codes given there must not change what is predicted.
        """
        hidden = (torch.arange(self.num_codes, device=indices.device) % 2 == 0).expand(indices.shape)
        mass = torch.zeros(indices.shape, dtype=torch.float64, device=indices.device)
        for index in range(self.codebook_size):
            replaced = indices.masked_fill(hidden, index)
            mass += self.conditionals(replaced, hidden, labels).double().exp()
        codes = float((mass - 1).abs()[hidden].max())
        other = torch.where(hidden, (indices + 1) % self.codebook_size, indices)
        change = self.logits(other, hidden, labels).softmax(-1) - self.logits(indices, hidden, labels).softmax(-1)
        seen = float(change.abs().max())
        return PriorCheck(f"prior over the codebook {codes:.1e}; hidden codes seen by the prior {seen:.1e}",
                          max(codes, seen))  # fmt: skip

    # Sampling.

    def noise_shape(self, *, num_steps: int, **options: Any) -> tuple[int, ...]:
        """Two numbers per step and code: for the code, and for its confidence."""
        return (num_steps, 2, self.num_codes)

    def evaluations(self, given: Tensor | None = None, *, num_steps: int, **options: Any) -> int:
        """One per step; no more steps than the most codes that any row lacks."""
        return min(num_steps, self.num_codes if given is None else int((given == UNKNOWN).sum(1).max()))

    def sample(
        self, labels: Tensor, noise: Tensor, *, given: Tensor | None = None, num_steps: int = 8,
        truncation: Truncation = EVERYTHING, choice_temperature: float = 0.0,
    ) -> Tensor:
        """Draw indices (B, T): in every step all that are hidden, of which the most certain stay.

        Confidence is log p of the drawn code plus Gumbel noise times a temperature that falls linearly to 0; after
        step s of S a share cos(pi / 2 s / S) stays hidden (Chang et al. 2022, Sec. 3.2), at least one less than before.

        Args:
            labels: int64 (B,).
            noise: In [0, 1), float64 (B, num_steps, 2, T).
            given: Codes int64 (B, T) on which all others are conditioned, ``UNKNOWN`` where one is to be drawn.
            num_steps: S, at least 1; a row that lacks fewer codes is done earlier.
            truncation: Temperature, top-k and top-p of every draw.
            choice_temperature: Of the noise on confidences, in front of its fall.
        """
        shape = (len(labels), self.num_codes)
        indices = torch.full(shape, UNKNOWN, device=labels.device) if given is None else given.clone()
        hidden = indices == UNKNOWN
        lacking = hidden.sum(1)
        own_steps = lacking.clamp(1, num_steps)  # (B,)
        for s in range(self.evaluations(given, num_steps=num_steps)):
            log_p = self.logits(indices, hidden, labels, asked=hidden).log_softmax(-1)  # (n, K), of n hidden codes
            drawn = truncation.draw(log_p, noise[:, s, 0][hidden])
            indices[hidden] = drawn
            heat = choice_temperature * (1 - (s + 1) / own_steps).clamp(min=0)[:, None]
            confidence = heat * gumbel(noise[:, s, 1])
            confidence[hidden] += log_p.gather(1, drawn[:, None])[:, 0]
            left = remaining(s + 1, own_steps, lacking).minimum(hidden.sum(1) - 1)
            hidden = places(confidence.masked_fill(~hidden, math.inf)) < left[:, None]
        return indices


def remaining(step: int, num_steps: Tensor, lacking: Tensor) -> Tensor:
    """Codes still hidden after a step, floor(lacking cos(pi / 2 step / num_steps)), int64 (B,); 0 from the last one on.

    Args:
        step: From 1 on.
        num_steps: int64 (B,), of every row.
        lacking: Codes hidden in the beginning, int64 (B,).
    """
    share = torch.cos(math.pi / 2 * (step / num_steps.double()).clamp(max=1))
    return torch.where(step < num_steps, (lacking * share).floor().long(), 0)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform noise in [0, 1), float64, of the same shape."""
    return -(-uniform.clamp(min=1e-300).log()).log()


def mask_shares(uniform: Tensor) -> Tensor:
    """Shares of codes to hide in training, (B,): the cosine schedule's in even rows, uniform ones in odd rows.

    The uniform noise (B,) is stratified first, one row in each of B equal intervals.
    """
    row = torch.arange(len(uniform), device=uniform.device)
    strata = (row + uniform) / len(uniform)
    return torch.where(row % 2 == 0, torch.cos(math.pi / 2 * strata), strata)


def places(noise: Tensor) -> Tensor:
    """Random numbers (B, T) -> the place of each in its row's ascending order, int64 (B, T)."""
    return noise.argsort(1).argsort(1)


def checked(generators: Sequence[torch.Generator] | None) -> list[torch.Generator]:
    """The generators; raises ``ValueError`` if there are none, as orders are drawn."""
    if generators is None:
        raise ValueError("a masked prior draws orders: it needs a generator for every row")
    return list(generators)
