"""Diffusion models."""

from models.diffusion.model import Diffusion as Model

__all__ = ["Model"]
