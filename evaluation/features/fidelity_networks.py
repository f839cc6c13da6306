"""torch-fidelity's networks (Obukhov et al., v0.4.0) behind our interface: Inception-v3, VGG-16, CLIP.

Each is handed the path of its own weights, so that one network's can never land in another (as they do in
torch-fidelity when ``fid`` and ``prc`` share ``feature_extractor_weights_path``). Its batching, caches and
conditional generators are not used. All of them resize on TensorFlow 1's bilinear grid without antialiasing.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from evaluation.features.catalog import CLIP, INCEPTION, ExtractorError
from evaluation.features.network import PhotographNetwork, Seen


class FidelityNetwork(PhotographNetwork):
    """A torch-fidelity extractor; ``layers`` names its features and, where it has a classifier, its logits."""

    def __init__(self, network: FeatureExtractorBase, size: int) -> None:
        super().__init__()
        self.network = network
        self.resize = f"{size}x{size} bilinear, TensorFlow 1 grid"
        self.num_features = self.look(self.example()).features.shape[1]

    @torch.inference_mode()
    def look_rgb(self, images: Tensor) -> Seen:
        """Features and logits of uint8 images (B, 3, H, W)."""
        found = self.network(images)
        return Seen(found[0], found[1] if len(found) > 1 else None)


def load_network(name: str, weights: Path) -> FidelityNetwork:
    """torch-fidelity's network of our name; ``ExtractorError`` if the file holds other weights."""
    try:
        if name in CLIP:  # a TorchScript archive, nothing of which is unpickled as Python
            network = FeatureExtractorCLIP(name, ["clip"], str(weights))
            return FidelityNetwork(network, network.resolution)
        torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity itself would unpickle anything
        if name == INCEPTION:
            # Unbiased logits are what torch-fidelity's inception score uses.
            inception = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(weights))
            return FidelityNetwork(inception, inception.INPUT_IMAGE_SIZE)
        vgg = FeatureExtractorVGG16("vgg16", ["fc2_relu"], str(weights))
        return FidelityNetwork(vgg, vgg.INPUT_IMAGE_SIZE)
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ExtractorError(f"{weights} does not hold weights of {name!r}: {reason}") from None
