"""Annealed importance sampling against exact likelihoods: a linear decoder, and a tiny one by quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from models.base import image_generators
from models.gan import ais
from models.gan.oracles import LinearGaussian, linear_gaussian_log_prob

IMAGES, CHAINS = 8, 40


def generators(seed: int, n: int = IMAGES) -> list[torch.Generator]:
    return image_generators(n, torch.Generator().manual_seed(seed))


def linear() -> LinearGaussian:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 3, generator=g, dtype=torch.float64)
    return LinearGaussian(weight, torch.randn(6, generator=g, dtype=torch.float64), sigma=0.4)


def tuned(target: ais.Target, temperatures: int, chains: int, n: int = IMAGES, class_every: int = 1) -> ais.Ladder:
    ladder, _ = ais.tune(
        target, ais.sigmoid_schedule(temperatures), leapfrog_steps=3, class_every=class_every, chains=chains,
        generators=generators(99, n),
    )  # fmt: skip
    return ladder


def both(temperatures: int) -> tuple[Tensor, Tensor, Tensor]:
    """Forward and reverse log-weights of the linear decoder, (images, chains), and the exact log p(x)."""
    model = linear()
    z, x = model.simulate(IMAGES, torch.Generator().manual_seed(1))
    target = model.target(x, CHAINS)
    ladder = tuned(target, temperatures, CHAINS)
    down = ais.forward(target, ladder, chains=CHAINS, generators=generators(2))
    classes = torch.zeros(IMAGES, dtype=torch.int64)
    up = ais.reverse(target, ladder, z, classes, chains=CHAINS, generators=generators(3))
    assert ((down.acceptance > 0.5) & (down.acceptance < 0.8)).all() and ((up.acceptance > 0.45).all())
    return down.log_weights, up.log_weights, model.log_prob(x)


def assert_mean_is_one(ratios: Tensor) -> None:
    """Within four standard errors, which must be small and those of light-tailed ratios."""
    error = float(ratios.std()) / math.sqrt(ratios.numel())
    assert error < 0.03 and float(ratios.max()) < 100
    assert float(ratios.mean()) == pytest.approx(1, abs=4 * error)


def test_the_exact_value_of_a_linear_decoder() -> None:
    model = linear()
    _, x = model.simulate(5, torch.Generator().manual_seed(1))
    covariance = model.weight.numpy() @ model.weight.numpy().T + 0.16 * torch.eye(6).numpy()
    expected = stats.multivariate_normal(model.bias.numpy(), covariance).logpdf(x.numpy())
    assert linear_gaussian_log_prob(x, model.weight, model.bias, 0.4).tolist() == pytest.approx(expected, rel=1e-6)
    z = torch.randn(5, 3, dtype=torch.float64)
    pointwise = stats.norm((z @ model.weight.T + model.bias).numpy(), 0.4).logpdf(x.numpy()).sum(1)
    classes = torch.zeros(5, dtype=torch.int64)
    assert model.target(x, 1).log_likelihood(z, classes).tolist() == pytest.approx(pointwise)


def ratios(target: ais.Target, exact: Tensor, z: Tensor, classes: Tensor, ladder: ais.Ladder) -> tuple[Tensor, Tensor]:
    """w / p(x) of forward chains and w p(x) of reverse ones, a chain for each of many images; both have mean one."""
    n = len(z)
    down = ais.forward(target, ladder, chains=1, generators=generators(2, n)).log_weights[:, 0]
    up = ais.reverse(target, ladder, z, classes, chains=1, generators=generators(3, n)).log_weights[:, 0]
    return (down - exact).exp(), (up + exact).exp()


def test_weights_are_unbiased_for_a_linear_decoder() -> None:
    """E w = p(x) forwards and E w = 1 / p(x) backwards, at noise so strong that few temperatures are enough."""
    model = LinearGaussian(linear().weight, linear().bias, sigma=2.0)
    z, x = model.simulate(3000, torch.Generator().manual_seed(1))
    ladder = ais.Ladder(ais.sigmoid_schedule(8), torch.full((9, 1), 0.8), leapfrog_steps=2, class_every=1)
    classes = torch.zeros(3000, dtype=torch.int64)
    for found in ratios(model.target(x, 1), model.log_prob(x), z, classes, ladder):
        assert_mean_is_one(found)
        assert float(found.std()) > 0.1  # or there is nothing to be averaged


def test_the_exact_value_lies_in_the_sandwich() -> None:
    down, up, exact = both(200)
    lower, upper = ais.lower_bound(down), ais.upper_bound(up)
    assert float((lower - exact).mean()) < 0.05 and float((upper - exact).mean()) > -0.05
    assert float((upper - lower).mean()) < 1


def test_the_gap_shrinks_with_more_temperatures() -> None:
    gaps = []
    for temperatures in (20, 80, 320):
        down, up, exact = both(temperatures)
        gaps.append((float((exact[:, None] - down).mean()), float((exact[:, None] + up).mean().neg())))
    below, above = zip(*gaps, strict=True)
    gap = [down + up for down, up in gaps]
    assert gap[0] > 2 * gap[1] > 4 * gap[2]
    assert below[0] > below[1] > below[2] > 0 and above[0] > above[1] > above[2] > 0


def test_one_chain_on_two_temperatures_is_importance_sampling_from_the_prior() -> None:
    """With no transitions at all, log w = log p(x | z) at z from the prior, and the reverse at z from the posterior."""
    model = linear()
    z, x = model.simulate(IMAGES, torch.Generator().manual_seed(1))
    ladder = ais.Ladder(torch.tensor([0.0, 1.0]), torch.ones(2, 1), leapfrog_steps=3, class_every=1)
    target = model.target(x, 1)
    prior = torch.cat([torch.randn(1, 3, generator=g, dtype=torch.float64) for g in generators(2)])
    classes = torch.zeros(IMAGES, dtype=torch.int64)
    down = ais.forward(target, ladder, chains=1, generators=generators(2))
    up = ais.reverse(target, ladder, z, classes, chains=1, generators=generators(2))
    torch.testing.assert_close(down.log_weights[:, 0], target.log_likelihood(prior, classes))
    torch.testing.assert_close(up.log_weights[:, 0], -target.log_likelihood(z, classes))


MEANS = torch.tensor([-1.5, 0.0, 0.5, 1.5, 3.0], dtype=torch.float64)
SLOPES = torch.tensor([1.0, 1.5, 0.1, 0.5, -1.0], dtype=torch.float64)


def mixture(x: Tensor) -> tuple[ais.Target, Tensor]:
    """x | z, c ~ N(mean_c + slope_c z, 1) in one dimension, five classes, and its exact log p(x)."""

    def log_likelihood(z: Tensor, classes: Tensor) -> Tensor:
        return -0.5 * (x - MEANS[classes] - SLOPES[classes] * z[:, 0]).square() - 0.5 * math.log(2 * math.pi)

    each = torch.distributions.Normal(MEANS, (SLOPES.square() + 1).sqrt()).log_prob(x[:, None])
    target = ais.Target(log_likelihood, latent_dim=1, num_classes=5, dtype=torch.float64)
    return target, torch.logsumexp(each, dim=1) - math.log(5)


@pytest.mark.parametrize("class_every", [1, 2])
def test_classes_are_summed_out_in_both_directions(class_every: int) -> None:
    n, g = 3000, torch.Generator().manual_seed(5)
    z, classes = torch.randn(n, 1, generator=g, dtype=torch.float64), torch.randint(5, (n,), generator=g)
    x = MEANS[classes] + SLOPES[classes] * z[:, 0] + torch.randn(n, generator=g, dtype=torch.float64)
    target, exact = mixture(x)
    ladder = ais.Ladder(ais.sigmoid_schedule(10), torch.full((11, 1), 0.9), leapfrog_steps=2, class_every=class_every)
    for found in ratios(target, exact, z, classes, ladder):
        assert_mean_is_one(found)


def test_a_transition_leaves_the_posterior_as_it_is() -> None:
    """Exact posterior draws of a linear decoder stay such after many transitions at beta = 1, mean and variance."""
    model = linear()
    _, x = model.simulate(1, torch.Generator().manual_seed(1))
    chains = 4000
    target = model.target(x, chains)
    precision = torch.eye(3, dtype=torch.float64) + model.weight.T @ model.weight / 0.16
    mean = torch.linalg.solve(precision, model.weight.T @ (x[0] - model.bias) / 0.16)
    posterior = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
    torch.manual_seed(0)
    ladder = ais.Ladder(torch.tensor([0.0, 1.0]), torch.full((2, 1), 0.25), leapfrog_steps=4, class_every=1)
    start = posterior.sample((chains,))
    state, rate = ais._evaluate(target, start, torch.zeros(chains, dtype=torch.int64)), torch.tensor(1.0)
    for _ in range(5):
        state, acceptance = ais._hamiltonian(target, ladder, state, 1, ladder.step_sizes[1], generators(4, 1))
        rate = torch.minimum(rate, acceptance.mean())
    assert 0.3 < float(rate) < 0.97  # the test is of the accept step, too
    assert (state.z - start).abs().mean() > 0.1
    white = (state.z - mean) @ torch.linalg.cholesky(precision)
    assert float(stats.kstest(white.flatten().numpy(), "norm").pvalue) > 1e-3


def test_an_image_depends_on_its_own_generator_only() -> None:
    model = linear()
    _, x = model.simulate(IMAGES, torch.Generator().manual_seed(1))
    ladder = ais.Ladder(ais.sigmoid_schedule(20), torch.full((21, 1), 0.2), leapfrog_steps=3, class_every=1)
    whole = ais.forward(model.target(x, 3), ladder, chains=3, generators=generators(2)).log_weights
    part = ais.forward(model.target(x[5:], 3), ladder, chains=3, generators=generators(2)[5:]).log_weights
    torch.testing.assert_close(part, whole[5:], rtol=1e-9, atol=1e-9)
    assert len(set(whole.flatten().tolist())) == 3 * IMAGES


def test_followers_have_no_say_in_the_step_sizes() -> None:
    """Halving the leaders' likelihood changes the step sizes; doing so to the followers does not."""
    model = linear()
    _, x = model.simulate(2, torch.Generator().manual_seed(1))
    plain = model.target(x, 4)

    def scaled(rows: list[int]) -> Tensor:
        factor = torch.ones(8, dtype=torch.float64)
        factor[rows] = 0.1
        target = ais.Target(lambda z, c: factor * plain.log_likelihood(z, c), 3, dtype=torch.float64)
        return tuned(target, 30, 4, n=2).step_sizes

    assert torch.equal(scaled([2, 3, 6, 7]), scaled([]))
    assert not torch.equal(scaled([0, 1]), scaled([]))


def test_schedules() -> None:
    betas = ais.sigmoid_schedule(50)
    assert betas.shape == (51,) and betas[0] == 0 and betas[-1] == 1 and (betas.diff() > 0).all()
    assert float(betas[25]) == pytest.approx(0.5) and float(betas[1]) < 0.01
    sizes = torch.linspace(1, 3, 51, dtype=torch.float64).exp()[:, None]
    long = ais.stretched(ais.Ladder(betas, sizes, leapfrog_steps=3, class_every=2), 200)
    expected = torch.linspace(1, 3, 201, dtype=torch.float64).exp()[:, None]
    torch.testing.assert_close(long.step_sizes, expected)
    assert (long.leapfrog_steps, long.class_every, len(long.betas)) == (3, 2, 201)


def test_evaluations_are_those_that_happen() -> None:
    counted = 0

    def log_likelihood(z: Tensor, classes: Tensor) -> Tensor:
        nonlocal counted
        counted += 1
        return -z.square().sum(1) - classes

    target = ais.Target(log_likelihood, latent_dim=2, num_classes=3, dtype=torch.float64)
    ladder = ais.Ladder(ais.sigmoid_schedule(10), torch.full((11, 1), 0.1), leapfrog_steps=2, class_every=4)
    ais.forward(target, ladder, chains=1, generators=generators(0, 1))
    assert counted == ladder.evaluations(3) == 1 + 9 * 2 + 2 * 4


def test_ladders_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="must rise from 0 to 1"):
        ais.Ladder(torch.tensor([0.0, 0.7, 0.7, 1.0]), torch.ones(4, 1), leapfrog_steps=1, class_every=1)
    with pytest.raises(ValueError, match=r"needs step sizes \(T \+ 1, images\)"):
        ais.Ladder(torch.tensor([0.0, 1.0]), torch.ones(3, 1), leapfrog_steps=1, class_every=1)
    with pytest.raises(ValueError, match="an even number of chains, not 3"):
        tuned(linear().target(torch.zeros(IMAGES, 6), 3), 10, 3)
