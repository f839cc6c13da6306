"""DDPM: a Markov chain of T = 1000 noising steps and the network that walks it back.

Ho et al. 2020 (arXiv:2006.11239): L_simple on x_t with a linear schedule. Nichol and Dhariwal 2021
(arXiv:2102.09672): cosine schedule, learned variances, and the bound itself or a hybrid as the objective.
Salimans and Ho 2022 (arXiv:2202.00512): prediction of v. The network takes x_t and t; for the family it is a
denoiser at any noise level, with t interpolated between the levels of the chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.base import LikelihoodBound, Stage, own_rows, to_uint8
from models.diffusion.chain_bound import Chain, chain_bound, log_variances, term
from models.diffusion.edm import per_image
from models.diffusion.family import DiffusionFamily
from models.diffusion.guidance import Threshold
from models.diffusion.network import NoiseConditionalUNet
from models.diffusion.parameterisation import from_x_0, sigma_from_alpha_bar, signal_and_noise, to_x_0
from models.diffusion.process import alpha_bars
from models.diffusion.samplers import beta_variance, posterior_variance, spread
from models.diffusion.stage import DenoisingStage

NUM_TIMESTEPS = 1000
VLB_WEIGHT = 1e-3  # of the bound in the hybrid objective; Nichol and Dhariwal 2021, Eq. 16
LEARNED = ("vlb", "hybrid")  # objectives that train the variances too


class ChainNetwork(NoiseConditionalUNet):
    """The U-Net with what turns its output into an estimate of x_0 and, where they are learned, variances."""

    sigmas: Tensor
    log_tilde: Tensor
    log_beta: Tensor

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, *, schedule: Any, prediction: Any, learned: bool,
        **network: Any,
    ) -> None:
        channels = image_shape[0] * (2 if learned else 1)
        super().__init__(image_shape, num_classes, out_channels=channels, **network)
        self.prediction, self.learned = prediction, learned
        sigmas = sigma_from_alpha_bar(alpha_bars(schedule, NUM_TIMESTEPS))
        log_tilde, log_beta = log_variances(sigmas)
        for name, values in {"sigmas": sigmas, "log_tilde": log_tilde, "log_beta": log_beta}.items():
            self.register_buffer(name, values, persistent=False)

    def time_of(self, sigma: Tensor) -> Tensor:
        """Fractional zero-based timestep of noise levels (B,), by interpolation of ln sigma, within the chain."""
        levels, wanted = self.sigmas.log(), sigma.double().log()
        above = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
        share = (wanted - levels[above - 1]) / (levels[above] - levels[above - 1])
        return above - 1 + share.clamp(0, 1)

    def forward(
        self, x: Tensor, sigma: Tensor, labels: Tensor, augmented: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Prediction and, if variances are learned, their share in [0, 1] between beta-tilde and beta.

        Args:
            x: x_sigma, (B, C, H, W).
            sigma: (B,).
            labels: int64 (B,).
            augmented: What was done to the images, (B, 3).
        """
        signal, _ = signal_and_noise(sigma)
        t = self.time_of(sigma).float() * (1000 / NUM_TIMESTEPS)
        output = super().forward((signal * x).float(), t, labels, augmented)
        if not self.learned:
            return output, None
        prediction, share = output.chunk(2, dim=1)
        return prediction, (share + 1) / 2

    def log_variance(self, t: Tensor, share: Tensor | None) -> Tensor:
        """log-variance of the step down from t (B,): between log beta-tilde and log beta; N. and D., Eq. 15."""
        tilde, beta = per_image(self.log_tilde[t]), per_image(self.log_beta[t])
        return tilde if share is None else share * beta + (1 - share) * tilde

    def chain(self, labels: Tensor) -> Chain:
        """The network as a chain for some labels."""

        def step(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            prediction, share = self(x, self.sigmas[t], labels)
            return to_x_0(prediction, x, self.sigmas[t], self.prediction), self.log_variance(t, share)

        return step


@dataclass(frozen=True)
class Seen:
    """What the network was shown, images noised to x = x_sigma at timesteps t, and what it said."""

    x_0: Tensor
    x: Tensor
    t: Tensor
    sigma: Tensor
    prediction: Tensor
    share: Tensor | None


class DDPMStage(DenoisingStage):
    """L_simple, the variational bound, or both; Ho et al. 2020, Eq. 14; Nichol and Dhariwal 2021, Eq. 16."""

    def __init__(self, network: ChainNetwork, *, objective: str, **options: Any) -> None:
        super().__init__(network, **options)
        self.objective = objective

    def loss(self, x_0: Tensor, labels: Tensor, eps: Tensor, augmented: Tensor | None) -> Tensor:
        t = own_rows(lambda n: draw_timesteps(n, x_0.device), len(x_0))
        seen = self.look(x_0, labels, eps, augmented, t)
        if self.objective == "vlb":
            return self.bound(seen)
        target = from_x_0(x_0, seen.x, seen.sigma, self.network.prediction)
        simple = (seen.prediction - target.float()).square().mean()
        if self.objective == "simple":
            return simple
        return simple + VLB_WEIGHT * self.bound(seen, fixed_mean=True)

    def look(self, x_0: Tensor, labels: Tensor, eps: Tensor, augmented: Tensor | None, t: Tensor) -> Seen:
        """Show the network a batch, noised to timesteps t (B,); one evaluation serves every objective."""
        sigma = self.network.sigmas[t]
        x = (x_0 + per_image(sigma) * eps).float()
        return Seen(x_0, x, t, sigma, *self.network(x, sigma, labels, augmented))

    def bound(self, seen: Seen, fixed_mean: bool = False) -> Tensor:
        """T times the term of the bound at t, in bits per dimension, whose mean over t is L_0 + ... + L_{T-1}.

        ``fixed_mean`` keeps its gradients off the prediction, as Nichol and Dhariwal do in the hybrid.
        """
        network, prediction = self.network, seen.prediction.detach() if fixed_mean else seen.prediction
        estimate = to_x_0(prediction, seen.x, seen.sigma, network.prediction)
        log_p = network.log_variance(seen.t, seen.share).expand_as(estimate)
        terms = term(estimate, log_p, to_uint8(seen.x_0), seen.t, network.sigmas)
        return (NUM_TIMESTEPS * terms / (math.prod(seen.x_0.shape[1:]) * math.log(2))).mean().float()


def draw_timesteps(n: int, device: torch.device) -> Tensor:
    """n stratified timesteps in random order, int64 (n,), each uniform over 0..T-1."""
    u = (torch.randperm(n, device=device) + torch.rand(n, device=device)) / n
    return (u * NUM_TIMESTEPS).long().clamp(max=NUM_TIMESTEPS - 1)


class DDPM(DiffusionFamily):
    """The discrete chain."""

    threshold: Threshold = "static"  # Ho et al. clip every estimate of x_0

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        width: int,
        blocks: int,
        patch_size: int,
        batch_size: int,
        lr: float,
        ema_half_life: float,
        label_dropout: float,
        augment: float,
        schedule: str,
        prediction: str,
        objective: str,
        num_steps: int,
        sampler: str,
        guidance_scale: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settle(ChainNetwork(
            image_shape, num_classes, schedule=schedule, prediction=prediction, learned=objective in LEARNED,
            width=width, blocks=blocks, patch_size=patch_size, augmented=augment > 0,
        ))

    def stages(self) -> list[Stage]:
        return [DDPMStage(self.denoiser, objective=self.hparams.objective, **self.stage_options())]

    def noise_levels(self, num_steps: int) -> Tensor:
        """Levels of the chain, evenly spread over its steps."""
        return spread(self.denoiser.sigmas.cpu(), num_steps)

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        prediction, self._share = self.denoiser(x, sigma, labels)
        return to_x_0(prediction, x, sigma, self.denoiser.prediction).to(x.dtype)

    def sampler_options(self, name: str) -> dict[str, Any]:
        return {"variance": self.step_variance} if name == "ancestral" and self.denoiser.learned else {}

    def step_variance(self, s: float, t: float) -> Tensor:
        """The learned variance of the step the denoiser was last asked for, on the scale of x_sigma."""
        assert self._share is not None, "variances are learned"
        tilde, beta = math.log(posterior_variance(s, t)), math.log(beta_variance(s, t))
        return (self._share * beta + (1 - self._share) * tilde).exp()

    def chain_bound(self, images: Tensor, generators: list[torch.Generator], num_terms: int) -> LikelihoodBound:
        """The bound of the chain itself, with its own variances and decoder."""
        return chain_bound(
            self.denoiser.chain(self.labels_or_null(len(images), None)), images, generators,
            sigmas=self.denoiser.sigmas, num_terms=min(num_terms, NUM_TIMESTEPS - 1),
            variance="learned" if self.denoiser.learned else "posterior",
        )


Model = DDPM
