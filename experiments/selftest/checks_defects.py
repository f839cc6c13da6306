"""Known defects of the libraries beside this program: each is shown, and that our path goes round it.

torch-fidelity 0.4.0: ``feature_extractor_internal_dtype="float64"`` computes in float32; conditional
generators crash on ``np.int``; one weights path for ``fid`` and ``prc`` loads Inception's weights into
VGG. torchmetrics 1.9: ``normalize=True`` truncates, and its default resize smooths. A note says where
a library has been mended.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from experiments.selftest.base import Check, Finding, close, same
from experiments.selftest.checks_inception import extractor, he_weights

GROUP = "defects"
MENDED = "mended in this version"


def float64_is_float32() -> Finding:
    """The type that is recorded is that of the activations, whatever was asked for."""
    from torch_fidelity.utils import create_feature_extractor

    theirs = create_feature_extractor(
        "inception-v3-compat", ["2048"], cuda=False, verbose=False, feature_extractor_internal_dtype="float64",
        feature_extractor_weights_path=str(he_weights()),
    )
    got = str(theirs.Conv2d_1a_3x3.conv.weight.dtype).removeprefix("torch.")
    note = f"torch-fidelity asked for float64 computes in {got}" if got != "float64" else MENDED
    return same("float32", extractor().dtype, note)


def conditional_generator() -> Finding:
    """Conditional samples come from the model's own sampler."""
    import torch

    from datamodules.base import DatasetInfo
    from experiments.presets import gan
    from models.gan.model import GAN

    note = theirs_with_labels()
    info = DatasetInfo("tiny", channels=1, image_size=8, num_classes=3, class_names=("a", "b", "c"))
    small = asdict(replace(gan.preset(info), width=8, latent_dim=4))
    with torch.random.fork_rng(devices=[]):
        model = GAN(image_shape=(1, 8, 8), num_classes=3, **small).eval()
    images = model.sample(6, condition=torch.arange(6) % 3, generator=torch.Generator().manual_seed(0)).images
    return same("uint8 (6, 1, 8, 8)", f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}", note)


def theirs_with_labels() -> str:
    """What happens when torch-fidelity samples a conditional generator."""
    import torch
    from torch import nn
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.generative_model_modulewrapper import GenerativeModelModuleWrapper
    from torch_fidelity.utils import get_featuresdict_from_generative_model

    class Constant(nn.Module):
        def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(z), 3, 8, 8, dtype=torch.uint8)

    class Nothing(FeatureExtractorBase):
        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("1",)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (torch.zeros(len(x), 1),)

        def convert_features_tuple_to_dict(self, features: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
            return {"1": features[0]}

    wrapped = GenerativeModelModuleWrapper(Constant(), 2, "normal", 3)
    try:
        get_featuresdict_from_generative_model(wrapped, Nothing("nothing", ["1"]), 2, 2, False, 0, False)
    except AttributeError as error:
        return f"torch-fidelity fails: {str(error).splitlines()[0]}"
    return MENDED


def weights_of_another_network() -> Finding:
    """Each extractor is given its own weights: Inception's are refused where VGG's belong."""
    from evaluation.features.catalog import ExtractorError
    from evaluation.features.extractors import load_extractor

    try:
        load_extractor("vgg16", weights=he_weights())
        got = "loaded"
    except ExtractorError as error:
        got = "refused" if "vgg16" in str(error) else f"refused without a name: {error}"
    return same("refused", got, "torch-fidelity hands one path to both of fid's and prc's extractors")


def truncation() -> Finding:
    """Of the 256 levels as floats in [0, 1], our quantiser changes none."""
    import torch
    from torch import nn
    from torchmetrics.image.fid import FrechetInceptionDistance

    from models.base import to_uint8

    class Seen(nn.Module):
        num_features = 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.images = x
            return torch.zeros(len(x), 2)

    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, -1, -1)
    floats = (levels.double() / 255 * 2 - 1).float()
    seen = Seen()
    metric = FrechetInceptionDistance(feature=seen, normalize=True)
    metric.used_custom_model = False  # so that it does what it does for its own network
    metric.update((floats + 1) / 2, real=True)
    changed = int((seen.images[0, 0] != levels[0, 0]).sum())
    note = f"torchmetrics changes {changed}" if changed else MENDED
    return close(0, int((to_uint8(floats)[0, 0] != levels[0, 0]).sum()), absolute=0, note=note)


CHECKS = (
    Check("recorded type is the real one", GROUP, float64_is_float32),
    Check("conditional samples without np.int", GROUP, conditional_generator),
    Check("one weights file, one network", GROUP, weights_of_another_network),
    Check("levels are rounded, not truncated", GROUP, truncation),
)
