"""Noisy digits of 8x8 pixels drawn from a mixture of 1,000 templates: log p(x) is known exactly.

p(x) = 1/K sum_k prod_d pmf(x_d | template_kd). The templates are 20 training images of ``digits`` per
class, as they are and moved by a pixel to each side; the noise of a pixel is a logistic distribution
around its template's grey level, rounded to 0..255, the ends taking the tails (Salimans et al. 2017,
arXiv:1701.05517, Eq. 2, with one component). Its standard deviation is 14.5 grey levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from datamodules import digits
from datamodules.base import DatasetInfo, ImageDataset, Split

PER_CLASS = 20  # digits of a class that become templates
SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))  # rows and columns; what is left free is background
SCALE = 8.0  # of the logistic noise, grey levels
LEVELS = np.round(np.arange(17) * 255 / 16)  # the grey levels of the digits
SPLIT_SIZES = (10_000, 1_000, 2_000)  # train, validation, test
SEED = 20_240_602
ENTROPY_DRAWS = 20_000
BLOCK = 1_000  # images whose joint probabilities with all components are held at once

INFO = DatasetInfo(
    name="known_density", channels=1, image_size=8, num_classes=10, class_names=tuple("0123456789"), features="digits"
)


@dataclass(frozen=True)
class Config:
    """Nothing to set: another mixture would be another dataset."""


def locate(config: Config) -> str:
    """Where the data comes from, without loading it."""
    return "drawn from a mixture around scikit-learn's digits"


def discretised_logistic(means: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Log-probabilities of the levels 0..255 around each mean, (M,) -> (M, 256), nats; normalised for any mean."""
    edges = (np.arange(255) + 0.5 - means[:, None]) / scale
    below, above = -np.logaddexp(0, -edges), -np.logaddexp(0, edges)  # log F and log (1 - F) at the bins' edges
    # F(b) - F(a) = F(b) (1 - F(a)) (1 - exp(a - b)) for the logistic F: nothing cancels, however far the tail.
    inner = below[:, 1:] + above[:, :-1] + np.log1p(-np.exp(-1 / scale))
    return np.concatenate([below[:, :1], inner, above[:, -1:]], axis=1)


class TemplateMixture:
    """Equally probable components, pixels independent given the component; fulfils ``datamodules.base.Density``.

    Args:
        templates: Row of ``log_pmf`` at every pixel of every component, (K, C, H, W), no two components alike.
        log_pmf: Log-probabilities of the levels 0..255, nats, finite, (L, 256); every row is normalised.
    """

    def __init__(self, templates: NDArray[np.intp], log_pmf: NDArray[np.float64]) -> None:
        if len(np.unique(templates, axis=0)) < len(templates):
            raise ValueError("two components have the same template, so that their modes are one")
        if not np.isfinite(log_pmf).all() or np.abs(np.exp(log_pmf).sum(1) - 1).max() > 1e-12:
            raise ValueError("log_pmf must be finite and every row of exp(log_pmf) must add up to 1")
        self.num_modes = len(templates)
        self.weights = np.full(self.num_modes, 1 / self.num_modes)
        self.log_pmf = log_pmf
        self.image_shape = templates.shape[1:]
        self.templates = templates.reshape(self.num_modes, -1)
        self._one_hot = np.eye(len(log_pmf))[self.templates].reshape(self.num_modes, -1).T  # (D L, K)

    def _log_joint(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float64]]:
        """Blocks (n, K) of log p(k, x): a table look-up per pixel and level, then one matrix product."""
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images must be uint8 (N, {expected}), not {images.dtype} {images.shape}")
        for start in range(0, len(images), BLOCK):
            block = images[start : start + BLOCK]
            looked_up = self.log_pmf.T[block.reshape(len(block), -1)]  # (n, D, L)
            yield looked_up.reshape(len(block), -1) @ self._one_hot - np.log(self.num_modes)

    def log_prob(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Exact log p(x) in nats, (N,), of any uint8 images (N, C, H, W); ``ValueError`` for another shape."""
        return np.concatenate([np.zeros(0), *(np.logaddexp.reduce(j, axis=1) for j in self._log_joint(images))])

    def mode(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The component with the largest p(k | x), (N,), of any uint8 images (N, C, H, W)."""
        return np.concatenate([np.zeros(0, np.int64), *(j.argmax(1) for j in self._log_joint(images))])

    def entropy(self) -> tuple[float, float]:
        """Entropy in nats per image and its standard error; computed once."""
        return self._entropy

    @cached_property
    def _entropy(self) -> tuple[float, float]:
        """H(x) = H(k) + H(x | k) - H(k | x): the first two are exact, the last is a mean over draws and small."""
        per_level = -(np.exp(self.log_pmf) * self.log_pmf).sum(1)
        exact = np.log(self.num_modes) + per_level[self.templates].sum(1).mean()
        blocks = self._log_joint(self.sample(ENTROPY_DRAWS, SEED))
        posteriors = (joint - np.logaddexp.reduce(joint, axis=1, keepdims=True) for joint in blocks)
        unsure = np.concatenate([-(np.exp(p) * p).sum(1) for p in posteriors])  # H(k | x) of every draw
        return float(exact - unsure.mean()), float(unsure.std(ddof=1) / np.sqrt(len(unsure)))

    def sample(self, n: int, seed: int) -> NDArray[np.uint8]:
        """n independent draws, uint8 (n, C, H, W), from the uniform floats of PCG64."""
        rng = np.random.Generator(np.random.PCG64(seed))
        return self.draw((rng.random(n) * self.num_modes).astype(np.int64), rng)

    def draw(self, components: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
        """One image of each given component (N,), by the inverse of the distribution function."""
        uniform = rng.random((len(components), self.templates.shape[1]))
        levels, pixels = self.templates[components], np.empty(uniform.shape, np.uint8)
        for level, cumulative in enumerate(np.exp(self.log_pmf).cumsum(axis=1)):
            pixels[levels == level] = np.searchsorted(cumulative[:-1], uniform[levels == level], side="right")
        return pixels.reshape(-1, *self.image_shape)


def shifted_templates(train: Split) -> NDArray[np.intp]:
    """Grey levels 0..16 of the templates, (K, 1, 8, 8), sorted by class."""
    members = [np.flatnonzero(train.labels == label) for label in range(INFO.num_classes)]
    chosen = np.concatenate([rows[:: len(rows) // PER_CLASS][:PER_CLASS] for rows in members])
    levels = np.round(train.images[chosen] * (16 / 255)).astype(np.intp)
    padded = np.pad(levels, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moved = [padded[:, :, 1 - down : 9 - down, 1 - right : 9 - right] for down, right in SHIFTS]
    return np.stack(moved, axis=1).reshape(-1, *levels.shape[1:])


@lru_cache(maxsize=1)
def load(config: Config) -> ImageDataset:
    """The mixture and three sets of draws from it, made once per process; a label is its template's class.

    The classes take turns, so that every set has its share of each; the template within a class is random.
    """
    templates = shifted_templates(digits.load(digits.Config()).train)
    density = TemplateMixture(templates, discretised_logistic(LEVELS, SCALE))
    rng = np.random.Generator(np.random.PCG64(SEED))
    train, validation, test = (_draw_split(density, size, rng) for size in SPLIT_SIZES)
    return ImageDataset(INFO, train, validation, test, density)


def _draw_split(density: TemplateMixture, size: int, rng: np.random.Generator) -> Split:
    labels = np.arange(size, dtype=np.int64) % INFO.num_classes
    per_class = density.num_modes // INFO.num_classes
    components = labels * per_class + (rng.random(size) * per_class).astype(np.int64)
    return Split(density.draw(components, rng), labels)
