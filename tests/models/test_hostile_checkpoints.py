"""Checkpoints that mean harm, or were damaged: one sentence, no memory, never other weights."""

from __future__ import annotations

import io
import os
import pickle
import resource
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from experiments.discovery import model_names
from tests.hostile import damaged, one_sentence
from tests.models.tiny import assert_same_weights, tiny_model

MODELS = model_names()


def content(name: str, **changes: Any) -> dict[str, Any]:
    """What a checkpoint holds, with some of its hyperparameters or other parts changed."""
    model = tiny_model(name)
    options = dict(model.hparams) | changes.pop("options", {})
    return {
        "format": models.FORMAT, "model": name, "hyper_parameters": options, "state_dict": model.state_dict(),
    } | changes  # fmt: skip


def save(path: Path, parts: Any) -> Path:
    torch.save(parts, path)
    return path


def refusal(path: Path) -> str:
    """The sentence with which a checkpoint is refused."""
    with pytest.raises(models.CheckpointError) as caught:
        models.load(path)
    assert isinstance(caught.value, ValueError)
    assert one_sentence(str(caught.value), f"checkpoint {path} ")
    return str(caught.value)


HUGE = [
    ("gan", {"width": 10**6}, "generator.basis.weight is float32"),
    ("gan", {"blocks": 10**6}, "ask for more weights than it has"),
    ("gan", {"num_classes": 10**6}, "basis.weight is float32 (64, 11) where float32 (64, 1000008) is expected"),
    ("gan", {"generator": "other"}, "generator must be convolutional or residual, not 'other'"),
    ("gan", {"latent_dim": 10**12}, "hyperparameter latent_dim that cannot be: only plain values and counts up to"),
    ("dcgan", {"width": 10**6}, "generator.basis.weight is float32"),
    ("wgan_gp", {"num_classes": 10**6}, "is float32"),
    ("diffusion", {"width": 10**6}, "where float32 (4000000, 1000000) is expected"),
    ("diffusion", {"blocks": 10**9}, "hyperparameter blocks that cannot be"),
    ("diffusion", {"blocks": 10**6}, "ask for more weights than it has"),
    ("vqvae", {"prior_dim": 10**6}, "prior.token.weight is float32"),
    ("vqvae", {"prior_depth": 10**6}, "ask for more weights than it has"),
    ("vqvae", {"image_shape": (1, 2**20, 2**20)}, "does not fit its model"),
]


@pytest.mark.parametrize(("name", "options", "reason"), HUGE, ids=[f"{n}-{o}" for n, o, _ in HUGE])
def test_what_asks_for_much_is_refused_without_memory(
    name: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "model.ckpt", content(name, options=options))
    models.load(save(tmp_path / "whole.ckpt", content(name)))  # what is imported for it is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


BAD_PARTS = [
    (
        {"model": "resnet"},
        "names 'resnet'; allowed: consistency, dcgan, ddpm, diffusion, flow_matching, gan, maskgit, vqvae, vqvae2, "
        "wgan_gp",
    ),
    ({"model": ["gan"] * 10}, "names no model; allowed"),
    ({"model": "../evil"}, "names '../evil'; allowed"),
    ({"options": {"evil": 1}}, "other hyperparameters (evil)"),
    ({"options": {"lr": float("nan")}}, "hyperparameter lr that cannot be"),
    ({"options": {"width": [[8]]}}, "hyperparameter width that cannot be"),
    ({"options": {"width": "8"}}, "does not fit its model"),
    ({"options": {"width": -8}}, "does not fit its model"),
    ({"hyper_parameters": None}, "has no hyperparameters"),
    ({"hyper_parameters": {}}, "other hyperparameters"),
    ({"state_dict": [1]}, "no tensors"),
    ({"state_dict": {"a": 1}}, "no tensors"),
    ({"state_dict": {}}, "does not fit its model"),
    ({"state_dict": {"x": torch.zeros(1).expand(10**12)}}, "larger than its file"),
    ({"format": "paragon-model-0"}, "is not a generator saved by this program"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_PARTS, ids=[f"{n}-{b}" for n, (_, b) in enumerate(BAD_PARTS)])
def test_wrong_parts(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    assert reason in refusal(save(tmp_path / "model.ckpt", content("gan", **changes)))


def test_weights_of_another_kind(tmp_path: Path) -> None:
    weights = dict(tiny_model("gan").state_dict())
    first = next(iter(weights))
    for odd, reason in (
        ({first: weights[first].double()}, "is float64"), ({first: weights[first][None]}, "(1, 64, 11)"),
        ({"more": torch.zeros(1)}, "'more' are unknown"),
    ):
        assert reason in refusal(save(tmp_path / "model.ckpt", content("gan", state_dict=weights | odd)))
    del weights[first]
    assert f"{first!r} are missing" in refusal(save(tmp_path / "model.ckpt", content("gan", state_dict=weights)))


class Bomb:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch exploded",)


def test_pickles_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.ckpt"
    refusal(save(path, content("gan", model=Bomb())))
    path.write_bytes(pickle.dumps(Bomb()))
    assert "no whole file of torch.save" in refusal(path)
    torch.save(content("gan", model=Bomb()), path, _use_new_zipfile_serialization=False)
    refusal(path)
    assert not (tmp_path / "exploded").exists()


def repacked(whole: bytes, kind: int, **changes: bytes) -> bytes:
    """A checkpoint's members in another ZIP file, some with other content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(buffer, "w", kind) as sink:
        for name in source.namelist():
            sink.writestr(name, changes.get(name.split("/", 1)[1].replace(".", "_"), source.read(name)))
    return buffer.getvalue()


def test_archives_that_are_larger_than_their_file(tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt", content("gan"))
    whole = path.read_bytes()
    path.write_bytes(repacked(whole, zipfile.ZIP_DEFLATED))
    assert "larger than its file" in refusal(path)
    path.write_bytes(repacked(whole, zipfile.ZIP_STORED))
    models.load(path)
    path.write_bytes(repacked(whole, zipfile.ZIP_STORED, data_pkl=b"not a pickle"))
    assert "cannot be read" in refusal(path)


def test_a_storage_that_says_it_is_longer_than_it_is(tmp_path: Path) -> None:
    tensor = torch.arange(4.0)
    path = save(tmp_path / "model.ckpt", {"x": tensor})
    with zipfile.ZipFile(path) as archive:
        description = archive.read("model/data.pkl")
    longer = description.replace(b"K\x04", b"K\xc8")  # 200 elements
    assert longer != description
    path.write_bytes(repacked(path.read_bytes(), zipfile.ZIP_STORED, data_pkl=longer))
    refusal(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all", bytes(1000)])
def test_files_that_are_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    refusal(path)
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_damage_is_found_or_of_no_matter(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt", content(name))
    expected, whole = tiny_model(name).state_dict(), path.read_bytes()
    refused = 0
    for data in damaged(whole, n=100 if name == "gan" else 20):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert_same_weights(models.load(path).state_dict(), expected)
            except models.CheckpointError as error:
                refused += 1
                assert one_sentence(str(error), str(path))
    assert refused > 10
