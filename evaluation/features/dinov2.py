"""DINOv2's vision transformers (Oquab et al. 2023, arXiv:2304.07193), patches of 14 pixels, class token as features.

torch-fidelity fetches the network's code from the network through torch hub each time and takes no file of
weights; this one runs the published weights offline. Resize and normalisation are torch-fidelity's. Position
embeddings, learned on 37x37 patches, are shrunk to 16x16 as in the published code, whose 0.1 patches of offset
shift them a little.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.transforms.functional import normalize

from evaluation.features.catalog import ExtractorError
from evaluation.features.network import PhotographNetwork, Seen

SIZE, PATCH, LEARNED_GRID = 224, 14, 37
GRID = SIZE // PATCH
MEAN, STD = [255 * m for m in (0.485, 0.456, 0.406)], [255 * s for s in (0.229, 0.224, 0.225)]
# width, depth, heads, whether the feed-forward layers are gated
SIZES = {
    "dinov2-vit-s-14": (384, 12, 6, False),
    "dinov2-vit-b-14": (768, 12, 12, False),
    "dinov2-vit-l-14": (1024, 24, 16, False),
    "dinov2-vit-g-14": (1536, 40, 24, True),
}


class Attention(nn.Module):
    """Self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, tokens, d) each
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same."""
        return self.fc2(F.gelu(self.fc1(x)))


class GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202), two thirds as wide, rounded up to a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = (4 * width * 2 // 3 + 7) // 8 * 8
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same."""
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class Scale(nn.Module):
    """One learned factor per channel (LayerScale, arXiv:2103.17239)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and feed-forward layers on normalised input, scaled, added."""

    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width, eps=1e-6), Attention(width, heads), Scale(width)
        self.norm2, self.ls2 = nn.LayerNorm(width, eps=1e-6), Scale(width)
        self.mlp = GatedFeedForward(width) if gated else FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DinoV2(PhotographNetwork):
    """A DINOv2 transformer; parameters are named as in the published files."""

    resize = f"{SIZE}x{SIZE} bilinear, TensorFlow 1 grid"

    def __init__(self, width: int, depth: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.num_features = width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + LEARNED_GRID**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of pretraining; in the files
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(Block(width, heads, gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self) -> Tensor:
        """Position embeddings of the 16x16 patches, (1, 256, width)."""
        learned = self.pos_embed[:, 1:].unflatten(1, (LEARNED_GRID, LEARNED_GRID)).permute(0, 3, 1, 2)
        factor = (GRID + 0.1) / LEARNED_GRID
        return F.interpolate(learned, scale_factor=(factor, factor), mode="bicubic").flatten(2).mT

    def forward(self, x: Tensor) -> Tensor:
        """Class tokens (B, width) of normalised images (B, 3, 224, 224)."""
        patches = self.patch_embed["proj"](x).flatten(2).mT + self.positions()  # (B, 256, width)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        tokens = torch.cat([first, patches], 1)  # (B, 257, width)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def look_rgb(self, images: Tensor) -> Seen:
        """Features of uint8 images (B, 3, H, W)."""
        x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIZE, SIZE), align_corners=False)
        return Seen(self(normalize(x, MEAN, STD)), None)


def load_network(name: str, weights: Path) -> DinoV2:
    """The network of a name with the weights of a file; ``ExtractorError`` if it holds others."""
    network = DinoV2(*SIZES[name])
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise ExtractorError(f"{weights} does not hold weights of {name!r}: {str(error).splitlines()[0]}") from None
    return network
