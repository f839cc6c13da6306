"""DCGAN and WGAN-GP: their networks, what a step does, and whose weights are sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.training import plan_stage, quiet_lightning
from models.flops import FlopCounter
from models.gan.convolutional import ConvDiscriminator, ConvGenerator
from models.gan.losses import interpolated_penalty, nonsaturating_d_loss, wasserstein_d_loss
from models.gan.stage import AdversarialStage
from tests.models.tiny import SHAPE, tiny_data, tiny_model, train_tiny

NORMALISED = ("dcgan", "wgan_gp")


def batch(n: int) -> dict[str, Tensor]:
    images, labels = tiny_data(n)
    return {"image": images, "label": labels}


def recorded(stage: AdversarialStage) -> tuple[list[str], dict[str, float]]:
    """Let a stage run outside a trainer: which network each update was of, and what was logged."""
    steps, logged = [], {}
    pair = stage.configure_optimizers()
    stage.optimizers = lambda: pair
    stage.manual_backward = lambda loss: loss.backward()
    stage.log = lambda name, value: logged.__setitem__(name, float(value.detach()))
    stage.log_dict = lambda values: [stage.log(*item) for item in values.items()]
    update = stage.update

    def noted(optimizer: Any, loss: Tensor, network: str) -> None:
        update(optimizer, loss, network)
        steps.append(network)

    stage.update = noted
    return steps, logged


@pytest.mark.parametrize(("side", "deepest"), [(8, 2), (16, 4), (28, 7), (32, 4), (64, 4)])
def test_networks_fit_the_image_size(side: int, deepest: int) -> None:
    generator = ConvGenerator((3, side, side), 5, latent_dim=8, width=8)
    z, labels = torch.randn(4, 8), torch.tensor([0, 1, 2, 4])
    images = generator(z, labels)
    assert generator.start[1:] == (deepest, deepest) and images.shape == (4, 3, side, side)
    assert images.abs().max() <= 1
    for normalise in (True, False):
        discriminator = ConvDiscriminator((3, side, side), 5, width=8, normalise=normalise)
        assert discriminator(images, labels).shape == (4,)
        assert any(isinstance(m, nn.BatchNorm2d) for m in discriminator.modules()) == normalise
    with pytest.raises(ValueError, match="divisible by 4, not 10x10"):
        ConvGenerator((1, 10, 10), 5, latent_dim=8, width=8)


def test_weights_begin_as_published() -> None:
    torch.manual_seed(0)
    generator = ConvGenerator((1, 32, 32), 5, latent_dim=64, width=32)
    for module in generator.modules():
        if isinstance(module, nn.ConvTranspose2d | nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert float(module.weight.detach().mean()) == pytest.approx(1, abs=0.02) and not module.bias.any()


def test_a_class_is_planes_beside_the_image() -> None:
    """Away from the borders the first layer sees a class as a bias of its own."""
    network = ConvDiscriminator((1, 16, 16), 3, width=8, normalise=False)
    x, seen = torch.randn(1, 1, 16, 16), []
    network.body[0].register_forward_hook(lambda module, given, out: seen.append(out.detach()))
    for label in (0, 2):
        network(x, torch.tensor([label]))
    difference = (seen[1] - seen[0])[0, :, 1:-1, 1:-1].flatten(1)
    weight = network.body[0].weight.detach()
    torch.testing.assert_close(difference, (weight[:, 3] - weight[:, 1]).sum((1, 2))[:, None].expand_as(difference),
                               rtol=0, atol=1e-5)  # fmt: skip


def test_the_objective_of_dcgan_by_hand() -> None:
    torch.manual_seed(0)
    (stage,) = tiny_model("dcgan").stages()
    _, logged = recorded(stage)
    real, fake, labels = torch.rand(8, *SHAPE) * 2 - 1, torch.rand(8, *SHAPE) * 2 - 1, torch.arange(8) % 3
    found = stage.discriminator_objective(real, fake, labels)
    expected = nonsaturating_d_loss(stage.discriminator(real, labels), stage.discriminator(fake, labels))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6) == logged["d_loss"]
    assert torch.equal(stage.sureness(torch.tensor([1.0]), torch.tensor([5.0])), torch.tensor([1.0]))


def test_the_objective_of_wgan_gp_by_hand() -> None:
    torch.manual_seed(0)
    (stage,) = tiny_model("wgan_gp").stages()
    _, logged = recorded(stage)
    real, fake, labels = torch.rand(8, *SHAPE) * 2 - 1, torch.rand(8, *SHAPE) * 2 - 1, torch.arange(8) % 3
    torch.manual_seed(1)
    found = stage.discriminator_objective(real, fake, labels)
    torch.manual_seed(1)
    weights, critic = torch.rand(8), stage.discriminator
    penalty = interpolated_penalty(lambda x: critic(x, labels), real, fake, weights)
    expected = wasserstein_d_loss(critic(real, labels), critic(fake, labels)) + 10 * penalty
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert logged["penalty"] == pytest.approx(float(penalty.detach()), rel=1e-6)


def test_the_critic_is_updated_more_often_on_parts_of_the_batch() -> None:
    (stage,) = tiny_model("wgan_gp", n_critic=5, batch_size=4).stages()
    steps, logged = recorded(stage)
    seen: list[Tensor] = []
    objective = stage.discriminator_objective
    stage.discriminator_objective = lambda real, *rest: seen.append(real.detach().clone()) or objective(real, *rest)
    given = batch(20)
    assert stage.batch_size == 20
    stage.training_step(given, 0)
    assert steps == ["d"] * 5 + ["g"] and {"d_loss", "g_loss", "penalty", "diversity", "gap"} <= set(logged)
    shown = ((torch.cat(seen) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(shown, torch.cat([given["image"][i::5] for i in range(5)]))
    with pytest.raises(ValueError, match="8 images of a process cannot be shared by 5 updates a step"):
        stage.training_step(batch(8), 0)


def test_a_quiet_step_logs_no_more_than_its_losses() -> None:
    """They go to ``Stage.log``, which is quiet itself; nothing else is computed."""
    (stage,) = tiny_model("dcgan").stages()
    _, logged = recorded(stage)
    stage.quiet = True
    stage.training_step(batch(8), 0)
    assert set(logged) == {"g_loss"}


def test_the_planned_step_is_all_updates_of_a_step() -> None:
    quiet_lightning()
    plans = {n: plan_stage(tiny_model("wgan_gp", n_critic=n).stages()[0], batch(40), 1e9) for n in (1, 2, 4)}
    assert [plan.batch_size for plan in plans.values()] == [8, 16, 32]
    critic = plans[2].step_flops - plans[1].step_flops
    assert critic > 0 and plans[4].step_flops == pytest.approx(plans[1].step_flops + 3 * critic)
    (stage,) = tiny_model("wgan_gp", n_critic=4).stages()
    recorded(stage)
    with FlopCounter() as counter:
        stage.training_step(batch(32), 0)
    assert counter.get_total_flops() == pytest.approx(plans[4].step_flops)


@pytest.mark.parametrize("name", NORMALISED)
def test_the_weights_of_the_last_step_are_sampled(name: str, tmp_path: Path) -> None:
    """Not their average, to which running statistics would not belong."""
    (stage,) = tiny_model(name).stages()
    before = {key: value.clone() for key, value in stage.network.state_dict().items()}
    for parameter in stage.ema.average.parameters():
        parameter.data.fill_(7.0)
    stage.finish()
    assert all(torch.equal(value, before[key]) for key, value in stage.network.state_dict().items())
    assert not tiny_model(name).averages_weights and tiny_model("gan").averages_weights
    trained = train_tiny(name, tmp_path, steps=6)
    assert int(trained["generator.body.0.num_batches_tracked"]) > 6
    assert not torch.equal(trained["generator.body.0.running_mean"], torch.zeros(16))


@pytest.mark.parametrize("name", NORMALISED)
def test_an_image_depends_on_its_own_latent_even_while_training(name: str) -> None:
    model = tiny_model(name).train()
    labels = torch.tensor([0, 1, 2, 0])
    together = model.sample(4, condition=labels, generator=torch.Generator().manual_seed(0)).images
    generator = torch.Generator().manual_seed(0)
    apart = [model.sample(1, condition=labels[i : i + 1], generator=generator).images for i in range(4)]
    assert (together.int() - torch.cat(apart).int()).abs().max() <= 1
    assert model.generator.training, "the mode is given back"
    assert int(model.generator.body[0].num_batches_tracked) == 0


def test_weights_that_are_no_numbers_are_not_kept() -> None:
    (stage,) = tiny_model("dcgan").stages()
    next(stage.network.parameters()).data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="the generator's weights are not finite at the end of stage adversarial"):
        stage.finish()


@pytest.mark.parametrize("name", ["gan", *NORMALISED])
@pytest.mark.parametrize("augment", ["diffaugment", "ada"])
def test_training_goes_on_with_augmentation(name: str, augment: str) -> None:
    (stage,) = tiny_model(name, augment=augment, ada_images=100.0).stages()
    _, logged = recorded(stage)
    for step in range(8):
        stage.training_step(batch(stage.batch_size), step)
    assert 0 <= logged["augment_p"] <= 1 and all(p.isfinite().all() for p in stage.network.parameters())
    assert "augmentation.p" in stage.state_dict()
