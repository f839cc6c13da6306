"""What presets check before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

# Closed intervals of the fields that mean the same in every preset.
SHARED: dict[str, tuple[float, float]] = {
    "batch_size": (1, 1_000_000),
    "lr": (1e-8, 1.0),
    "ema_half_life": (1.0, 1e12),
    "label_dropout": (0.0, 1.0),
    "blocks": (1, 100),
}


def require(config: Any, **bounds: tuple[float, float]) -> None:
    """Raise ``ValueError`` for the first field outside its closed interval (least, most), shared or given."""
    shared = {name: interval for name, interval in SHARED.items() if hasattr(config, name)}
    for name, (least, most) in (shared | bounds).items():
        value = getattr(config, name)
        if not least <= value <= most:
            raise ValueError(f"model.{name} must lie in {least:g} to {most:g}, not {value}")


def require_multiple(config: Any, name: str, factor: int) -> None:
    """Raise ``ValueError`` unless a field is a positive multiple of ``factor``."""
    value = getattr(config, name)
    if value < factor or value % factor:
        raise ValueError(f"model.{name} must be a positive multiple of {factor}, not {value}")


def require_power_of_two(config: Any, name: str, least: int) -> None:
    """Raise ``ValueError`` unless a field is a power of two of at least ``least``."""
    value = getattr(config, name)
    if value < least or value & (value - 1):
        raise ValueError(f"model.{name} must be a power of two of at least {least}, not {value}")


Quantizer = Literal["fsq", "ema", "original", "rotation"]


@dataclass(frozen=True)
class CodeConfig:
    """Codes, both stages and their training: what all models of discrete codes have in common."""

    quantizer: Quantizer = "fsq"
    """Finite scalar, moving averages, that of the first VQ-VAE, or moving averages with a rotated gradient."""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Of fsq: quantisation levels per code dimension; the codebook size is their product."""
    codebook_size: int = 512
    """Of the other quantisers: number of codes ..."""
    codebook_dim: int = 16
    """... and their dimension,"""
    commitment: float = 0.25
    """weight of the term that keeps encodings near their codes,"""
    cosine: bool = False
    """and whether codes and encodings lie on the unit sphere."""
    downsample: int = 4
    """Pixels per code along each axis."""
    width: int = 32
    """Channels of the autoencoder."""
    autoencoder_share: float = 0.3
    """Share of the training budget that the autoencoder gets; the prior gets the rest."""
    prior_dim: int = 96
    prior_depth: int = 4
    batch_size: int = 32
    lr: float = 2e-3
    ema_half_life: float = 50_000.0
    """Half-life of the weight averages in images, ramped up from zero."""
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2 or max(self.levels) > 1000:
            raise ValueError(f"model.levels must be integers from 2 to 1000, not {self.levels}")
        require_power_of_two(self, "downsample", 2)
        require_multiple(self, "width", 8)
        require_multiple(self, "prior_dim", 32)
        require(self, autoencoder_share=(0.01, 0.99), prior_depth=(1, 100))
        require(self, codebook_size=(2, 65_536), codebook_dim=(1, 4096), commitment=(0.0, 100.0))


def codes_for_size(config: Any, image_size: int) -> Any:
    """A configuration of a model of codes for images of a size.

    Tiny ones keep 4 x 4 codes, and fewer of them to choose from, so that a batch holds several encodings for each.
    """
    small = {"downsample": 2, "codebook_size": 128, "levels": (8, 6, 5), "autoencoder_share": 0.25}
    return replace(config, **small) if image_size < 16 else config


Sampler = Literal["heun", "euler", "ddim", "ancestral", "dpmpp_2m", "churn", "consistency"]


@dataclass(frozen=True)
class DenoiserConfig:
    """What all members of the diffusion family have in common; a member is a subclass with defaults of its own."""

    width: int = 32
    """Channels at the highest resolution; doubled at each lower one."""
    blocks: int = 1
    """Residual blocks per resolution."""
    patch_size: int = 2
    """Pixel-unshuffle factor in front of the U-Net."""
    batch_size: int = 16
    lr: float = 2e-3
    ema_half_life: float = 50_000.0
    """Half-life of the weight average in images, ramped up from zero."""
    label_dropout: float = 0.1
    num_steps: int = 19
    """Steps of the sampler; those of heun and churn take two network evaluations but for the last."""
    sampler: Sampler = "dpmpp_2m"
    guidance_scale: float = 1.0
    """uncond + scale (cond - uncond); other than 0 and 1 it doubles the network evaluations."""

    def __post_init__(self) -> None:
        require_multiple(self, "width", 8)
        require_power_of_two(self, "patch_size", 1)
        require(self, num_steps=(1, 1000), guidance_scale=(0.0, 100.0))
        if hasattr(self, "augment"):
            require(self, augment=(0.0, 1.0))


@dataclass(frozen=True)
class AdversarialConfig:
    """What all adversarial models have in common."""

    latent_dim: int = 64
    width: int = 32
    """Channels at the highest resolution; doubled at each lower one."""
    batch_size: int = 32
    lr: float = 1.5e-3
    augment: Literal["none", "diffaugment", "ada"] = "none"
    """Of real and generated images alike, before the discriminator sees them."""
    augment_probability: float = 1.0
    """Share of images that diffaugment changes."""
    ada_images: float = 100_000.0
    """Images over which the probability of ada could go from 0 to 1; 500000 in its paper."""

    def __post_init__(self) -> None:
        require_multiple(self, "width", 8)
        require(self, latent_dim=(1, 100_000), augment_probability=(0.0, 1.0), ada_images=(1.0, 1e12))


def for_size(config: Any, image_size: int) -> Any:
    """A configuration of a denoiser for images of a size.

    Tiny ones are not unshuffled, there is nothing to save, and come in larger batches, which a step needs to be busy.
    """
    return replace(config, patch_size=1, batch_size=32) if image_size < 16 else config
