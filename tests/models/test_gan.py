"""R3GAN's objective by hand, its schedules, networks for all sizes, and who learns in which half-step."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from models.gan.convolutional import ConvGenerator
from models.gan.model import BETA_2, GAMMA_START, RelativisticStage, burn_in
from models.gan.networks import Discriminator, Generator, Pyramid, ResidualBlock, num_levels, scaled_conv
from tests.models.tiny import SHAPE, randomised, tiny_data, tiny_model

NETWORK = {"width": 8, "blocks": 1, "patch_size": 2}
TRAINING = {"batch_size": 8, "lr": 1e-2, "ema_half_life": 1000.0}


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def stage(**options: Any) -> RelativisticStage:
    torch.manual_seed(0)
    return RelativisticStage(
        randomised(Generator(SHAPE, 3, latent_dim=8, **NETWORK)), randomised(Discriminator(SHAPE, 3, **NETWORK)),
        r1_gamma=0.5, **TRAINING, **options,
    )  # fmt: skip


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.99, 1.0)])
def test_burn_in(progress: float, expected: float) -> None:
    assert burn_in(progress) == pytest.approx(expected)
    adversarial = stage()
    adversarial.progress = progress
    assert adversarial.gamma() == pytest.approx(0.5 * GAMMA_START ** (1 - expected))


@pytest.mark.parametrize(
    ("progress", "beta_2", "rate"),
    [(0.0, BETA_2[0], 0.0), (0.02, None, 1.0), (0.51, BETA_2[1], 0.5), (1.0, BETA_2[1], 0.0)],
)
def test_schedules_reach_both_optimisers(progress: float, beta_2: float | None, rate: float) -> None:
    adversarial = stage(augment="diffaugment", augment_probability=0.8)
    optimizers = adversarial.configure_optimizers()
    adversarial._trainer = SimpleNamespace(optimizers=optimizers)
    adversarial.set_progress(progress)
    for optimizer, network in zip(optimizers, (adversarial.network, adversarial.discriminator), strict=True):
        (group,) = optimizer.param_groups
        assert len(group["params"]) == len(list(network.parameters()))
        assert group["lr"] == pytest.approx(1e-2 * rate)
        assert group["betas"][0] == 0
        if beta_2 is not None:
            assert group["betas"][1] == pytest.approx(beta_2)
            assert adversarial.ema.half_life == pytest.approx(1000.0 * burn_in(progress))
            assert float(adversarial.augmentation.p) == pytest.approx(0.8 * burn_in(progress))


def detached(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


class Recorder(RelativisticStage):
    """Notes which network each half-step changed, and what the discriminator's gradients were."""

    def __init__(self) -> None:
        super().__init__(
            randomised(Generator(SHAPE, 3, latent_dim=8, **NETWORK)),
            randomised(Discriminator(SHAPE, 3, **NETWORK)), r1_gamma=0.5, **TRAINING,
        )  # fmt: skip
        self.half_steps: list[tuple[set[str], set[str]]] = []
        self.logged: dict[str, float] = {}
        self.pair = self.configure_optimizers()

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return self.pair

    def manual_backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def log(self, name: str, value: torch.Tensor) -> None:
        self.logged[name] = float(value.detach())

    def log_dict(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self.log(name, value)

    def update(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor, network: str) -> None:
        before = detached(self.network), detached(self.discriminator)
        super().update(optimizer, loss, network)
        if not self.half_steps:  # what the discriminator's own half-step left must stay as it is
            self.d_gradients = [p.grad.clone() for p in self.discriminator.parameters() if p.grad is not None]
        self.half_steps.append((changed(self.network, before[0]), changed(self.discriminator, before[1])))


def test_each_half_step_changes_one_network() -> None:
    torch.manual_seed(0)
    adversarial = Recorder()
    images, _ = tiny_data(8)
    adversarial.training_step({"image": images, "label": torch.arange(8) % 3}, 0)
    (d_step, g_step) = adversarial.half_steps
    constant = {"body.8.bias"}  # the same for both images of a pair, so it cancels
    assert not d_step[0] and d_step[1] >= set(adversarial.discriminator.state_dict()) - constant
    assert g_step == (set(adversarial.network.state_dict()), set())
    left = [p.grad for p in adversarial.discriminator.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(adversarial.d_gradients, left, strict=True))
    assert set(adversarial.logged) == {
        "d_loss", "g_loss", "r1", "r2", "gap", "real_logit", "fake_logit", "d_grad_norm", "g_grad_norm", "diversity",
    }  # fmt: skip
    logged = adversarial.logged
    assert logged["gap"] == pytest.approx(logged["real_logit"] - logged["fake_logit"], abs=1e-6)
    squares = sum(float(p.grad.square().sum()) for p in adversarial.discriminator.parameters() if p.grad is not None)
    assert logged["d_grad_norm"] == pytest.approx(math.sqrt(squares), rel=1e-5)
    assert all(p.requires_grad for p in adversarial.discriminator.parameters())


def test_the_discriminators_objective_by_hand() -> None:
    torch.manual_seed(0)
    adversarial = Recorder()
    adversarial.progress = 0.25
    images, labels = tiny_data(8)
    real = images.float() / 127.5 - 1
    fake = adversarial.generate(labels).detach()
    found = adversarial.discriminator_objective(real.clone(), fake.clone(), labels)
    total, network = 0.0, adversarial.discriminator
    for x in (real, fake):
        for i in range(8):
            one = x[i : i + 1].clone().requires_grad_()
            (slope,) = torch.autograd.grad(network(one, labels[i : i + 1]).sum(), one)
            total += 0.5 * math.sqrt(GAMMA_START) / 2 * float(slope.square().sum()) / 8
    gap = network(real, labels) - network(fake, labels)
    total += sum(softplus(-g) for g in gap.tolist()) / 8
    assert float(found.detach()) == pytest.approx(total, rel=1e-4)


def test_networks_start_as_identities_and_keep_the_variance() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 16, 6, 6)
    assert torch.equal(ResidualBlock(16, 4)(x), x)
    conv = scaled_conv(64, 64, 3)
    y = conv(nn.functional.leaky_relu(torch.randn(16, 64, 12, 12), 0.2))[..., 1:-1, 1:-1]
    assert float(y.detach().std()) == pytest.approx(1, rel=0.1)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm | nn.GroupNorm) for m in stage().modules())


def test_discriminator_uses_its_label() -> None:
    network = randomised(Discriminator(SHAPE, 3, **NETWORK))
    x = torch.randn(4, *SHAPE)
    one, other = (network(x, torch.full((4,), k)) for k in (0, 1))
    assert one.shape == (4,) and (one - other).abs().min() > 1e-5


@pytest.mark.parametrize(
    ("side", "patch", "levels", "deepest"),
    [(8, 1, 2, 4), (8, 2, 2, 2), (16, 2, 2, 4), (28, 2, 2, 7), (28, 1, 3, 7), (32, 2, 3, 4), (64, 2, 4, 4)],
)
def test_levels_follow_the_image_size(side: int, patch: int, levels: int, deepest: int) -> None:
    assert num_levels(side // patch, side // patch) == levels
    pyramid = Pyramid.of((3, side, side), 8, patch)
    assert pyramid.channels == tuple(8 * 2**level for level in range(levels))
    assert pyramid.deepest == (8 * 2 ** (levels - 1), deepest, deepest)
    options = {"width": 8, "blocks": 2, "patch_size": patch}
    generator = Generator((3, side, side), 3, latent_dim=8, **options)
    discriminator = Discriminator((3, side, side), 3, **options)
    labels = torch.tensor([0, 2])
    images = generator(100 * torch.randn(2, 8), labels)
    assert images.shape == (2, 3, side, side) and images.abs().max() <= 1
    assert discriminator(images, labels).shape == (2,)
    for network in (generator, discriminator):
        assert sum(isinstance(m, ResidualBlock) for m in network.modules()) == 2 * levels


@pytest.mark.parametrize(("kind", "network"), [("convolutional", ConvGenerator), ("residual", Generator)])
def test_either_generator(kind: str, network: type[nn.Module]) -> None:
    """Each has a width that is not the discriminator's."""
    model = tiny_model("gan", generator=kind, width=16, discriminator_width=8)
    assert isinstance(model.generator, network) and model.generator.start[0] == 32
    assert model.discriminator.embed_dim == 16


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 4, not 10x10"):
        Generator((1, 10, 10), 3, latent_dim=8, **NETWORK)
