"""The GANs of torchgan (0.1.0) and torch-mimicry (0.1.16) for images of 32 x 32, built and trained from plain options.

torchgan: DCGANs with the losses and the recipe of its first tutorial, MNIST at 32 x 32. mimicry: residual networks with
the recipe its README gives for 32 x 32. A step is theirs too: torchgan's ``train_ops`` in the order of its trainer,
mimicry's ``train_step``. Images of 28 x 28 get a frame of two black pixels, which generated ones lose again.
What is mended: mimicry's metrics, which its package imports first, need TensorFlow and are left out; its networks know
colours only, so they get grey three times, and the three channels of a generated image are averaged.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_CLASSES, SIZE, FRAME = 10, 32, 2
CPU = torch.device("cpu")

Batch = tuple[Tensor, Tensor]  # images (B, 1, 28, 28) in [-1, 1] and labels (B,)


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights."""

    budget: float
    implementation: str
    model: str
    width: int
    width_ratio: float
    latent_dim: int
    lr: float
    lr_ratio: float
    beta_1: float
    beta_2: float
    decay: str
    critic_steps: int
    batch_size: int
    seed: int

    @property
    def discriminator_width(self) -> int:
        return max(1, round(self.width * self.width_ratio))


# What the packages' own recipes say; the ratios are the discriminator's over the generator's.
OWN: dict[str, dict[str, Any]] = {
    "torchgan": {
        "model": "dcgan", "width": 32, "width_ratio": 1.0, "latent_dim": 100, "lr": 1e-4, "lr_ratio": 3.0,
        "beta_1": 0.5, "beta_2": 0.999, "decay": "none", "critic_steps": 1, "batch_size": 64,
    },
    "mimicry": {
        "model": "sngan", "width": 256, "width_ratio": 0.5, "latent_dim": 128, "lr": 2e-4, "lr_ratio": 1.0,
        "beta_1": 0.0, "beta_2": 0.9, "decay": "linear", "critic_steps": 5, "batch_size": 64,
    },
}  # fmt: skip
MODELS = {"torchgan": ("dcgan", "lsgan", "wgan_gp", "cgan"), "mimicry": ("sngan", "wgan_gp", "dcgan", "cgan_pd")}
CONDITIONAL = ("cgan", "cgan_pd")


class Peer(ABC):
    """Two networks, their optimisers and what a step of their package does."""

    def __init__(self, recipe: Recipe, generator: nn.Module, discriminator: nn.Module) -> None:
        self.recipe, self.conditional = recipe, recipe.model in CONDITIONAL
        self.generator, self.discriminator = (  # the order of memory changes no operation
            network.to(memory_format=torch.channels_last) for network in (generator, discriminator)
        )
        self.rates = (recipe.lr, recipe.lr * recipe.lr_ratio)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=lr, betas=(recipe.beta_1, recipe.beta_2))
            for network, lr in zip((self.generator, self.discriminator), self.rates, strict=True)
        ]

    @abstractmethod
    def step(self, batches: list[Batch]) -> tuple[float, float]:
        """One update of the generator and one of the discriminator for every batch; the last losses of both."""

    def state(self) -> dict[str, Any]:
        """All that training changes."""
        parts = (self.generator, self.discriminator, *self.optimizers)
        names = ("generator", "discriminator", "generator optimizer", "discriminator optimizer")
        return dict(zip(names, (part.state_dict() for part in parts), strict=True))

    def load(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` gave."""
        for part, values in zip((self.generator, self.discriminator, *self.optimizers), state.values(), strict=True):
            part.load_state_dict(values)

    def set_rates(self, factor: float) -> None:
        """Learn with this share of the rates."""
        for optimizer, lr in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = lr * factor

    def draw(self, labels: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) in [-1, 1], of these classes (B,) where the model knows classes."""
        z = torch.randn(len(labels), self.recipe.latent_dim)
        images = self.generator(z, labels) if self.conditional else self.generator(z)
        return images.mean(1, keepdim=True)[:, :, FRAME:-FRAME, FRAME:-FRAME]


def framed(images: Tensor) -> Tensor:
    """Images (B, C, 28, 28) in [-1, 1] inside a black frame, (B, C, 32, 32)."""
    return F.pad(images, (FRAME,) * 4, value=-1.0)


def peer_of(recipe: Recipe) -> Peer:
    """The networks of a recipe with fresh weights."""
    return TorchganPeer(recipe) if recipe.implementation == "torchgan" else MimicryPeer(recipe)


# torchgan.

TORCHGAN_LOSSES = {
    "dcgan": ("MinimaxGeneratorLoss", "MinimaxDiscriminatorLoss"),
    "lsgan": ("LeastSquaresGeneratorLoss", "LeastSquaresDiscriminatorLoss"),
    "cgan": ("LeastSquaresGeneratorLoss", "LeastSquaresDiscriminatorLoss"),
    "wgan_gp": ("WassersteinGeneratorLoss", "WassersteinDiscriminatorLoss", "WassersteinGradientPenalty"),
}


class TorchganPeer(Peer):
    """Its gradient penalty is of the norm of a whole batch's gradient, in an update of its own."""

    def __init__(self, recipe: Recipe) -> None:
        from torchgan import losses, models

        kind = "ConditionalGAN" if recipe.model in CONDITIONAL else "DCGAN"
        classes = {"num_classes": NUM_CLASSES} if recipe.model in CONDITIONAL else {}
        last = nn.Tanh() if recipe.model in CONDITIONAL else nn.LeakyReLU(0.2)
        generator = getattr(models, f"{kind}Generator")(
            **classes, encoding_dims=recipe.latent_dim, out_size=SIZE, out_channels=1, step_channels=recipe.width,
            nonlinearity=nn.LeakyReLU(0.2), last_nonlinearity=nn.Tanh(),
        )
        discriminator = getattr(models, f"{kind}Discriminator")(
            **classes, in_size=SIZE, in_channels=1, step_channels=recipe.discriminator_width,
            nonlinearity=nn.LeakyReLU(0.2), last_nonlinearity=last,
        )
        super().__init__(recipe, generator, discriminator)
        self.g_loss, *self.d_losses = [getattr(losses, name)() for name in TORCHGAN_LOSSES[recipe.model]]

    def step(self, batches: list[Batch]) -> tuple[float, float]:
        g_optimizer, d_optimizer = self.optimizers
        networks, first = (self.generator, self.discriminator), batches[0]
        g_loss = self.g_loss.train_ops(*networks, g_optimizer, CPU, len(first[0]), first[1])
        for images, labels in batches:
            found = [loss.train_ops(*networks, d_optimizer, framed(images), CPU, labels) for loss in self.d_losses]
        return g_loss, sum(found)


# mimicry.


def mimicry_part(name: str) -> Any:
    """A module of torch_mimicry by its name there; the packages around it are not run, what they import is missing."""
    for package in ("torch_mimicry", "torch_mimicry.training"):
        if package not in sys.modules:
            spec = importlib.util.find_spec(package)
            if spec is None:
                raise SystemExit("mimicry needs its package: pip install --no-deps torch-mimicry")
            sys.modules[package] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"torch_mimicry.{name}")


def grey(generator: Any) -> Any:
    """A generator's class, the three channels of whose images are their mean."""

    class Grey(generator):
        def forward(self, *args: Any) -> Tensor:
            return super().forward(*args).mean(1, keepdim=True).repeat(1, 3, 1, 1)

    return Grey


class MimicryPeer(Peer):
    """Residual networks; spectral normalisation in ``sngan`` and ``cgan_pd``, none in the critic of ``wgan_gp``."""

    def __init__(self, recipe: Recipe) -> None:
        nets = mimicry_part(f"nets.{recipe.model}.{recipe.model}_32")
        name = {"wgan_gp": "WGANGP", "cgan_pd": "CGANPD"}.get(recipe.model, recipe.model.upper())
        classes = {"num_classes": NUM_CLASSES} if recipe.model in CONDITIONAL else {}
        generator = grey(getattr(nets, f"{name}Generator32"))(**classes, nz=recipe.latent_dim, ngf=recipe.width)
        discriminator = getattr(nets, f"{name}Discriminator32")(**classes, ndf=recipe.discriminator_width)
        super().__init__(recipe, generator, discriminator)
        self.log = mimicry_part("training.metric_log").MetricLog()

    def step(self, batches: list[Batch]) -> tuple[float, float]:
        (g_optimizer, d_optimizer), options = self.optimizers, {"log_data": self.log, "device": CPU}
        real = [(framed(images).repeat(1, 3, 1, 1), labels) for images, labels in batches]
        self.generator.train_step(real_batch=real[0], netD=self.discriminator, optG=g_optimizer, **options)
        for batch in real:
            self.discriminator.train_step(real_batch=batch, netG=self.generator, optD=d_optimizer, **options)
        return self.log.metrics_dict["errG"]["value"], self.log.metrics_dict["errD"]["value"]
