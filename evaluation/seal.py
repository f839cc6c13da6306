"""The marker of a finished cell: written last, with the checksums of what it finished.

A record is checked by its content, not by its bytes, and without its seed: that, like model, dataset
and configuration, is told by the folder it lies in, and the two must agree, so that no record is
counted for a cell that it does not belong to. Markers of older runs are empty and vouch for nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from evaluation.files import FileError, open_plain, read_bytes, read_json
from evaluation.record import RECORD_FILE, write_json

DONE_FILE = "done"
MAX_SEAL = 2**16
SEALED = (
    "config.json", "samples.npz", "samples.png", "trajectory.png", "reconstructions.png", "codes.png", "inpainting.png",
    "interpolation.png", "mixing.png", "inversion.png", "metrics.csv", "checkpoints/model.ckpt",
)  # fmt: skip


@dataclass(frozen=True)
class Seal:
    """SHA-256 of the record's content and of the other files, by their names relative to the cell's folder."""

    record: str
    files: dict[str, str]


class SealError(ValueError):
    """A marker that cannot be read; the message is one sentence naming the file."""


def record_digest(path: Path) -> str:
    """SHA-256 of a record's content without its seed, whatever its white space; ``ValueError`` if it is no JSON."""
    content = read_json(path)
    if isinstance(content, dict):
        content.pop("seed", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file; ``FileError`` if it is none or a link."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write the marker over what a finished cell's folder holds."""
    files = {name: file_digest(folder / name) for name in SEALED if (folder / name).exists()}
    write_json(folder / DONE_FILE, asdict(Seal(record_digest(folder / RECORD_FILE), files)))


def read_seal(folder: Path) -> Seal | None:
    """The checksums of a finished cell; None if it has none, because it is not finished or older than they are.

    Raises:
        SealError: the marker is damaged.
    """
    path = folder / DONE_FILE
    if not path.exists():
        return None
    try:
        content = read_bytes(path, MAX_SEAL)
        found = _ADAPTER.validate_json(content) if content else None
    except (FileError, ValidationError):
        raise SealError(f"the marker {path} is damaged") from None
    if found and not all(_NAME.fullmatch(name) for name in found.files):
        raise SealError(f"the marker {path} is damaged: it names files outside its folder")
    return found


_ADAPTER = TypeAdapter(Seal)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def record_fault(folder: Path) -> str | None:
    """Why the record of a finished cell is not the one that was sealed, in one sentence; None if it is."""
    path = folder / RECORD_FILE
    try:
        found = read_seal(folder)
        if found is None:
            return None
        if record_digest(path) != found.record:
            return f"{path} is damaged: its content is not what was sealed in {DONE_FILE}"
        return _misplaced(path)
    except SealError as error:
        return str(error)
    except (OSError, ValueError):
        return f"{path} is damaged: it is not the record that was sealed in {DONE_FILE}"


def _misplaced(path: Path) -> str | None:
    content = read_json(path)
    told = [str(content.get(key)) for key in ("model", "dataset", "config_hash")] + [f"seed={content.get('seed')}"]
    place = list(path.absolute().parent.parts[-4:])
    return None if told == place else f"{path} belongs to another cell: it is the record of {'/'.join(told)}"


def faults(folder: Path) -> list[str]:
    """One sentence for every file of a finished cell that is missing or not as it was sealed."""
    fault = record_fault(folder)
    if fault:
        return [fault]
    found = read_seal(folder)
    if found is None:
        return []
    return [sentence for name, digest in found.files.items() if (sentence := _fault(folder / name, digest))]


def _fault(path: Path, digest: str) -> str | None:
    try:
        return None if file_digest(path) == digest else f"{path} is damaged: its checksum is not the sealed one"
    except FileError as error:
        return str(error)
