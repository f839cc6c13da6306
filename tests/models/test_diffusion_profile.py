"""Where the bits are: the pieces are those of the variational bound, and right for a source that is known."""

from __future__ import annotations

import math

import pytest
import torch

from models.base import image_generators, to_float
from models.diffusion.bound import SIGMA_MAX, SIGMA_MIN, variational_bound
from models.diffusion.oracles import IndependentPixels
from models.diffusion.profile import noise_level_profile, strata_middles
from tests.models.tiny import random_model, tiny_data

LEVELS = torch.tensor([10, 90, 200])
PMF = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
SOURCE = IndependentPixels(torch.zeros(256, dtype=torch.float64).index_put((LEVELS,), PMF))
SHAPE = (1, 3, 3)


def generators(n: int, seed: int = 1) -> list[torch.Generator]:
    return image_generators(n, torch.Generator().manual_seed(seed))


def source(n: int) -> torch.Tensor:
    return SOURCE.sample(n, SHAPE, torch.Generator().manual_seed(0))


def test_the_pieces_add_up_to_the_bound() -> None:
    images, variance = source(40), SOURCE.second_moment
    whole = variational_bound(SOURCE.denoise, images, generators(40), num_levels=16, prior_variance=variance)
    found = noise_level_profile(SOURCE.denoise, images, generators(40), num_levels=16, prior_variance=variance)
    assert found.kind == whole.kind and found.nats.shape == found.error.shape == (40, 16)
    torch.testing.assert_close(found.nats.sum(1), -whole.parts["diffusion"], rtol=1e-12, atol=0)
    for name, part in found.parts.items():
        torch.testing.assert_close(part, -whole.parts[name], rtol=0, atol=0)
    total = found.nats.sum(1) + found.parts["prior"] + found.parts["reconstruction"]
    torch.testing.assert_close(total, -whole.log_likelihood, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["diffusion", "ddpm", "flow_matching", "consistency"])
def test_a_model_gives_the_pieces_of_its_own_bound(name: str) -> None:
    model, (images, _) = random_model(name), tiny_data(5)
    bound = model.log_likelihood_bound(images, generator=torch.Generator().manual_seed(3), kind="elbo")
    found = model.profile(images, generator=torch.Generator().manual_seed(3))
    assert bound is not None and found is not None
    total = found.nats.sum(1) + sum(found.parts.values())
    torch.testing.assert_close(total, -bound.log_likelihood, rtol=1e-9, atol=0)


def bayes_error(sigma: float) -> float:
    """E (x_0 - E[x_0 | x_sigma])^2 of one pixel, by the trapezoid rule over x_sigma."""
    values = to_float(LEVELS).double()
    low, high = float(values.min()) - 9 * sigma, float(values.max()) + 9 * sigma
    x = torch.linspace(low, high, max(20_001, int(40 * (high - low) / sigma)), dtype=torch.float64)
    density = PMF * torch.exp(-0.5 * ((x[:, None] - values) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    mean = (density * values).sum(1) / density.sum(1).clamp(min=1e-300)
    return float(torch.trapezoid((density * (values - mean[:, None]) ** 2).sum(1), x))


def test_errors_and_nats_of_the_best_denoiser_are_those_of_quadrature() -> None:
    images = source(2000)
    found = noise_level_profile(SOURCE.denoise, images, generators(2000), num_levels=24, prior_variance=0.5)
    width = math.log(SIGMA_MAX / SIGMA_MIN) / 24
    checked = 0
    for place, middle in enumerate(found.positions.tolist()):
        points = [middle * math.exp(width * share) for share in (-0.4, -0.2, 0.0, 0.2, 0.4)]  # midpoint rule
        error = sum(map(bayes_error, points)) / 5
        nats = 9 * width * sum(bayes_error(s) / s**2 for s in points) / 5
        if nats < 1e-3:  # confusions of levels that no draw may show
            assert float(found.nats[:, place].mean()) < 1e-2
            continue
        for column, expected in ((found.nats[:, place], nats), (found.error[:, place], error)):
            spread = float(column.std()) / math.sqrt(len(column))
            assert abs(float(column.mean()) - expected) < 4 * spread + 0.02 * expected
        checked += 1
    assert checked >= 8


def test_positions_are_the_geometric_middles() -> None:
    assert strata_middles(2, 0.01, 100.0).tolist() == pytest.approx([0.1, 10.0])
    middles = strata_middles(32)
    assert float(middles[0]) > SIGMA_MIN and float(middles[-1]) < SIGMA_MAX


def test_an_image_does_not_depend_on_the_others() -> None:
    images, variance = source(6), 0.5
    generator = torch.Generator().manual_seed(2)
    whole = noise_level_profile(
        SOURCE.denoise, images, image_generators(6, generator), num_levels=4, prior_variance=variance
    )
    again = torch.Generator().manual_seed(2)
    parts = [
        noise_level_profile(SOURCE.denoise, x, image_generators(len(x), again), num_levels=4, prior_variance=variance)
        for x in images.split([2, 4])
    ]
    torch.testing.assert_close(whole.nats, torch.cat([p.nats for p in parts]))


@pytest.mark.parametrize("bad", [{"num_levels": 0}, {"sigma_min": 0.0}, {"sigma_max": 1e-4}, {"prior_variance": -1.0}])
def test_numbers_out_of_range_are_refused(bad: dict[str, float]) -> None:
    options = {"num_levels": 4, "prior_variance": 0.5} | bad
    with pytest.raises(ValueError, match=r"must be at least 1|need 0 < sigma_min"):
        noise_level_profile(SOURCE.denoise, source(2), generators(2), **options)
