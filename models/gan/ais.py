"""Annealed importance sampling of log p(x) for a decoder, with Hamiltonian transitions.

Neal 2001 (physics/9803008): weights of chains led from the prior to the posterior give E[w] = p(x),
so that log mean w is a stochastic lower bound on log p(x). Wu et al. 2017 (arXiv:1611.04273) for
decoders; Grosse et al. 2015 (arXiv:1511.02543): the same chains run backwards from an exact posterior
sample (simulated data) give E[w] = 1 / p(x), a stochastic upper bound. Rows are images x chains,
image-major. Deviation: a class beside z is updated by a heat bath, so that no label is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

TARGET_ACCEPTANCE = 0.65  # Neal 2011 (arXiv:1206.1901), Sec. 5.4.4.3
ADAPTATION_RATE = 0.3
FIRST_STEP = 0.5  # in units of the prior's standard deviation
WARM_UP = 20  # transitions at the first temperature before the step size is written down


@dataclass(frozen=True)
class Target:
    """The joint density p(z) p(c) p(x | z, c) of given images: z ~ N(0, I), c uniform over the classes.

    ``log_likelihood`` takes z (rows, latent_dim) and classes int64 (rows,) and returns log p(x | z, c)
    in nats, float64 (rows,), differentiable in z.
    """

    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    latent_dim: int
    num_classes: int = 1
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"


@dataclass(frozen=True)
class Ladder:
    """A frozen schedule: inverse temperatures 0..1, float64 (T + 1,), and step sizes, float64 (T + 1, images or 1).

    A transition is ``leapfrog_steps`` long; every ``class_every``-th one is joined by an update of the class.
    """

    betas: Tensor
    step_sizes: Tensor
    leapfrog_steps: int
    class_every: int

    def __post_init__(self) -> None:
        if self.step_sizes.ndim != 2 or len(self.step_sizes) != len(self.betas) or len(self.betas) < 2:
            raise ValueError(
                f"a ladder needs step sizes (T + 1, images) for its inverse temperatures (T + 1,), T at least 1, "
                f"not {tuple(self.step_sizes.shape)} and {tuple(self.betas.shape)}"
            )
        if self.betas[0] != 0 or self.betas[-1] != 1 or (self.betas.diff() <= 0).any():
            raise ValueError("inverse temperatures must rise from 0 to 1")

    def evaluations(self, num_classes: int) -> int:
        """Decoder evaluations of one chain; one with its gradient counts as one."""
        transitions = len(self.betas) - 2
        updates = transitions // self.class_every if num_classes > 1 else 0
        return 1 + transitions * self.leapfrog_steps + updates * (num_classes + 1)


@dataclass(frozen=True)
class Run:
    """Log-weights in nats, float64 (images, chains), and each image's mean acceptance, float64 (images,)."""

    log_weights: Tensor
    acceptance: Tensor


@dataclass(frozen=True)
class _State:
    """Where the chains are, with log p(x | z, c) and its gradient in z there."""

    z: Tensor  # (rows, d)
    classes: Tensor  # int64 (rows,)
    log_likelihood: Tensor  # float64 (rows,)
    gradient: Tensor  # (rows, d)


class _Steps(Protocol):
    """Which step size a temperature has, and what is made of the acceptances seen with it."""

    def at(self, t: int) -> Tensor: ...  # float64 (images or 1,)

    def seen(self, t: int, acceptance: Tensor) -> None: ...


def sigmoid_schedule(num_temperatures: int, spread: float = 4.0) -> Tensor:
    """Inverse temperatures 0 = beta_0 < ... < beta_T = 1, float64 (T + 1,); Wu et al., Sec. 5.1."""
    raw = torch.sigmoid(spread * torch.linspace(-1, 1, num_temperatures + 1, dtype=torch.float64))
    betas = (raw - raw[0]) / (raw[-1] - raw[0])
    betas[-1] = 1.0
    return betas


def lower_bound(log_weights: Tensor) -> Tensor:
    """log mean w over chains, (images, chains) -> (images,): at most log p(x) on average (Jensen)."""
    return log_weights.logsumexp(dim=1) - math.log(log_weights.shape[1])


def upper_bound(reverse_log_weights: Tensor) -> Tensor:
    """-log mean w over reverse chains, (images, chains) -> (images,): at least log p(x) on average."""
    return -lower_bound(reverse_log_weights)


def forward(target: Target, ladder: Ladder, *, chains: int, generators: list[torch.Generator]) -> Run:
    """Chains from the prior to the posterior; Neal 2001, Eq. 3 to 5.

    Args:
        target: Its rows must be ``len(generators) * chains``.
        ladder: Chosen without these draws, or the weights are biased.
        chains: Chains per image.
        generators: One per image; an image's weights depend on its own only.
    """
    return _forward(target, ladder, _Frozen(ladder.step_sizes), chains, generators)


def reverse(
    target: Target, ladder: Ladder, z: Tensor, classes: Tensor, *, chains: int, generators: list[torch.Generator]
) -> Run:
    """Chains from exact posterior samples back to the prior: the forward kernels in reverse; Grosse et al., Sec. 3.

    Args:
        z: The latents the images were simulated from, (images, latent_dim).
        classes: Their classes, int64 (images,).
    """
    state = _evaluate(target, z.repeat_interleave(chains, 0), classes.repeat_interleave(chains))
    log_weights, accepted = torch.zeros_like(state.log_likelihood), torch.zeros_like(state.log_likelihood)
    for t in range(len(ladder.betas) - 1, 0, -1):
        log_weights += (ladder.betas[t - 1] - ladder.betas[t]) * state.log_likelihood
        if t > 1:
            state, acceptance = _hamiltonian(target, ladder, state, t - 1, ladder.step_sizes[t - 1], generators)
            accepted += acceptance
            state = _update_class(target, ladder, state, t - 1, generators)
    return _run(log_weights, accepted, ladder, chains)


def tune(
    target: Target, betas: Tensor, *, leapfrog_steps: int, class_every: int, chains: int,
    generators: list[torch.Generator],
) -> tuple[Ladder, Run]:
    """A ladder with the target acceptance for each image, and the weights of chains that had no say in it.

    The first half of an image's chains decides its step sizes; the second half only follows, so that
    its weights (returned) are as good as those of a frozen ladder.

    Args:
        betas: Inverse temperatures, float64 (T + 1,).
        chains: Chains per image, even.
    """
    if chains < 2 or chains % 2:
        raise ValueError(f"tuning needs an even number of chains, not {chains}")
    steps = _Adaptive(len(betas), len(generators), chains)
    start = Ladder(betas, steps.written(), leapfrog_steps, class_every)
    state = _from_prior(target, chains, generators)
    for _ in range(WARM_UP):
        state, acceptance = _hamiltonian(target, start, state, 1, steps.at(1), generators)
        steps.seen(1, acceptance)
    run = _forward(target, start, steps, chains, generators)
    followers = Run(run.log_weights[:, chains // 2 :], run.acceptance)
    return Ladder(betas, steps.written(), leapfrog_steps, class_every), followers


def stretched(ladder: Ladder, num_temperatures: int) -> Ladder:
    """The ladder with another number of temperatures, its step sizes interpolated along the schedule."""
    old, new = (torch.linspace(0, 1, n, dtype=torch.float64) for n in (len(ladder.betas), num_temperatures + 1))
    right = torch.searchsorted(old, new).clamp(1, len(old) - 1)
    weight = ((new - old[right - 1]) / (old[right] - old[right - 1]))[:, None]
    logs = ladder.step_sizes.log()
    step_sizes = torch.lerp(logs[right - 1], logs[right], weight).exp()
    return Ladder(sigmoid_schedule(num_temperatures), step_sizes, ladder.leapfrog_steps, ladder.class_every)


class _Frozen:
    """Step sizes that nothing seen can change."""

    def __init__(self, step_sizes: Tensor) -> None:
        self.step_sizes = step_sizes

    def at(self, t: int) -> Tensor:
        return self.step_sizes[t]

    def seen(self, t: int, acceptance: Tensor) -> None:
        pass


class _Adaptive:
    """Robbins-Monro on the log step size of every image, from the first half of its chains."""

    def __init__(self, length: int, images: int, chains: int) -> None:
        self.log_steps = torch.full((length, images), math.log(FIRST_STEP), dtype=torch.float64)
        self.current = self.log_steps[0].clone()
        self.chains = chains

    def at(self, t: int) -> Tensor:
        return self.current.exp()

    def seen(self, t: int, acceptance: Tensor) -> None:
        leaders = acceptance.reshape(-1, self.chains)[:, : self.chains // 2].mean(1).cpu()
        self.current = self.current + ADAPTATION_RATE * (leaders - TARGET_ACCEPTANCE)
        self.log_steps[t] = self.current

    def written(self) -> Tensor:
        """Step sizes of every temperature; the ends, where no transition is made, copy their neighbours."""
        logs = self.log_steps.clone()
        logs[0], logs[-1] = logs[1], logs[-2]
        return logs.exp()


def _forward(target: Target, ladder: Ladder, steps: _Steps, chains: int, generators: list[torch.Generator]) -> Run:
    state = _from_prior(target, chains, generators)
    log_weights, accepted = torch.zeros_like(state.log_likelihood), torch.zeros_like(state.log_likelihood)
    last = len(ladder.betas) - 1
    for t in range(1, last + 1):
        log_weights += (ladder.betas[t] - ladder.betas[t - 1]) * state.log_likelihood
        if t < last:  # what happens after the last weight does not matter
            state = _update_class(target, ladder, state, t, generators)
            state, acceptance = _hamiltonian(target, ladder, state, t, steps.at(t), generators)
            steps.seen(t, acceptance)
            accepted += acceptance
    return _run(log_weights, accepted, ladder, chains)


def _run(log_weights: Tensor, accepted: Tensor, ladder: Ladder, chains: int) -> Run:
    transitions = max(len(ladder.betas) - 2, 1)
    return Run(log_weights.reshape(-1, chains), (accepted / transitions).reshape(-1, chains).mean(1))


def _draw(
    target: Target, sampler: Callable[..., Tensor], shape: tuple[int, ...], generators: list[torch.Generator]
) -> Tensor:
    """Noise of ``torch.randn`` or ``torch.rand``, float64 (rows, ...), image i's chains from generator i."""
    return torch.cat([sampler(shape, generator=g, dtype=torch.float64) for g in generators]).to(target.device)


def _from_prior(target: Target, chains: int, generators: list[torch.Generator]) -> _State:
    z = _draw(target, torch.randn, (chains, target.latent_dim), generators).to(target.dtype)
    classes = (_draw(target, torch.rand, (chains,), generators) * target.num_classes).long()
    return _evaluate(target, z, classes)


def _evaluate(target: Target, z: Tensor, classes: Tensor) -> _State:
    z = z.detach().requires_grad_()
    log_likelihood = target.log_likelihood(z, classes)
    (gradient,) = torch.autograd.grad(log_likelihood.sum(), z)
    return _State(z.detach(), classes, log_likelihood.detach(), gradient)


def _log_density(state: _State, beta: float) -> Tensor:
    """log p(z) + beta log p(x | z, c) up to a constant, float64 (rows,)."""
    return beta * state.log_likelihood - 0.5 * state.z.double().square().sum(1)


def _hamiltonian(
    target: Target, ladder: Ladder, state: _State, t: int, step_sizes: Tensor, generators: list[torch.Generator]
) -> tuple[_State, Tensor]:
    """One leapfrog trajectory with a Metropolis test, invariant at beta_t; Neal 2011 (arXiv:1206.1901), Sec. 5.3.

    Returns the new state and the probability of acceptance, float64 (rows,).
    """
    beta, chains = float(ladder.betas[t]), len(state.z) // len(generators)
    step = step_sizes.expand(len(generators)).repeat_interleave(chains)[:, None].to(state.z)
    start = _draw(target, torch.randn, (chains, target.latent_dim), generators).to(target.dtype)
    log_uniform = _draw(target, torch.rand, (chains,), generators).log()
    proposal = state
    momentum = start + step / 2 * (beta * state.gradient - state.z)
    for i in range(ladder.leapfrog_steps):
        proposal = _evaluate(target, proposal.z + step * momentum, state.classes)
        half = 2 if i == ladder.leapfrog_steps - 1 else 1
        momentum = momentum + step / half * (beta * proposal.gradient - proposal.z)
    kinetic = 0.5 * (start.double().square() - momentum.double().square()).sum(1)
    log_ratio = (_log_density(proposal, beta) - _log_density(state, beta) + kinetic).nan_to_num(nan=-math.inf)
    return _where(log_uniform < log_ratio, proposal, state), log_ratio.clamp(max=0).exp()


def _where(chosen: Tensor, one: _State, other: _State) -> _State:
    """Rows of one state or of the other."""
    return _State(
        torch.where(chosen[:, None], one.z, other.z),
        torch.where(chosen, one.classes, other.classes),
        torch.where(chosen, one.log_likelihood, other.log_likelihood),
        torch.where(chosen[:, None], one.gradient, other.gradient),
    )


def _update_class(
    target: Target, ladder: Ladder, state: _State, t: int, generators: list[torch.Generator]
) -> _State:
    """Draw the class from p(c | z, x) at beta_t (a heat bath: reversible), every ``class_every``-th temperature."""
    if target.num_classes == 1 or t % ladder.class_every:
        return state
    with torch.no_grad():
        each = [target.log_likelihood(state.z, torch.full_like(state.classes, c)) for c in range(target.num_classes)]
    cumulative = torch.softmax(float(ladder.betas[t]) * torch.stack(each, dim=1), dim=1).cumsum(1)
    uniform = _draw(target, torch.rand, (len(state.z) // len(generators),), generators)
    drawn = (uniform[:, None] > cumulative[:, :-1]).sum(1)
    return _evaluate(target, state.z, drawn)
