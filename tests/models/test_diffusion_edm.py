"""EDM: preconditioning identities, noise levels, and Heun's method where the ODE has a closed form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.diffusion.edm import (
    P_MEAN,
    P_STD,
    SIGMA_MAX,
    SIGMA_MIN,
    UNIFORM_SHARE,
    Denoiser,
    c_in,
    c_out,
    c_skip,
    draw_log_sigma,
    edm_losses,
    loss_weight,
)
from models.diffusion.samplers import RHO, evaluations, heun, karras_sigmas
from tests.models.tiny import SHAPE, random_model, randomised, tiny_model

SIGMAS = torch.logspace(-3, 2, 30, dtype=torch.float64)


def denoiser() -> Denoiser:
    return Denoiser(SHAPE, 3, width=8, blocks=1, patch_size=2)


@given(log_sigma=st.floats(-7, 5), sigma_data=st.floats(0.05, 4))
def test_preconditioning_identities(log_sigma: float, sigma_data: float) -> None:
    """Karras et al. 2022, Appendix B.6: what defines c_in, c_out, c_skip and lambda."""
    sigma = torch.tensor(math.exp(log_sigma), dtype=torch.float64)
    skip, out, scale = c_skip(sigma, sigma_data), c_out(sigma, sigma_data), c_in(sigma, sigma_data)
    variance = sigma**2 + sigma_data**2
    torch.testing.assert_close(scale**2 * variance, torch.ones_like(sigma))  # unit-variance input
    # Unit-variance target F = (x_0 - c_skip x) / c_out for x_0 and noise independent:
    target = ((1 - skip) ** 2 * sigma_data**2 + skip**2 * sigma**2) / out**2
    torch.testing.assert_close(target, torch.ones_like(sigma))
    # c_skip amplifies errors of F least: d c_out^2 / d c_skip = 0.
    torch.testing.assert_close((1 - skip) * sigma_data**2, skip * sigma**2)
    torch.testing.assert_close(loss_weight(sigma, sigma_data) * out**2, torch.ones_like(sigma))


def test_preconditioning_limits() -> None:
    tiny, huge = torch.tensor(1e-9).double(), torch.tensor(1e9).double()
    assert c_skip(tiny, 0.5) == pytest.approx(1) and c_skip(huge, 0.5) == pytest.approx(0)
    assert c_out(tiny, 0.5) == pytest.approx(0, abs=1e-8) and c_out(huge, 0.5) == pytest.approx(0.5)


def test_an_untrained_denoiser_shrinks_towards_zero_and_its_loss_is_one() -> None:
    """At initialisation F = 0, so D = c_skip x, the best linear estimate, and lambda makes E loss = 1."""
    torch.manual_seed(0)
    network, n = denoiser(), 2000
    x_0 = 0.5 * torch.randn(n, *SHAPE)
    for sigma in (0.01, 0.5, 20.0):
        levels = torch.full((n,), sigma)
        noisy = x_0 + sigma * torch.randn_like(x_0)
        labels = torch.zeros(n, dtype=torch.int64)
        expected = c_skip(levels, 0.5)[:, None, None, None] * noisy
        torch.testing.assert_close(network(noisy, levels, labels), expected)
        loss = edm_losses(network, x_0, labels, levels.log(), torch.randn_like(x_0)).mean()
        assert float(loss.detach()) == pytest.approx(1, abs=0.02)


@torch.no_grad()
def test_the_loss_by_hand() -> None:
    network = randomised(denoiser())
    x_0, eps = torch.randn(4, *SHAPE), torch.randn(4, *SHAPE)
    sigma, labels = torch.tensor([0.02, 0.3, 1.0, 9.0]), torch.tensor([0, 1, 2, 3])
    by_hand = 0.0
    for i in range(4):
        s = float(sigma[i])
        d = network((x_0[i] + s * eps[i])[None], sigma[i : i + 1], labels[i : i + 1])[0]
        by_hand += (s**2 + 0.25) / (s * 0.5) ** 2 * float((d - x_0[i]).square().sum()) / (4 * x_0[0].numel())
    assert float(edm_losses(network, x_0, labels, sigma.log(), eps).mean()) == pytest.approx(by_hand, rel=1e-4)


def test_noise_level_and_label_reach_the_output() -> None:
    network = randomised(denoiser())
    x, sigma, labels = torch.randn(2, *SHAPE), torch.ones(2), torch.zeros(2, dtype=torch.int64)
    base = (network(x, sigma, labels) - c_skip(sigma, 0.5)[:, None, None, None] * x) / c_out(sigma, 0.5)[0]
    assert (network(x, sigma, labels + 1) - network(x, sigma, labels)).abs().max() > 1e-4
    other = torch.full((2,), 1.5)
    scale = c_in(sigma, 0.5)[0] / c_in(other, 0.5)[0]  # the same input to the U-Net, another noise embedding
    found = (network(x * scale, other, labels) - c_skip(other, 0.5)[0] * x * scale) / c_out(other, 0.5)[0]
    assert (found - base).abs().max() > 1e-4


def strata(u: torch.Tensor) -> list[int]:
    """Which of the len(u) equal parts of [0, 1] each value lies in, sorted."""
    return (u.double() * len(u)).floor().long().clamp(0, max(len(u) - 1, 0)).sort().values.tolist()


@pytest.mark.parametrize("n", [1, 2, 7, 8, 32, 4096])
def test_training_noise_levels_follow_both_laws_and_are_stratified(n: int) -> None:
    torch.manual_seed(0)
    log_sigma, uniform = draw_log_sigma(n, torch.device("cpu")), int(n * UNIFORM_SHARE)
    assert log_sigma.shape == (n,)
    normal, rest = log_sigma[: n - uniform], log_sigma[n - uniform :]
    z = (normal - P_MEAN) / P_STD
    v = (rest - math.log(SIGMA_MIN)) / math.log(SIGMA_MAX / SIGMA_MIN)
    assert ((v > -1e-6) & (v < 1 + 1e-6)).all()
    if n < 1000:  # beyond, rounding moves values over the edges of their strata
        assert strata(torch.special.ndtr(z)) == list(range(n - uniform))
        assert strata(v) == list(range(uniform))
    else:
        assert float(z.mean()) == pytest.approx(0, abs=2e-3) and float(z.std()) == pytest.approx(1, abs=5e-3)
        assert abs(float((z[1:] * z[:-1]).mean())) < 0.1  # the order is random


@pytest.mark.parametrize("num_steps", [1, 2, 3, 18, 64])
def test_karras_sigmas(num_steps: int) -> None:
    sigmas = karras_sigmas(num_steps)
    assert sigmas.dtype == torch.float64 and sigmas.shape == (num_steps + 1,)
    assert float(sigmas[0]) == pytest.approx(SIGMA_MAX) and sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    if num_steps > 1:
        assert float(sigmas[-2]) == pytest.approx(SIGMA_MIN)
        roots = sigmas[:-1] ** (1 / RHO)  # evenly spaced in sigma^(1 / rho)
        torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(num_steps - 1))


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="num_steps must be at least 1, not 0"):
        karras_sigmas(0)
    with pytest.raises(ValueError, match=r"num_steps must lie in 1\.\.1000, not 0"):
        tiny_model("diffusion").sample(1, generator=torch.Generator(), num_steps=0)


VARIANCE = 0.3


def exact(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x] for x_0 ~ N(0, VARIANCE)."""
    return x * (VARIANCE / (VARIANCE + sigma**2))[:, None, None, None]


def solve(num_steps: int, x: torch.Tensor) -> list[torch.Tensor]:
    """The states after every step."""
    states: list[torch.Tensor] = []
    final = heun(exact, x, karras_sigmas(num_steps), on_step=states.append)
    assert torch.equal(final, states[-1])
    return states


def test_heun_converges_with_second_order_to_the_solution_in_closed_form() -> None:
    """dx / d sigma = x sigma / (v + sigma^2), so x(0) = x(sigma_max) sqrt(v / (v + sigma_max^2))."""
    x = SIGMA_MAX * torch.randn(2, 1, 2, 2, dtype=torch.float64)
    truth = x * math.sqrt(VARIANCE / (VARIANCE + SIGMA_MAX**2))
    errors = [float((solve(n, x)[-1] - truth).abs().max()) for n in (16, 32, 64, 128)]
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    assert all(3.3 < ratio < 5 for ratio in ratios), ratios
    assert errors[-1] < 1e-3 * float(truth.abs().max())


def test_heun_follows_the_path() -> None:
    x = SIGMA_MAX * torch.randn(1, 1, 2, 2, dtype=torch.float64)
    sigmas = karras_sigmas(200)
    for state, sigma in zip(solve(200, x), sigmas[1:].tolist(), strict=True):
        truth = x * math.sqrt((VARIANCE + sigma**2) / (VARIANCE + SIGMA_MAX**2))
        torch.testing.assert_close(state, truth, rtol=3e-3, atol=0)


@pytest.mark.parametrize("num_steps", [1, 2, 18])
def test_evaluations_are_counted(num_steps: int) -> None:
    calls = []

    def counting(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(sigma.tolist())
        return exact(x, sigma)

    states: list[torch.Tensor] = []
    heun(counting, torch.randn(3, 1, 2, 2), karras_sigmas(num_steps), on_step=states.append)
    assert len(calls) == evaluations("heun", num_steps) == 2 * num_steps - 1
    assert len(states) == num_steps
    assert all(len(set(sigma)) == 1 and len(sigma) == 3 for sigma in calls)


def test_the_model_counts_and_shows_its_steps() -> None:
    model = random_model("diffusion")
    samples = model.sample(2, generator=torch.Generator().manual_seed(0), num_steps=5, sampler="heun", trajectory=True)
    assert samples.nfe == 9 and samples.trajectory.shape == (6, 2, *SHAPE)
    default = model.sample(2, generator=torch.Generator().manual_seed(0))
    assert default.nfe == model.hparams.num_steps
    static = samples.trajectory[0].float()  # noise at the data's scale: 64 grey levels a deviation, rarely clipped
    assert 50 < float(static.std()) < 72
