"""Truncation in closed form, and projections against the exact optimum of a linear generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.base import image_generators, to_float
from models.gan.family import AdversarialFamily
from models.gan.projection import Search, best_of, descend, objective, search
from models.gan.truncation import PSIS, checked_psi, psi_sweep, truncated
from tests.models.tiny import SHAPE, random_model, tiny_data

MEMBERS = ("gan", "dcgan", "wgan_gp")
LABELS = torch.tensor([0, 1, 2, 0, 1])


def member(name: str) -> AdversarialFamily:
    model = random_model(name)
    assert isinstance(model, AdversarialFamily)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Truncation.


@pytest.mark.parametrize("name", MEMBERS)
def test_psi_of_one_changes_no_bit(name: str) -> None:
    model = member(name)
    plain = model.sample(5, condition=LABELS, generator=seeded()).images
    assert torch.equal(plain, model.sample(5, condition=LABELS, generator=seeded(), psi=1.0).images)
    assert not torch.equal(plain, model.sample(5, condition=LABELS, generator=seeded(), psi=0.5).images)


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("psi", [0.0, 0.5, 2.0])
def test_truncated_images_are_those_of_scaled_latents(name: str, psi: float) -> None:
    model = member(name)
    z = torch.stack([torch.randn(8, generator=g) for g in image_generators(5, seeded())])
    given = model.sample(5, condition=LABELS, generator=seeded(9), noise=psi * z).images
    drawn = model.sample(5, condition=LABELS, generator=seeded(), psi=psi).images
    assert torch.equal(drawn, given)
    if psi == 0:
        assert torch.equal(drawn[0], drawn[3]) and torch.equal(drawn[1], drawn[4]), "one image per class is left"
        assert not torch.equal(drawn[0], drawn[1])


def test_latents_shrink_in_proportion() -> None:
    z = torch.randn(4, 8, generator=seeded())
    torch.testing.assert_close(truncated(z, 0.7).norm(dim=1), 0.7 * z.norm(dim=1))
    assert truncated(z, 1) is z


@pytest.mark.parametrize("psi", [-0.1, 3.1, float("nan"), float("inf")])
def test_psi_out_of_range_is_one_sentence(psi: float) -> None:
    with pytest.raises(ValueError, match="psi must be a number from 0 to 3, not "):
        checked_psi(psi)
    with pytest.raises(ValueError, match="psi must be"):
        member("gan").sample(2, generator=seeded(), psi=psi)
    with pytest.raises(ValueError, match="psi must be"):
        psi_sweep({"psi": (0.5, psi)})


def test_the_sweep_goes_through_psi() -> None:
    (sweep,) = member("gan").sweeps({})
    assert sweep.name == "psi" and [s.x for s in sweep.settings] == list(PSIS)
    assert all(s.options == {"psi": s.x} for s in sweep.settings)
    (asked,) = member("gan").sweeps({"psi": (1.0, 0.2, 1.0)})
    assert [s.x for s in asked.settings] == [0.2, 1.0]


def test_given_latents_must_fit_and_do_not_change_the_classes() -> None:
    model = member("gan")
    for wrong in (torch.zeros(2, 7), torch.zeros(3, 8), torch.zeros(2, 8, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"noise must be float32 \(2, 8\), not "):
            model.sample(2, generator=seeded(), noise=wrong)
    assert model.noise_shape == (8,)
    drawn = torch.stack([torch.randn(8, generator=g) for g in image_generators(6, seeded())])
    plain = model.sample(6, generator=seeded()).images
    assert torch.equal(plain, model.sample(6, generator=seeded(), noise=drawn).images)


# Projection.


class Linear:
    """Images W z + b_c of one class or several."""

    def __init__(self, classes: int = 1, dimensions: int = 16, latent_dim: int = 4) -> None:
        self.weight = 0.15 * torch.randn(dimensions, latent_dim, generator=seeded(5))
        self.bias = 0.3 * torch.randn(classes, dimensions, generator=seeded(6))

    def __call__(self, z: Tensor, classes: Tensor) -> Tensor:
        return (z @ self.weight.T + self.bias[classes])[:, None, :, None]

    def optimum(self, images: Tensor, classes: Tensor, sigma: float) -> Tensor:
        """(W^T W / sigma^2 + I)^-1 W^T (x - b) / sigma^2, (N, d)."""
        w = self.weight.double()
        precision = w.T @ w / sigma**2 + torch.eye(w.shape[1], dtype=torch.float64)
        rest = to_float(images).double().flatten(1) - self.bias[classes].double()
        return torch.linalg.solve(precision, rest @ w / sigma**2, left=False)


def images_of(linear: Linear, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """uint8 images (n, 1, 16, 1) of a linear generator, with their classes."""
    classes = torch.arange(n) % len(linear.bias)
    x = linear(torch.randn(n, 4, generator=seeded(seed)), classes)
    return (x * 127.5 + 128).clip(0, 255).to(torch.uint8), classes


@pytest.mark.parametrize("sigma", [0.1, 0.4])
def test_on_a_linear_generator_it_is_the_closed_form(sigma: float) -> None:
    linear = Linear(classes=2)
    images, classes = images_of(linear, 5)
    how = Search(sigma=sigma, steps=600, restarts=2)
    found = search(linear, images, classes, image_generators(5, seeded()), latent_dim=4, num_classes=2, how=how)
    expected = linear.optimum(images, classes, sigma)
    assert expected.norm(dim=1).min() > 0.3, "there is something to find"
    torch.testing.assert_close(found.latents.double(), expected, rtol=0, atol=2e-3)
    x = to_float(images)
    lowest = objective(linear, x, expected.float(), classes, sigma)
    torch.testing.assert_close(found.objective, lowest, rtol=1e-4, atol=1e-4)


def test_the_objective_by_hand() -> None:
    x, z = torch.tensor([[[[0.5]], [[-1.0]]]]), torch.tensor([[2.0]])
    found = objective(lambda z, c: torch.stack([z, -z], 1)[..., None], x, z, torch.tensor([0]), 0.5)
    assert found.item() == (1.5**2 + 1.0**2) / 0.5 + 2.0 and found.dtype == torch.float64


def test_without_labels_the_class_is_found() -> None:
    linear = Linear(classes=3)
    images, classes = images_of(linear, 6, seed=1)
    how = Search(sigma=0.1, steps=200, restarts=1)
    one = search(linear, images, None, image_generators(6, seeded()), latent_dim=4, num_classes=3, how=how)
    assert torch.equal(one.classes, classes)
    told = search(linear, images, classes, image_generators(6, seeded()), latent_dim=4, num_classes=3, how=how)
    assert torch.equal(one.latents, told.latents), "the starts are the same in every class"


def test_the_best_restart_of_each_image_is_kept() -> None:
    """Two valleys: from the right start the lower one is found, from the other it is not."""

    def decode(z: Tensor, classes: Tensor) -> Tensor:
        return torch.where(z > 0, z, -0.4 * z)[:, None, :, None]

    x, how = torch.ones(2, 1, 1, 1), Search(sigma=0.1, steps=300)
    starts, classes = torch.tensor([[-1.0], [1.0]]), torch.zeros(2, dtype=torch.int64)
    apart = descend(decode, x, starts, classes, how)
    assert apart.latents[0] < 0 < apart.latents[1] and apart.objective[1] < apart.objective[0]
    best = best_of([apart], 1)
    assert torch.equal(best.latents, apart.latents[1:]) and torch.equal(best.objective, apart.objective[1:])


@pytest.mark.parametrize("name", MEMBERS)
def test_an_image_that_the_generator_made_is_found_again(name: str) -> None:
    model, labels = member(name), torch.arange(6) % 3
    made = model.sample(6, condition=labels, generator=seeded(3)).images
    how = Search(sigma=0.01)  # of an untrained generator images differ by few grey levels
    found = model.project(made, condition=labels, generator=seeded(), how=how)
    spread = made.double().sub(made.double().mean(0)).square().mean().sqrt()
    assert found.residual.max() < 0.25 * spread and found.residual.mean() < 0.1 * spread
    assert found.latents.shape == (6, 8) and torch.equal(found.labels, labels)
    again = model.sample(6, condition=found.labels, generator=seeded(1), noise=found.latents).images
    assert (again.int() - found.images.int()).abs().max() <= 1
    error = (made.double() - found.images.double()).flatten(1)
    torch.testing.assert_close(found.residual, error.norm(dim=1) / 8)
    other = model.project(tiny_data(6)[0], condition=labels, generator=seeded(), how=how)
    assert other.residual.min() > found.residual.max(), "what it cannot make stays further away"


def test_an_image_does_not_depend_on_its_batch_nor_on_grad_modes() -> None:
    model, (images, labels) = member("gan"), tiny_data(10)
    how = Search(steps=12, restarts=2)
    with torch.inference_mode():
        whole = model.project(images, condition=labels, generator=seeded(), how=how)
    generator = seeded()
    parts = [
        model.project(x, condition=c, generator=generator, how=how)
        for x, c in zip(images.split([1, 6, 3]), labels.split([1, 6, 3]), strict=True)
    ]
    assert torch.equal(whole.latents, torch.cat([p.latents for p in parts]))
    assert torch.equal(whole.images, torch.cat([p.images for p in parts]))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sigma": 0.0}, "sigma must be a number above 0, not 0"), ({"steps": 0}, "steps must be at least 1, not 0"),
     ({"restarts": 0}, "restarts must be at least 1, not 0")],
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**options)


def test_what_does_not_fit_the_model_is_refused() -> None:
    images, _ = tiny_data(2)
    with pytest.raises(ValueError, match="images must be uint8"):
        member("gan").project(images.float(), generator=seeded())
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        member("gan").project(images, condition=torch.tensor([0, 3]), generator=seeded())
    assert random_model("diffusion").project(images, generator=seeded()) is None
    assert random_model("diffusion").noise_shape == SHAPE
