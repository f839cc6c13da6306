"""Vector-quantised autoencoders with a prior."""

from models.vqvae.model import VQVAE as Model

__all__ = ["Model"]
