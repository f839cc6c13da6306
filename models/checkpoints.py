"""Reads a generator's checkpoint that somebody else may have written, refusing before memory is taken.

First the archive (whole, uncompressed, its checksums), then what it says without its weights, then the
model it asks for, built without memory on torch's meta device: names, shapes and types of all weights
must be the model's, and there must be no more of them than the file has bytes. Nothing is unpickled.
"""

from __future__ import annotations

import inspect
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from models import FORMAT, CheckpointError, model_class, model_rooms
from models.base import GenerativeModel

MAX_BYTES = 16 * 2**30
MAX_MEMBERS = 100_000
MAX_DIRECTORY = 64 * 2**20  # bytes; it is read into memory before its members can be counted
MAX_PICKLE = 64 * 2**20
MAX_WHOLE = 2**20  # of a count; models make lists as long as they are deep
MAX_SEQUENCE = 64
SLACK = 4  # modules may register a parameter more than once while they are built


def read_checkpoint(path: Path, device: str) -> GenerativeModel:
    """The generator of a checkpoint, ready to sample; raises ``CheckpointError``."""
    try:
        with open(path, "rb") as file:
            size = _check_archive(file, path)
            content = _content(file, path, "meta")
            name, options, weights = _described(content, path, size)
            _check_fit(name, options, weights, path)
            content = _content(file, path, device)
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise CheckpointError(f"checkpoint {path} {reason}") from None
    model = model_class(name)(**options)
    model.load_state_dict(content["state_dict"])
    return model.to(device).eval()


def _check_archive(file: IO[bytes], path: Path) -> int:
    """The size of the file, a whole ZIP archive of uncompressed members with the right checksums."""
    size = file.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        raise CheckpointError(f"checkpoint {path} cannot be read: it has more than {MAX_BYTES:,} bytes")
    file.seek(max(0, size - 22))
    end = file.read(22)
    if end[:4] != b"PK\5\6" or int.from_bytes(end[12:16], "little") > MAX_DIRECTORY:
        raise CheckpointError(f"checkpoint {path} cannot be read: it is no whole file of torch.save")
    with _one_sentence(path), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        packed = any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members)
        if packed or len(members) > MAX_MEMBERS or sum(m.file_size for m in members) > size:
            raise CheckpointError(f"checkpoint {path} cannot be read: it is larger than its file")
        if any(m.filename.endswith("data.pkl") and m.file_size > MAX_PICKLE for m in members):
            raise CheckpointError(f"checkpoint {path} cannot be read: its description is too long")
        damaged = archive.testzip()  # torch's own reader does not look at the checksums
        if damaged is not None:
            raise CheckpointError(f"checkpoint {path} cannot be read: its part {damaged[:60]} is damaged")
    return size


def _content(file: IO[bytes], path: Path, device: str) -> Any:
    file.seek(0)
    with _one_sentence(path):
        return torch.load(file, map_location=device, weights_only=True)


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive raises one of many types
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path} cannot be read: {reason}") from None


def _described(content: Any, path: Path, size: int) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Model, hyperparameters and weights (without memory) of what a checkpoint says, if they are what they should."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint {path} is not a generator saved by this program ({FORMAT})")
    name, options, weights = (content.get(key) for key in ("model", "hyper_parameters", "state_dict"))
    if not isinstance(name, str) or name not in model_rooms():
        told = repr(name[:60]) if isinstance(name, str) else "no model"
        raise CheckpointError(f"checkpoint {path} names {told}; allowed: {', '.join(model_rooms())}")
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise CheckpointError(f"checkpoint {path} has no hyperparameters")
    _check_options(name, options, path)
    sound = isinstance(weights, dict) and all(isinstance(k, str) and _dense(v) for k, v in weights.items())
    if not sound or sum(v.numel() * v.element_size() for v in weights.values()) > size:
        raise CheckpointError(f"checkpoint {path} has weights that are no tensors, or larger than its file")
    return name, options, weights


def _check_options(name: str, options: dict[str, Any], path: Path) -> None:
    """Raise unless the hyperparameters are the model's, with plain values of sensible size."""
    wanted = inspect.signature(model_class(name)).parameters
    if set(options) != set(wanted):
        wrong = ", ".join(sorted(set(options) ^ set(wanted)))[:200]
        raise CheckpointError(f"checkpoint {path} does not fit its model: {name} has other hyperparameters ({wrong})")
    for key, value in options.items():
        most = math.inf if wanted[key].annotation in (float, "float") else MAX_WHOLE
        if not _plain(value, most):
            allowed = f"only plain values and counts up to {MAX_WHOLE:,} are allowed"
            raise CheckpointError(f"checkpoint {path} has a hyperparameter {key} that cannot be: {allowed}")


def _plain(value: Any, most: float) -> bool:
    """True for finite numbers that are not too large, short text and short sequences of them."""
    if isinstance(value, list | tuple):
        return len(value) <= MAX_SEQUENCE and all(not isinstance(v, list | tuple) and _plain(v, most) for v in value)
    if isinstance(value, int):
        return abs(value) <= most
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, str) and len(value) <= 1000)


def _dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def _check_fit(name: str, options: dict[str, Any], weights: dict[str, Tensor], path: Path) -> None:
    """Raise unless the weights are those of the model that the hyperparameters ask for."""
    try:
        with _at_most(SLACK * len(weights) + 100), torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of initialising what has no values
            expected = model_class(name)(**options).state_dict()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(f"checkpoint {path} does not fit its model: {reason}") from None
    odd = sorted(set(expected) ^ set(weights))
    if odd:
        where = "missing" if odd[0] in expected else "unknown"
        raise CheckpointError(f"checkpoint {path} does not fit its model: the weights {odd[0][:80]!r} are {where}")
    for key, tensor in expected.items():
        found = weights[key]
        if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise CheckpointError(
                f"checkpoint {path} does not fit its model: {key} is {_kind(found)} where {_kind(tensor)} is expected"
            )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


@contextmanager
def _at_most(most: int) -> Iterator[None]:
    """Stop a model from being built that has more parameters than any that fits: a depth of 10^6 takes hours."""
    count = 0

    def hook(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError("its hyperparameters ask for more weights than it has")

    handle = nn.modules.module.register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()
