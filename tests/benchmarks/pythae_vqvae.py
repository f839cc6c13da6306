"""The VQ-VAE of pythae (0.1.2) and its samplers, built from plain options.

What is mended in its favour: a grid of codes is flattened for the samplers that take vectors only (GMM, MAF, IAF),
and a codebook of moving averages is put where PixelCNNSampler can look it up (as it is, that raises).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

IMAGE_SIZE, BATCH = 28, 500  # BATCH images are encoded at once


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights."""

    budget: float
    network: str
    num_embeddings: int
    latent_dim: int
    commitment: float
    quantization: float
    ema: bool
    ema_decay: float
    lr: float
    decay: str
    batch_size: int
    sampler: str
    sampler_share: float
    sampler_lr: float
    sampler_batch_size: int
    layers: int
    kernel: int
    components: int
    blocks: int
    hidden_layers: int
    hidden: int
    flow_norm: bool
    seed: int


FIRST = tuple(Recipe.__dataclass_fields__)[1:11]  # what of it decides the first stage, beside steps and seed


def vqvae_of(recipe: Recipe) -> Any:
    """Its VQ-VAE with its own networks for images of 28 x 28."""
    from pythae.models import VQVAE, VQVAEConfig
    from pythae.models.nn.benchmarks import mnist

    config = VQVAEConfig(
        input_dim=(1, IMAGE_SIZE, IMAGE_SIZE), latent_dim=recipe.latent_dim, num_embeddings=recipe.num_embeddings,
        commitment_loss_factor=recipe.commitment, quantization_loss_factor=recipe.quantization,
        use_ema=recipe.ema, decay=recipe.ema_decay,
    )
    if recipe.network == "conv":
        return VQVAE(config, mnist.Encoder_Conv_AE_MNIST(config), mnist.Decoder_Conv_AE_MNIST(config))
    return VQVAE(config, mnist.Encoder_ResNet_VQVAE_MNIST(config), mnist.Decoder_ResNet_VQVAE_MNIST(config))


def as_data(images: Tensor) -> Any:
    """uint8 images (B, 1, 28, 28) as its models take them, in [0, 1]."""
    from pythae.data.datasets import DatasetOutput

    return DatasetOutput(data=images.float() / 255)


class Flat(nn.Module):
    """A VQ-VAE whose embeddings are vectors: of a grid of codes (d, h, w), flattened, for the samplers that need it."""

    def __init__(self, vqvae: Any) -> None:
        super().__init__()
        self.vqvae = vqvae.eval()
        with torch.no_grad():
            self.shape = vqvae(as_data(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE))).z.shape[1:]
        self.model_config = SimpleNamespace(latent_dim=math.prod(self.shape))

    def forward(self, inputs: Any) -> Any:
        output = self.vqvae(inputs)
        return SimpleNamespace(z=output.z.flatten(1))

    def decoder(self, z: Tensor) -> Any:
        return self.vqvae.decoder(z.reshape(-1, *self.shape))


def with_table(vqvae: Any) -> Any:
    """The VQ-VAE with the codebook that PixelCNNSampler looks up, which the one of moving averages is not."""
    from pythae.models.vq_vae.vq_vae_utils import Quantizer, QuantizerEMA

    if isinstance(vqvae.quantizer, QuantizerEMA):
        codes, vqvae.quantizer = vqvae.quantizer.embeddings, Quantizer(vqvae.model_config)
        vqvae.quantizer.embeddings.weight.data.copy_(codes)
    return vqvae


def sampler_of(recipe: Recipe, vqvae: Any) -> Any:
    """Its sampler for a VQ-VAE, not fitted."""
    from pythae import samplers

    if recipe.sampler == "pixelcnn":
        pixelcnn = samplers.PixelCNNSamplerConfig(n_layers=recipe.layers, kernel_size=recipe.kernel)
        return samplers.PixelCNNSampler(with_table(vqvae), pixelcnn)
    if recipe.sampler == "gmm":
        mixture = samplers.GaussianMixtureSamplerConfig(n_components=recipe.components)
        return samplers.GaussianMixtureSampler(Flat(vqvae), mixture)
    kind = recipe.sampler.upper()
    flow = getattr(samplers, f"{kind}SamplerConfig")(
        n_made_blocks=recipe.blocks, n_hidden_in_made=recipe.hidden_layers, hidden_size=recipe.hidden,
        include_batch_norm=recipe.flow_norm,
    )
    return getattr(samplers, f"{kind}Sampler")(Flat(vqvae), flow)


def network_of(sampler: Any) -> nn.Module:
    """What of a sampler is trained by gradients; nothing of a mixture."""
    for name in ("pixelcnn_model", "flow_contained_model"):
        if hasattr(sampler, name):
            return getattr(sampler, name)
    return nn.Module()


@torch.no_grad()
def encode(recipe: Recipe, sampler: Any, images: Tensor) -> Tensor:
    """What its network is trained on, of uint8 images: codes (N, 1, h, w) or vectors, as floats."""
    name, parts = "quantized_indices" if recipe.sampler == "pixelcnn" else "z", images.split(BATCH)
    return torch.cat([getattr(sampler.model.eval()(as_data(part)), name).float() for part in parts])
