"""GAN: a generator and a discriminator play against each other; one evaluation makes an image.

R3GAN, Huang et al. 2024 (arXiv:2501.05441): relativistic pairing loss with R1 and R2 at every
step, Adam with beta_1 = 0; learning rate, gamma and beta_2 move with the budget (their Table 5).
Its likelihood is that of a stated observation model around the generator (``models.gan.likelihood``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from models.base import (
    GenerativeModel,
    LikelihoodBound,
    Samples,
    SelfCheck,
    Stage,
    image_generators,
    normal_noise,
    own_rows,
    to_float,
    to_uint8,
)
from models.gan.likelihood import (
    CHAINS,
    LEAPFROG_STEPS,
    TEMPERATURES,
    Calibration,
    Density,
    calibrate,
    estimate,
    evaluations_per_image,
    sandwich,
)
from models.gan.losses import discriminator_loss, generator_loss, gradient_penalty
from models.gan.networks import Discriminator, Generator

BURN_IN = 0.5  # fraction of the budget over which gamma and beta_2 move
GAMMA_START = 10.0  # gamma begins this many times higher than it ends
BETA_2 = (0.9, 0.99)
CHECKED_IMAGES = 8
MAX_GAP = 0.1  # bits/dim between the sandwich's bounds above which the estimate is not trusted


def burn_in(progress: float) -> float:
    """Cosine from 0 to 1 over the first ``BURN_IN`` of the budget."""
    return 0.5 * (1 - math.cos(math.pi * min(progress / BURN_IN, 1.0)))


class AdversarialStage(Stage):
    """Alternating updates; the averaged generator is what is kept."""

    name = "adversarial"

    def __init__(self, network: Generator, discriminator: Discriminator, *, r1_gamma: float, **training: Any) -> None:
        super().__init__(network, **training)
        self.automatic_optimization = False
        self.discriminator = discriminator
        self.r1_gamma = r1_gamma

    def configure_optimizers(self) -> Any:
        """Adam without momentum for both networks."""
        return [
            torch.optim.Adam(
                [{"params": list(net.parameters()), "initial_lr": self.lr}], lr=self.lr, betas=(0.0, BETA_2[0]),
                fused=True,
            )
            for net in (self.network, self.discriminator)
        ]

    def set_progress(self, progress: float) -> None:
        super().set_progress(progress)
        beta_2 = BETA_2[0] + burn_in(progress) * (BETA_2[1] - BETA_2[0])
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["betas"] = (0.0, beta_2)

    def gamma(self) -> float:
        """Weight of R1 and R2 now, from GAMMA_START * r1_gamma down to r1_gamma (geometric)."""
        return self.r1_gamma * GAMMA_START ** (1 - burn_in(self.progress))

    def generate(self, labels: Tensor) -> Tensor:
        latent_dim = self.network.label.embedding_dim
        z = own_rows(lambda n: torch.randn(n, latent_dim, device=labels.device), len(labels))
        return self.network(z, labels)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, labels = to_float(batch["image"]), batch["label"]
        g_optimizer, d_optimizer = self.optimizers()
        self.update(d_optimizer, self.discriminator_objective(real, labels))
        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            real_logits = self.discriminator(real, labels)
        g_loss = generator_loss(real_logits, self.discriminator(self.generate(labels), labels))
        self.update(g_optimizer, g_loss)
        self.discriminator.requires_grad_(True)
        self.log("g_loss", g_loss)

    def discriminator_objective(self, real: Tensor, labels: Tensor) -> Tensor:
        """Relativistic loss + gamma / 2 (R1 + R2); Eq. 5."""
        with torch.no_grad():
            fake = self.generate(labels)
        real, fake = real.requires_grad_(), fake.requires_grad_()
        real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
        loss = discriminator_loss(real_logits, fake_logits)
        r1, r2 = gradient_penalty(real_logits, real), gradient_penalty(fake_logits, fake)
        self.log_dict({"d_loss": loss, "r1": r1, "r2": r2, "gap": (real_logits - fake_logits).mean()})
        return loss + self.gamma() / 2 * (r1 + r2)

    def update(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class GAN(GenerativeModel):
    """Class-conditional R3GAN."""

    likelihood_kinds = ("ais",)
    slow_likelihood_kinds = ("ais",)
    sampler = "one generator evaluation"

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        latent_dim: int,
        width: int,
        blocks: int,
        patch_size: int,
        batch_size: int,
        lr: float,
        r1_gamma: float,
        ema_half_life: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.calibration = Calibration()
        shape = {"width": width, "blocks": blocks, "patch_size": patch_size}
        self.generator = Generator(image_shape, num_classes, latent_dim=latent_dim, **shape).to(
            memory_format=torch.channels_last
        )
        self.discriminator = Discriminator(image_shape, num_classes, **shape).to(memory_format=torch.channels_last)

    def stages(self) -> list[Stage]:
        h = self.hparams
        return [
            AdversarialStage(
                self.generator, self.discriminator, r1_gamma=h.r1_gamma,
                batch_size=h.batch_size, lr=h.lr, ema_half_life=h.ema_half_life,
            )
        ]

    def sampling_modules(self) -> list[nn.Module]:
        return [self.generator]

    @torch.inference_mode()
    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator) -> Samples:
        """Contract of ``GenerativeModel.sample``; without labels, classes are drawn uniformly."""
        labels = self.labels_or_null(n, condition)
        noise = image_generators(n, generator)
        z = normal_noise((self.hparams.latent_dim,), noise).to(self.device)
        drawn = torch.stack([torch.randint(self.num_classes, (), generator=g) for g in noise]).to(self.device)
        labels = torch.where(labels == self.num_classes, drawn, labels)
        return Samples(to_uint8(self.generator(z, labels)), nfe=1)

    def density(self) -> Density:
        """The generator with the observation noise that is in force."""
        return Density(
            self.generator, self.hparams.latent_dim, self.num_classes, self.calibration.sigma, self.device
        )

    def calibrate_likelihood(self, images: Tensor, *, generator: torch.Generator) -> None:
        """Choose the observation noise on uint8 validation images (N, C, H, W), the first few of them."""
        self.check_images(images)
        with torch.inference_mode(False), torch.enable_grad():
            self.calibration = calibrate(self.density(), images.clone(), generator)

    def log_likelihood_bound(
        self, images: Tensor, *, generator: torch.Generator, kind: str | None = None
    ) -> LikelihoodBound:
        """Annealed importance sampling under a discretised Gaussian observation model, classes summed out.

        Contract of ``GenerativeModel.log_likelihood_bound``; the bound is stochastic: it holds on average.
        """
        kind = self.likelihood_kind(kind)
        self.check_images(images)
        with torch.inference_mode(False), torch.enable_grad():
            found = estimate(self.density(), images.clone(), image_generators(len(images), generator))
        settings: dict[str, float | str] = {
            "chains": CHAINS, "temperatures": TEMPERATURES, "leapfrog steps": LEAPFROG_STEPS,
            "acceptance": float(found.acceptance.mean()),
        }  # fmt: skip
        nfe = torch.full((len(images),), float(evaluations_per_image(self.num_classes)), dtype=torch.float64)
        return LikelihoodBound(
            found.log_likelihood, kind, {kind: found.log_likelihood}, self.calibration.settings() | settings, nfe
        )

    def check_likelihood(self, images: Tensor, *, kind: str, generator: torch.Generator) -> SelfCheck:
        """Bidirectional Monte Carlo on images simulated from the model itself; those given are not looked at."""
        self.likelihood_kind(kind)
        with torch.inference_mode(False), torch.enable_grad():
            found = sandwich(self.density(), CHECKED_IMAGES, generator)
        nats = math.prod(self.image_shape) * math.log(2)
        low, high = (-float(bound.mean()) / nats for bound in (found.upper, found.lower))
        text = (
            f"BDMC on {CHECKED_IMAGES} simulated images: between {low:.4f} and {high:.4f} bits/dim, "
            f"gap {found.gap:.2f} ± {found.error:.2f} nats ({found.gap / nats:.4f} bits/dim, at most {MAX_GAP} allowed)"
        )
        return SelfCheck(text, -3 * found.error <= found.gap <= MAX_GAP * nats)
