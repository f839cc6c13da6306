"""The contract of every paradigm: how it samples, what likelihood it claims, how it is trained.

Outside a model, images are uint8 (N, C, H, W); inside, float32 in [-1, 1]. Quantisation happens
here and nowhere else. Training is an ordered list of stages; one runner
(``experiments.training``) trains any list, so no model has a loop of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.latents import Projection
from models.nets.ema import EMA


@dataclass(frozen=True)
class Samples:
    """Generated images, uint8 (n, C, H, W), with what they cost.

    ``nfe`` counts network evaluations per image; ``trajectory`` is uint8 (steps, n, C, H, W).
    """

    images: Tensor
    nfe: int
    trajectory: Tensor | None = None


@dataclass(frozen=True)
class LikelihoodBound:
    """Per-image lower bound on log p(x) in nats, float64 (N,), with the parts that add up to it.

    ``settings`` are the choices the number depends on; ``nfe`` float64 (N,) counts network evaluations. ``tried`` are
    bits/dim of validation images at every value of a setting among which one was chosen, by the setting's name.
    """

    log_likelihood: Tensor
    kind: str
    parts: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, float | str] = field(default_factory=dict)
    nfe: Tensor | None = None
    tried: dict[str, dict[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SelfCheck:
    """How a likelihood was checked, in one sentence with its figures, and whether it held."""

    text: str
    passed: bool


@dataclass(frozen=True)
class Setting:
    """One way to sample: ``options`` of ``sample``, the line of a sweep that it lies on (``series``), and where.

    ``x`` is None where the place is the number of network evaluations, which sampling itself reports.
    """

    series: str
    options: dict[str, float | str]
    x: float | None = None


@dataclass(frozen=True)
class Sweep:
    """Settings whose quality makes curves: what ``title`` names is varied along the axis ``label``, else nothing."""

    name: str
    title: str
    label: str
    log: bool
    settings: tuple[Setting, ...]


Asked = Mapping[str, Sequence[float | str]]
"""Values that a sweep is to go through, by the names of ``GenerativeModel.sweep_options``."""


@dataclass(frozen=True)
class Profile:
    """Where along an axis the nats of a likelihood lie, image by image.

    Row sums of ``nats`` float64 (N, L) and all ``parts`` float64 (N,) add up to -log p(x) of this ``kind``.
    ``positions`` float64 (L,) are the pieces' middles on the axis ``label``; ``error`` float64 (N, L) is what the
    model does wrong there, as ``error_label`` says.
    """

    kind: str
    label: str
    error_label: str
    positions: Tensor
    nats: Tensor
    error: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Reconstruction:
    """Images through a first stage and back, uint8 (N, C, H, W), and the codes on the way if they are discrete.

    ``indices`` int64 (N, T) lie in 0..codebook_size - 1 and are the ``grids`` (rows, columns), one after the other,
    each in raster order.
    """

    images: Tensor
    indices: Tensor | None = None
    grids: tuple[tuple[int, int], ...] = ()
    codebook_size: int = 0


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1], same shape, exact at both ends."""
    return images.to(torch.float32) / 127.5 - 1.0


def to_uint8(x: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255]; the exact inverse of ``to_float`` on its 256 values."""
    return (x * 127.5 + 128).clip(0, 255).to(torch.uint8)


def image_generators(n: int, generator: torch.Generator) -> list[torch.Generator]:
    """One generator per image, drawn in order from ``generator``.

    Drawing 8 at once or 4 and then 4 gives the same generators, so that a generated image
    depends on the seed and on its index only, not on the batch it happened to be in.
    """
    seeds = torch.randint(2**63 - 1, (n,), generator=generator, dtype=torch.int64).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def normal_noise(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Standard normal noise, float32 (len(generators), *shape), row i from generator i."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators])


def uniform_noise(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Uniform noise in [0, 1), float64 (len(generators), *shape), row i from generator i."""
    return torch.stack([torch.rand(shape, generator=g, dtype=torch.float64) for g in generators])


_ALONE = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """What runs inside sees this process only, however many work together."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def processes() -> tuple[int, int]:
    """Rank and number of the processes that share every batch; (0, 1) for one alone."""
    if _ALONE.get() or not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def own_rows(draw: Callable[[int], Tensor], n: int) -> Tensor:
    """This process's n rows of what ``draw(B)`` draws for the batch of all processes.

    Every process draws for the whole batch from the step's seed and keeps its part, so that an image
    meets the same noise however many processes there are.
    """
    rank, size = processes()
    return draw(n * size)[rank * n : (rank + 1) * n]


def rows_of_all(own: Tensor) -> Tensor:
    """The rows of all processes in the order of the batch, without gradients."""
    _, size = processes()
    if size == 1:
        return own
    parts = [torch.empty_like(own, device="cpu") for _ in range(size)]
    dist.all_gather(parts, own.detach().cpu().contiguous())
    return torch.cat(parts)


def warmup_cosine(progress: float, warmup: float = 0.02) -> float:
    """Learning-rate factor in [0, 1] at a fraction of the budget: linear up, then half a cosine down."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


class Stage(pl.LightningModule, ABC):
    """One trainable part of a model with its share of the training budget.

    A stage trains ``network``; its moving average replaces the weights when the stage ends.
    Frozen parts stay outside: ``precompute`` is how a stage asks them, once per training image.
    """

    name: str = "train"
    share: float = 1.0

    def __init__(self, network: nn.Module, *, batch_size: int, lr: float, ema_half_life: float) -> None:
        super().__init__()
        self.network = network
        self.ema = EMA(network, half_life=ema_half_life, batch_size=batch_size)
        self.batch_size = batch_size
        self.lr = lr
        self.progress = 0.0
        self.quiet = False

    def precompute(self, images: Tensor) -> dict[str, Tensor]:
        """What frozen parts make of uint8 images (N, C, H, W); joins the batch of every step."""
        return {}

    def set_progress(self, progress: float) -> None:
        """Move every schedule to a fraction of the stage's budget in [0, 1)."""
        self.progress = progress
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * warmup_cosine(progress)

    def log(self, *args: Any, **options: Any) -> None:
        """As Lightning's, with the mean over the processes that share the batch; nothing in a step that is ``quiet``.

        The log keeps some of many steps, and a number that nobody reads costs as much as one that is kept.
        """
        if not self.quiet:
            super().log(*args, **options | {"sync_dist": True})

    def look(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """What is worth measuring some twenty times in a training, by its name in the log; mostly nothing.

        It must draw from generators of its own and leave what is trained as it is. Its FLOPs are not counted: they
        train nothing.

        Args:
            images: All training images, uint8 (N, C, H, W).
            labels: Their classes, int64 (N,).
        """
        return {}

    def trouble(self, values: Mapping[str, float]) -> str:
        """Why training must stop, from all that the log keeps of a step, by name; empty if it need not."""
        return ""

    def configure_optimizers(self) -> Any:
        """AdamW with one fused step; ``set_progress`` owns the learning rate."""
        groups = [{"params": list(self.network.parameters()), "initial_lr": self.lr}]
        return torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)

    def finish(self) -> None:
        """Put the averaged weights in place."""
        self.ema.copy_to(self.network)


class GenerativeModel(pl.LightningModule, ABC):
    """Every paradigm, seen from outside."""

    image_shape: tuple[int, int, int]
    num_classes: int
    sampler: str = "direct"
    averages_weights: bool = True  # whether sampling runs a moving average of the trained weights
    has_trajectory: bool = False  # whether ``sample`` takes ``trajectory=True``
    likelihood_kinds: tuple[str, ...] = ()  # what ``log_likelihood_bound`` computes, the main one first
    slow_likelihood_kinds: tuple[str, ...] = ()  # those that need hundreds of evaluations an image
    likelihood_missing: str = ""  # the reason, where there is none
    sweep_options: tuple[str, ...] = ()  # what ``sweeps`` can be asked to vary

    def measure(self, images: Tensor) -> None:
        """Take from uint8 training images (N, C, H, W) what is not learned; called once, before training."""

    @abstractmethod
    def stages(self) -> list[Stage]:
        """The training stages in order; their shares of the budget add up to 1."""

    @abstractmethod
    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, **sampler_options: Any
    ) -> Samples:
        """Generate ``n`` images.

        Args:
            n: Number of images, at least 1.
            condition: Class labels, int64 (n,), or None for samples without a class.
            generator: CPU generator; each image depends on it and on its own index only.
            **sampler_options: What the paradigm's sampler takes.

        Raises:
            ValueError: if the labels have a wrong shape or range.
        """

    @abstractmethod
    def log_likelihood_bound(
        self, images: Tensor, *, generator: torch.Generator, kind: str | None = None
    ) -> LikelihoodBound | None:
        """Lower bound on log p(x), without labels, of uint8 images (N, C, H, W); None if there is none.

        Args:
            images: uint8 (N, C, H, W).
            generator: CPU generator; an image's bound depends on it and on its own index only.
            kind: One of ``likelihood_kinds`` (default: the first); another raises ``ValueError``.
        """

    def calibrate_likelihood(self, images: Tensor, *, generator: torch.Generator) -> None:
        """Choose what a likelihood needs beyond training, on validation images; most need nothing."""

    def check_likelihood(self, images: Tensor, *, kind: str, generator: torch.Generator) -> SelfCheck | None:
        """Check a kind of likelihood by means of its own on a few uint8 images; None if there is no such means."""
        return None

    def sweeps(self, asked: Asked) -> tuple[Sweep, ...]:
        """The curves that are worth measuring, through the values asked for or those of the paradigm; mostly none.

        Raises:
            ValueError: if something is asked for that there is not, or a value is out of range.
        """
        self.check_asked(asked)
        return ()

    def check_asked(self, asked: Asked) -> None:
        """Raise ``ValueError`` unless all that is asked for is one of ``sweep_options``."""
        odd = sorted(set(asked) - set(self.sweep_options))
        if odd:
            raise ValueError(f"there is no {odd[0]} to vary; allowed: {', '.join(self.sweep_options) or 'none'}")

    def profile(self, images: Tensor, *, generator: torch.Generator) -> Profile | None:
        """Where the nats of the main likelihood of uint8 images (N, C, H, W) lie; None if it has no axis to show.

        An image's profile depends on the generator and on its own index only.
        """
        return None

    def reconstruct(self, images: Tensor) -> Reconstruction | None:
        """uint8 images (N, C, H, W) as the first stage gives them back; None where there is no first stage.

        What it loses no prior over its codes can bring back.
        """
        return None

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the normal noise that an image starts from, where ``sample`` takes it as ``noise``."""
        return self.image_shape

    def project(
        self, images: Tensor, *, condition: Tensor | None = None, generator: torch.Generator
    ) -> Projection | None:
        """Latents of uint8 images (N, C, H, W), by their labels (N,) if given; None without a latent space to seek in.

        ``sample`` takes the latents as ``noise``. An image's depends on the generator and on its own index only.
        """
        return None

    def likelihood_kind(self, kind: str | None) -> str:
        """The kind asked for, the main one by default; ``ValueError`` names those that exist."""
        if kind is None and self.likelihood_kinds:
            return self.likelihood_kinds[0]
        if kind not in self.likelihood_kinds:
            allowed = ", ".join(self.likelihood_kinds) or "none"
            raise ValueError(f"unknown kind of likelihood {kind!r}; allowed: {allowed}")
        return kind

    def sampling_modules(self) -> list[nn.Module]:
        """The networks that sampling needs (their parameters are counted apart)."""
        return [self]

    def labels_or_null(self, n: int, condition: Tensor | None) -> Tensor:
        """Check labels (n,) and put the null class ``num_classes`` where none are given."""
        if n < 1:
            raise ValueError(f"the number of samples must be at least 1, not {n}")
        if condition is None:
            return torch.full((n,), self.num_classes, device=self.device)
        if condition.shape != (n,) or condition.dtype != torch.int64:
            shape = tuple(condition.shape)
            raise ValueError(f"labels must be int64 ({n},), not {condition.dtype} {shape}")
        if int(condition.min()) < 0 or int(condition.max()) >= self.num_classes:
            raise ValueError(f"labels must lie in 0..{self.num_classes - 1}, not {condition.tolist()}")
        return condition.to(self.device)

    def check_images(self, images: Tensor) -> None:
        """Raise ``ValueError`` unless images are uint8 and of the shape the model was built for."""
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.image_shape:
            expected = "x".join(map(str, self.image_shape))
            raise ValueError(f"images must be uint8 (N, {expected}), not {images.dtype} {tuple(images.shape)}")


def drop_labels(labels: Tensor, null: int, probability: float) -> Tensor:
    """Replace labels (B,) by the null class with a probability, so that p(x) is learned beside p(x|c)."""
    dropped = own_rows(lambda n: torch.rand(n, device=labels.device), len(labels)) < probability
    return torch.where(dropped, torch.full_like(labels, null), labels)
