"""Adversarial losses and penalties by hand: values, and gradients of linear and quadratic discriminators."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.gan.losses import (
    gradient_penalty,
    interpolated_penalty,
    nonsaturating_d_loss,
    nonsaturating_g_loss,
    relativistic_d_loss,
    relativistic_g_loss,
    wasserstein_d_loss,
    wasserstein_g_loss,
)

SHAPE = (2, 3, 2)
D = math.prod(SHAPE)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def images(n: int, seed: int) -> Tensor:
    return torch.randn(n, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Quadratic(nn.Module):
    """x A x / 2 + b x + 3, of symmetric or other A; its gradient in x is S x + b with S = (A + A^T) / 2."""

    def __init__(self, curved: bool) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(7)
        curve = torch.randn(D, D, dtype=torch.float64, generator=draws) / 3 * curved
        self.A = nn.Parameter(curve)
        self.b = nn.Parameter(torch.randn(D, dtype=torch.float64, generator=draws))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return 0.5 * ((flat @ self.A) * flat).sum(1) + flat @ self.b + 3

    def slopes(self, x: Tensor) -> Tensor:
        """Gradients at images, (B, D), in closed form."""
        return x.flatten(1) @ ((self.A + self.A.T) / 2) + self.b

    def curve_gradient(self, by_slope: Tensor, x: Tensor) -> Tensor:
        """The gradient in A of a function of the slopes whose gradient in them is given, (B, D)."""
        outer = by_slope.T @ x.flatten(1)
        return (outer + outer.T) / 2


def test_values_by_hand() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0])
    assert float(relativistic_d_loss(real, fake)) == pytest.approx((softplus(-1.5) + softplus(2)) / 2)
    assert float(relativistic_g_loss(real, fake)) == pytest.approx((softplus(1.5) + softplus(-2)) / 2)
    assert float(relativistic_d_loss(real, real)) == pytest.approx(math.log(2))
    d_loss = (softplus(-2) + softplus(1) + softplus(0.5) + softplus(1)) / 2
    assert float(nonsaturating_d_loss(real, fake)) == pytest.approx(d_loss)
    assert float(nonsaturating_g_loss(fake)) == pytest.approx((softplus(-0.5) + softplus(-1)) / 2)
    assert float(wasserstein_d_loss(real, fake)) == pytest.approx(0.25)
    assert float(wasserstein_g_loss(fake)) == pytest.approx(-0.75)


def test_gradients_of_the_discriminators_losses() -> None:
    """Of a linear D with weight b: the derivative of softplus is the logistic function."""
    network, real, fake = Quadratic(curved=False), images(4, 0), images(4, 1)
    r, f = real.flatten(1), fake.flatten(1)
    b, sure_real, sure_fake = network.b.detach(), network(real).detach(), network(fake).detach()
    expected = {
        relativistic_d_loss: (torch.sigmoid((f - r) @ b)[:, None] * (f - r)).mean(0),
        nonsaturating_d_loss: (torch.sigmoid(sure_fake)[:, None] * f - torch.sigmoid(-sure_real)[:, None] * r).mean(0),
        wasserstein_d_loss: f.mean(0) - r.mean(0),
    }
    for loss, gradient in expected.items():
        (found,) = torch.autograd.grad(loss(network(real), network(fake)), network.b)
        torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)


def test_gradients_of_the_generators_losses() -> None:
    network, real, fake = Quadratic(curved=True), images(4, 0), images(4, 1).requires_grad_()
    logits, slopes = network(fake).detach(), network.slopes(fake).detach()
    expected = {
        "relativistic": (relativistic_g_loss(network(real), network(fake)), -torch.sigmoid(network(real) - logits)),
        "non-saturating": (nonsaturating_g_loss(network(fake)), -torch.sigmoid(-logits)),
        "Wasserstein": (wasserstein_g_loss(network(fake)), -torch.ones(4, dtype=torch.float64)),
    }
    for loss, by_logit in expected.values():
        (found,) = torch.autograd.grad(loss, fake)
        torch.testing.assert_close(found.flatten(1), by_logit.detach()[:, None] * slopes / 4, rtol=1e-12, atol=1e-12)


def test_the_zero_centred_penalty_and_its_gradients() -> None:
    network, x = Quadratic(curved=True), images(5, 2).requires_grad_()
    found = gradient_penalty(network(x), x)
    slopes = network.slopes(x).detach()
    assert float(found.detach()) == pytest.approx(float(slopes.square().sum(1).mean()))
    by_a, by_b = torch.autograd.grad(found, [network.A, network.b])
    by_slope = 2 * slopes / 5
    torch.testing.assert_close(by_b, by_slope.sum(0))
    torch.testing.assert_close(by_a, network.curve_gradient(by_slope, x.detach()))


def test_the_penalty_on_interpolates_and_its_gradients() -> None:
    network, real, fake = Quadratic(curved=True), images(5, 0), images(5, 1)
    weights = torch.linspace(0, 1, 5, dtype=torch.float64)
    between = weights[:, None, None, None] * real + (1 - weights)[:, None, None, None] * fake
    slopes = network.slopes(between).detach()
    norms = slopes.norm(dim=1, keepdim=True)
    found = interpolated_penalty(network, real, fake, weights)
    assert float(found.detach()) == pytest.approx(float((norms - 1).square().mean()))
    by_a, by_b = torch.autograd.grad(found, [network.A, network.b])
    by_slope = 2 * (norms - 1) * slopes / norms / 5
    torch.testing.assert_close(by_b, by_slope.sum(0))
    torch.testing.assert_close(by_a, network.curve_gradient(by_slope, between))


def test_the_penalty_on_interpolates_where_there_is_no_slope() -> None:
    """The norm has no derivative there; a training step must not become one of not-a-numbers."""
    network = Quadratic(curved=False)
    with torch.no_grad():
        network.b.zero_()
    found = interpolated_penalty(network, images(3, 0), images(3, 1), torch.full((3,), 0.5, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(found, network.b)
    assert float(found.detach()) == 1 and gradient.isfinite().all()


def test_nothing_of_the_penalty_reaches_the_images() -> None:
    real, fake = images(3, 0).requires_grad_(), images(3, 1).requires_grad_()
    interpolated_penalty(Quadratic(curved=True), real, fake, torch.rand(3, dtype=torch.float64)).backward()
    assert real.grad is None and fake.grad is None


def test_the_gradient_of_the_penalty_against_finite_differences() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 4)).double()
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def penalty() -> torch.Tensor:
        return gradient_penalty(network(x).flatten(), x)

    weight = network[0].weight
    (gradient,) = torch.autograd.grad(penalty(), weight)
    for position in [(0, 0, 0, 0), (1, 0, 2, 1), (2, 0, 1, 2)]:
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[position] += step
            values.append(float(penalty().detach()))
            with torch.no_grad():
                weight[position] -= step
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(gradient[position]), rel=1e-5)
