"""Augmentation: mirrored and shifted images by hand, and a network that is told exactly what was done."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.diffusion.augment import MAX_SHIFT, NUM_DRAWS, TOLD, augment
from tests.models.tiny import SHAPE, randomised, tiny_data, tiny_model


def images(n: int, channels: int = 2, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(0))


def draws(n: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, NUM_DRAWS, generator=torch.Generator().manual_seed(seed))


def by_hand(image: np.ndarray, mirrored: bool, down: int, right: int) -> np.ndarray:
    """Mirrored by NumPy, then shifted pixel by pixel; what comes in repeats the border."""
    image = np.flip(image, -1) if mirrored else image
    height, width = image.shape[-2:]
    padded = np.pad(image, ((0, 0), (height, height), (width, width)), mode="edge")
    return np.roll(padded, (down, right), (-2, -1))[:, height : 2 * height, width : 2 * width]


def test_images_by_hand_from_what_is_told() -> None:
    """What the network is told identifies the change: it can be done again from it alone."""
    x_0, kinds = images(300), set()
    changed, told = augment(x_0, draws(300), 0.7)
    most = int(MAX_SHIFT * 16), int(MAX_SHIFT * 24)
    assert most == (2, 3) and told.shape == (300, TOLD) and told.dtype == x_0.dtype
    for i in range(300):
        mirrored, down, right = told[i].tolist()
        pixels = down * most[0], right * most[1]
        assert mirrored in (0, 1) and all(abs(p - round(p)) < 1e-5 for p in pixels)
        kinds.add((mirrored, round(pixels[0]), round(pixels[1])))
        # A mirror image of a shifted one is shifted the other way: either order has one of the two signs.
        expected = by_hand(x_0[i].numpy(), bool(mirrored), round(pixels[0]), round(pixels[1]))
        np.testing.assert_array_equal(changed[i].numpy(), expected)
    assert len(kinds) > 50, "both sides, five shifts down and seven right"


def test_probability_0_changes_nothing() -> None:
    changed, told = augment(images(20), draws(20), 0.0)
    assert torch.equal(changed, images(20)) and float(told.abs().max()) == 0


def test_probability_1_mirrors_half_and_shifts_all() -> None:
    n = 20_000
    _, told = augment(images(1).expand(n, -1, -1, -1), draws(n), 1.0)
    assert float(told[:, 0].mean()) == pytest.approx(0.5, abs=0.02)
    for column, most in ((1, 2), (2, 3)):
        values = (told[:, column] * most).round().long() + most
        shares = torch.bincount(values, minlength=2 * most + 1).double() / n
        assert len(shares) == 2 * most + 1 and float((shares - 1 / (2 * most + 1)).abs().max()) < 0.015
    assert abs(float(np.corrcoef(told.numpy().T)[np.triu_indices(3, 1)].max())) < 0.03


def test_the_probability_is_that_of_either_change() -> None:
    n = 20_000
    _, told = augment(images(1).expand(n, -1, -1, -1), draws(n), 0.3)
    mirrored, shifted = told[:, 0] > 0, (told[:, 1:] != 0).any(1)
    assert float(mirrored.float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float(shifted.float().mean()) == pytest.approx(0.3 * (1 - 1 / 35), abs=0.015)
    both = float((mirrored & shifted).float().mean())
    assert both == pytest.approx(float(mirrored.float().mean() * shifted.float().mean()), abs=0.01)


def test_small_images_and_rows_of_their_own() -> None:
    x_0, numbers = images(6, 1, 4, 4), draws(6)  # an eighth of four pixels is none
    changed, told = augment(x_0, numbers, 1.0)
    assert float(told[:, 1:].abs().max()) == 0
    for i in range(6):
        assert torch.equal(augment(x_0[i : i + 1], numbers[i : i + 1], 1.0)[0][0], changed[i])
    extremes = torch.tensor([[0.0] * 5, [1 - 2**-24] * 5])
    assert augment(images(2), extremes, 1.0)[1].tolist() == [[1, -1, -1], [0, 1, 1]]


def test_the_network_is_told_and_asked_for_unchanged_images() -> None:
    """Zeros and not being told are the same, anything else is not."""
    model = randomised(tiny_model("diffusion", augment=0.5))
    x, sigma, labels = torch.randn(2, *SHAPE), torch.ones(2), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        plain, zeros, told = (
            model.denoiser(x, sigma, labels, a) for a in (None, torch.zeros(2, TOLD), torch.tensor([[1.0, 0, 0]] * 2))
        )
    assert torch.equal(plain, zeros) and float((told - plain).abs().max()) > 1e-4


@pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")
@pytest.mark.parametrize("name", ["diffusion", "ddpm", "flow_matching"])
def test_training_steps_augment_and_tell(name: str) -> None:
    """The gradient reaches the layer that is told; without augmentation there is no such layer."""
    batch = dict(zip(("image", "label"), tiny_data(16), strict=True))
    stage = randomised(tiny_model(name, augment=0.9)).stages()[0]
    torch.manual_seed(0)
    stage.training_step(batch, 0).backward()
    assert float(stage.network.augment.weight.grad.abs().max()) > 0
    assert tiny_model(name, augment=0.0).denoiser.augment is None
