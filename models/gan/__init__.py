"""Generative adversarial networks."""

from models.gan.model import GAN as Model

__all__ = ["Model"]
