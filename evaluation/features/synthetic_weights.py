"""Inception weights drawn at random, in a file as torch-fidelity reads it: the real ones cannot be had offline.

He et al. 2015 (arXiv:1502.01852), Eq. 10: var = 2 / fan-in keeps the variance of activations through ReLU
layers. PyTorch's default (var = 1 / (3 fan-in)) lets it die out: features of order 1e-8, Fréchet distances of
1e-13, so that a comparison of two extractors compares nothing.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


class _Blank(FeatureExtractorInceptionV3):
    """torch-fidelity's constructor insists on weights; this one takes an empty file for an answer."""

    def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Keep what is there."""


def he_initialised_inception(path: Path, seed: int = 0) -> None:
    """Write random weights of torch-fidelity's Inception-v3; the same seed gives the same tensors."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    network = _Blank("inception-v3-compat", ["2048"], feature_extractor_weights_path=empty)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    torch.save(network.state_dict(), path)
