"""EfficientNet-Lite0, DINOv2, CLIP and VGG-16 against independent forward passes, and on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_clip import CLIPVisual
from torchvision.models import EfficientNet_B0_Weights, vgg16
from torchvision.transforms.functional import normalize

from evaluation.features import dinov2
from evaluation.features.catalog import ExtractorError
from evaluation.features.extractors import FeatureExtractor, load_extractor
from evaluation.features.weights import find_weights

CLASSES = EfficientNet_B0_Weights.DEFAULT.meta["categories"]
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def lite() -> FeatureExtractor:
    """EfficientNet-Lite0 with its published weights."""
    return load_extractor("efficientnet_lite0")


def photographs() -> list[torch.Tensor]:
    """A temple in China and a dahlia, uint8 (1, 3, 427, 640)."""
    return [torch.from_numpy(image.copy()).permute(2, 0, 1)[None] for image in load_sample_images().images]


def tensorflow_convolution(x: torch.Tensor, kernel: torch.Tensor, stride: int, groups: int) -> torch.Tensor:
    """Convolution as a sum over the kernel's taps, with TensorFlow's "SAME" padding written out."""
    size, taps = x.shape[-1], kernel.shape[-1]
    out = (size + stride - 1) // stride
    before = max((out - 1) * stride + taps - size, 0) // 2
    canvas = x.new_zeros(*x.shape[:2], size + 2 * taps, size + 2 * taps)
    canvas[..., taps : taps + size, taps : taps + size] = x
    total = torch.zeros((), dtype=x.dtype)
    for i in range(taps):
        for j in range(taps):
            rows, columns = (taps - before + k + stride * torch.arange(out) for k in (i, j))
            seen = canvas[..., rows, :][..., columns]
            tap = kernel[:, :, i, j]
            total = total + (seen * tap.view(1, -1, 1, 1) if groups > 1 else torch.einsum("oc,bchw->bohw", tap, seen))
    return total


def lite0_by_hand(state: State, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and logits straight from the published tensors, strides and shortcuts from their shapes."""

    def convolved(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        kernel = state[f"{conv}.weight"]
        y = tensorflow_convolution(x, kernel, stride, len(kernel) if kernel.shape[1] == 1 and x.shape[1] > 1 else 1)
        mean, var, gain, bias = (
            state[f"{norm}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / (var + 1e-3).sqrt() * gain + bias

    x = convolved(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    for i in range(16):
        h, name = x, f"_blocks.{i}."
        if i:
            h = convolved(h, name + "_expand_conv", name + "_bn0").clamp(0, 6)
        h = convolved(h, name + "_depthwise_conv", name + "_bn1", 2 if i in (1, 3, 5, 11) else 1).clamp(0, 6)
        h = convolved(h, name + "_project_conv", name + "_bn2")
        x = x + h if i in (2, 4, 6, 7, 9, 10, 12, 13, 14) else h
    features = convolved(x, "_conv_head", "_bn1").clamp(0, 6).mean((2, 3))
    return features, features @ state["_fc.weight"].T + state["_fc.bias"]


def test_lite0_is_what_its_tensors_say(lite: FeatureExtractor) -> None:
    state = torch.load(find_weights("efficientnet_lite0"), weights_only=True)
    doubled = {name: value.double() for name, value in state.items()}
    image = F.interpolate(photographs()[1].float(), size=(224, 224), mode="bicubic", antialias=True)
    image = image.round().clamp(0, 255)
    features, logits = lite0_by_hand(doubled, (image.double() - 127) / 128)
    seen = lite.extract(image.to(torch.uint8).numpy())  # already of its size: nothing is resized
    np.testing.assert_allclose(seen.features, features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(seen.logits, logits, rtol=1e-3, atol=1e-3)


def test_lite0_knows_photographs(lite: FeatureExtractor) -> None:
    temple, flower = (lite.extract(image) for image in photographs())
    assert CLASSES[flower.predictions[0]] == "daisy"
    best = {CLASSES[i] for i in temple.logits[0].argsort()[-5:]}
    assert {"palace", "monastery"} <= best
    assert (lite.dtype, lite.resize, lite.num_features) == ("float32", "224x224 bicubic, antialiased", 1280)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 400])
def test_lite0_takes_grey_and_colour_of_any_size(lite: FeatureExtractor, channels: int, size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, channels, size, size + 1), np.uint8)
    whole, single = lite.extract(images), lite.extract(images, batch_size=1)
    assert whole.features.shape == (3, 1280) and whole.features.std(0).max() > 0
    np.testing.assert_allclose(whole.features, single.features, rtol=1e-3, atol=1e-4)
    if channels == 1:
        assert (lite.extract(images.repeat(3, axis=1)).features == whole.features).all()


def test_wrong_channels_are_refused(lite: FeatureExtractor) -> None:
    with pytest.raises(ValueError, match=r"'efficientnet_lite0' takes uint8 images \(N, 1 or 3, H, W\) with N >= 1"):
        lite.extract(np.zeros((2, 2, 8, 8), np.uint8))


def random_state(network: nn.Module) -> State:
    """Weights of a network's shapes, each of them at work."""
    g = torch.Generator().manual_seed(0)
    return {name: value + 0.1 * torch.randn(value.shape, generator=g) for name, value in network.state_dict().items()}


def test_dinov2_blocks_are_pytorchs_transformer_layers() -> None:
    width, heads, tokens = 48, 3, torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(1))
    ours = dinov2.Block(width, heads, gated=False)
    ours.load_state_dict(random_state(ours))
    theirs = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", norm_first=True, batch_first=True, layer_norm_eps=1e-6
    ).eval()
    s, scale = ours.state_dict(), (ours.ls1.gamma.detach(), ours.ls2.gamma.detach())
    state = {"self_attn.in_proj_weight": s["attn.qkv.weight"], "self_attn.in_proj_bias": s["attn.qkv.bias"]}
    for part in ("weight", "bias"):  # what scales a layer's output may as well scale its weights
        factor = [f[:, None] if part == "weight" else f for f in scale]
        state[f"self_attn.out_proj.{part}"] = s[f"attn.proj.{part}"] * factor[0]
        state[f"linear1.{part}"], state[f"linear2.{part}"] = s[f"mlp.fc1.{part}"], s[f"mlp.fc2.{part}"] * factor[1]
        state[f"norm1.{part}"], state[f"norm2.{part}"] = s[f"norm1.{part}"], s[f"norm2.{part}"]
    theirs.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-5, atol=1e-5)


def test_dinov2_gated_layer() -> None:
    layer = dinov2.GatedFeedForward(6)
    layer.load_state_dict(random_state(layer))
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    both = x @ layer.w12.weight.T + layer.w12.bias
    gate, value = both[..., :16], both[..., 16:]
    torch.testing.assert_close(layer(x), (gate / (1 + (-gate).exp()) * value) @ layer.w3.weight.T + layer.w3.bias)


def cubic_weights() -> torch.Tensor:
    """Keys' cubic convolution, a = -0.75 as in PyTorch, from 37 to 16 places that are 37 / 16.1 apart, (16, 37)."""
    found = torch.zeros(16, 37)
    for i in range(16):
        at = (i + 0.5) * 37 / 16.1 - 0.5
        for j in range(int(at) - 1, int(at) + 3):
            x = abs(at - j)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            found[i, min(max(j, 0), 36)] += near if x <= 1 else far
    return found


def test_dinov2_positions_lie_where_the_published_code_puts_them() -> None:
    network = dinov2.DinoV2(3, 0, 1, False)
    network.load_state_dict(random_state(network))
    learned = network.pos_embed[0, 1:].unflatten(0, (37, 37))
    expected = torch.einsum("ik,jl,klc->ijc", cubic_weights(), cubic_weights(), learned)
    torch.testing.assert_close(network.positions()[0].unflatten(0, (16, 16)), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("dinov2-vit-s-14", 22_056_576), ("dinov2-vit-b-14", 86_580_480)])
def test_dinov2_has_the_published_number_of_parameters(name: str, size: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in dinov2.DinoV2(*dinov2.SIZES[name]).parameters()) == size


def test_dinov2_reads_its_file_and_looks_as_torch_fidelity_does(tmp_path: Path) -> None:
    network = dinov2.DinoV2(*dinov2.SIZES["dinov2-vit-s-14"])
    torch.save(random_state(network), tmp_path / "s.pth")
    extractor = load_extractor("dinov2-vit-s-14", weights=tmp_path / "s.pth")
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 224, 224), np.uint8)
    seen = extractor.extract(images)
    with torch.no_grad():
        x = torch.from_numpy(images).repeat(1, 3, 1, 1) / 255  # of its size: nothing is resized
        expected = extractor.network(normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    np.testing.assert_allclose(seen.features, expected, rtol=1e-3, atol=1e-4)
    assert seen.logits is None and seen.predictions is None and np.ptp(seen.features, 0).max() > 0
    with pytest.raises(ExtractorError, match="does not hold weights of 'dinov2-vit-b-14'"):
        load_extractor("dinov2-vit-b-14", weights=tmp_path / "s.pth")


class TinyClip(nn.Module):
    """A CLIP archive in small: the towers' names, a picture tower of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = CLIPVisual(16, 32, 2, 64, 8).visual
        self.text_projection = nn.Parameter(torch.zeros(4, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.visual(x) + 0 * self.text_projection.sum()


@pytest.mark.filterwarnings("ignore")  # TorchScript, in which these weights are published, is deprecated
def test_clip_reads_an_archive(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TinyClip().half().float().eval()  # they are published in half precision
    torch.jit.trace(model, torch.zeros(2, 3, 32, 32)).save(tmp_path / "clip.pt")
    extractor = load_extractor("clip-vit-b-32", weights=tmp_path / "clip.pt")
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    seen = extractor.extract(images)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    with torch.no_grad():
        expected = model.visual(normalize(images / 255, mean, std))
    np.testing.assert_allclose(seen.features, expected, rtol=1e-3, atol=1e-4)
    assert (extractor.resize, extractor.num_features) == ("32x32 bilinear, TensorFlow 1 grid", 16)
    assert seen.logits is None and extractor.dtype == "float32"


@pytest.mark.slow  # half a gigabyte of weights
def test_vgg16_gives_the_second_hidden_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = vgg16().eval()
    torch.save(model.state_dict(), tmp_path / "vgg.pth")
    extractor = load_extractor("vgg16", weights=tmp_path / "vgg.pth")
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        x = normalize(images / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        expected = model.classifier[:5](model.avgpool(model.features(x)).flatten(1))
    np.testing.assert_allclose(extractor.extract(images).features, expected, rtol=1e-3, atol=1e-4)
    assert extractor.num_features == 4096
