"""How two networks are trained against each other: alternating updates, and what is seen of them.

One step takes a batch apart into ``updates`` equal parts, one for each update of the discriminator, and then updates
the generator once on the last part, so that what a step costs is the same for every step. A member brings the two
objectives; augmentation, gradients, logits and diversity are the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.base import Stage, own_rows, to_float
from models.gan.adaptive import Augmentation
from models.gan.health import CollapseWatch, diversity, gradient_norm
from models.gan.recall import RecallWatch, recall_by_class


class AdversarialStage(Stage):
    """Alternating updates of a discriminator and of the generator ``network``.

    Args:
        network: z (B, latent_dim) and labels (B,) to images (B, C, H, W); has ``latent_dim``.
        discriminator: Images (B, C, H, W) and labels (B,) to logits (B,).
        augment: "none", "diffaugment" or "ada", of what the discriminator sees.
        augment_probability: Share of images that "diffaugment" changes.
        ada_images: Images over which the probability of "ada" could move from 0 to 1.
        updates: Of the discriminator in a step.
        **training: As of ``Stage``; ``batch_size`` images are one step's.
    """

    name = "adversarial"
    betas = (0.0, 0.9)  # of Adam

    def __init__(
        self, network: nn.Module, discriminator: nn.Module, *, augment: str = "none", augment_probability: float = 1.0,
        ada_images: float = 500_000.0, updates: int = 1, **training: Any,
    ) -> None:
        super().__init__(network, **training)
        self.automatic_optimization = False
        self.discriminator = discriminator
        self.augmentation = Augmentation(augment, probability=augment_probability, ada_images=ada_images)
        self.watch = CollapseWatch()
        self.recall_watch = RecallWatch()
        self.updates = updates

    @abstractmethod
    def discriminator_objective(self, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """What the discriminator minimises, of real and generated images (B, C, H, W) without gradients."""

    @abstractmethod
    def generator_objective(self, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """What the generator minimises, through generated images (B, C, H, W)."""

    def sureness(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Positive where a real image is taken for real, (B,): what "ada" watches.

        Where only differences of logits mean anything, as in relativistic and Wasserstein losses: D(real) - D(fake).
        """
        return real_logits - fake_logits

    def configure_optimizers(self) -> Any:
        """Adam for both networks."""
        return [
            torch.optim.Adam(
                [{"params": list(net.parameters()), "initial_lr": self.lr}], lr=self.lr, betas=self.betas, fused=True
            )
            for net in (self.network, self.discriminator)
        ]

    def generate(self, labels: Tensor) -> Tensor:
        """Images of classes (B,) from fresh latents."""
        z = own_rows(lambda n: torch.randn(n, self.network.latent_dim, device=labels.device), len(labels))
        return self.network(z, labels)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """``updates`` updates of the discriminator, then one of the generator."""
        g_optimizer, d_optimizer = self.optimizers()
        for real, labels in self.parts(to_float(batch["image"]), batch["label"]):
            with torch.no_grad():
                fake = self.generate(labels)
            self.update(d_optimizer, self.discriminator_objective(real, fake, labels), "d")
        self.discriminator.requires_grad_(False)
        fake = self.generate(labels)
        self.update(g_optimizer, self.generator_objective(real, fake, labels), "g")
        self.discriminator.requires_grad_(True)
        if not self.quiet:
            self.log("diversity", diversity(fake, real, labels))

    def parts(self, real: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Every so-manieth image and label, so that several processes take the same parts as one."""
        if len(real) % self.updates:
            raise ValueError(f"{len(real)} images of a process cannot be shared by {self.updates} updates a step")
        return [(real[i :: self.updates], labels[i :: self.updates]) for i in range(self.updates)]

    def update(self, optimizer: Any, loss: Tensor, network: str) -> None:
        """One step of one of the two, "d" or "g"."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        if not self.quiet:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self.log(f"{network}_grad_norm", gradient_norm(parameters))

    def observe(self, real_logits: Tensor, fake_logits: Tensor, **values: Tensor) -> None:
        """Keep what the discriminator says of real and generated images, (B,) each, and further ``values``."""
        real_logits, fake_logits = real_logits.detach(), fake_logits.detach()
        self.augmentation.observe(self.sureness(real_logits, fake_logits))
        if not self.quiet:
            real, fake = real_logits.mean(), fake_logits.mean()
            self.log_dict({"real_logit": real, "fake_logit": fake, "gap": real - fake} | values)
            if self.augmentation.kind != "none":
                self.log("augment_p", self.augmentation.p)

    def look(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """``recall_<class>`` of the averaged generator, and their mean and least (``models.gan.recall``)."""
        found = recall_by_class(self.ema.average, images, labels)
        self.recall_watch.seen(found, self.progress)
        values = list(found.values())
        summary = {"recall_mean": sum(values) / len(values), "recall_min": min(values)}
        return {f"recall_{label}": value for label, value in found.items()} | summary

    def trouble(self, values: Mapping[str, float]) -> str:
        return self.watch.seen(values["diversity"]) or self.recall_watch.reason()

    def finish(self) -> None:
        """Put in place the weights that are kept; ``ValueError`` if those that were trained are no numbers."""
        if not all(bool(p.isfinite().all()) for p in self.network.parameters()):
            raise ValueError(f"the generator's weights are not finite at the end of stage {self.name}")
        self.keep_weights()

    def keep_weights(self) -> None:
        """Put the averaged weights in place."""
        super().finish()


class UnaveragedStage(AdversarialStage):
    """Of a generator with batch normalisation, whose weights are kept as the last step leaves them.

    Running statistics are those of the weights that made them; an average of weights would need others.
    """

    def __init__(self, *networks: Any, **training: Any) -> None:
        super().__init__(*networks, ema_half_life=1.0, **training)  # the average is not used

    def keep_weights(self) -> None:
        """They are in place."""
