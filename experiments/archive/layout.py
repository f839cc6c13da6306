"""What an archive may hold and where; whatever is not listed here is neither written nor read.

The paths are those of a folder of runs, so that an unpacked archive is one. Members are stored without
compression: their bytes do not depend on a library's version, and nothing can be larger than it looks.
"""

from __future__ import annotations

import re
from pathlib import Path

from evaluation.curves import CURVES_FILE, load_curves
from evaluation.files import MAX_ARRAYS, MAX_JSON, MAX_PICTURE, MAX_TABLE, FileError, open_picture, read_bytes
from evaluation.record import RECORD_FILE, Record, RecordError, load_record
from evaluation.seal import DONE_FILE, MAX_SEAL, file_digest, read_seal, record_fault
from experiments.identity import CONFIG_FILE, identity_fault
from reports.collect import Run, load_log, load_samples

README, SUMS, CARD, RESULTS = "README.md", "SHA256SUMS", "metadata.json", "results.csv"
CHECKPOINT = "checkpoints/model.ckpt"
CHECKSUM = f"{CHECKPOINT}.sha256"
RESERVED = ("controls", "report")

MAX_ARCHIVE = 2**32 - 2**20  # what ZIP can do without its 64-bit kind
MAX_MEMBERS = 60_000
TOP_FILES = {README: MAX_JSON, SUMS: MAX_JSON, CARD: MAX_TABLE, RESULTS: MAX_TABLE}
CELL_FILES = {
    RECORD_FILE: MAX_JSON, CONFIG_FILE: MAX_JSON, DONE_FILE: MAX_SEAL, "samples.npz": MAX_ARRAYS,
    "samples.png": MAX_PICTURE, "trajectory.png": MAX_PICTURE, "reconstructions.png": MAX_PICTURE,
    "codes.png": MAX_PICTURE, "inpainting.png": MAX_PICTURE, "interpolation.png": MAX_PICTURE,
    "mixing.png": MAX_PICTURE, "inversion.png": MAX_PICTURE, "metrics.csv": MAX_TABLE,
    CHECKPOINT: MAX_ARCHIVE, CHECKSUM: 200, CURVES_FILE: MAX_JSON,
}  # fmt: skip
CONTROL_FILES = {".json": MAX_JSON, ".npz": MAX_ARRAYS}

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_CELL = re.compile(rf"({_NAME}/{_NAME}/[0-9a-f]{{12}}/seed=(?:0|[1-9][0-9]{{0,9}}))/(.+)")
_CONTROL = re.compile(rf"(controls/{_NAME}/[0-9a-f]{{12}}/{_NAME})(\.json|\.npz)")


def cell_member(name: str) -> tuple[str, str] | None:
    """The cell's folder and the file's name in it, of a member that belongs to a cell; else None."""
    found = _CELL.fullmatch(name)
    if found is None or found[2] not in CELL_FILES or name.split("/")[0] in RESERVED:
        return None
    return found[1], found[2]


def control_member(name: str) -> tuple[str, str] | None:
    """The control's path without its ending, and the ending; None for any other member."""
    found = _CONTROL.fullmatch(name)
    return (found[1], found[2]) if found else None


def size_limit(name: str) -> int | None:
    """How large a member may be; None if none of that name may be there."""
    if name in TOP_FILES:
        return TOP_FILES[name]
    if cell := cell_member(name):
        return CELL_FILES[cell[1]]
    control = control_member(name)
    return CONTROL_FILES[control[1]] if control else None


def cell_faults(folder: Path, out: Path, *, checkpoints: bool) -> list[str]:
    """Why a finished cell below ``out`` cannot travel, one sentence each: seal, place, identity, content.

    A checkpoint is looked at only if it is to travel too.
    """
    fault = record_fault(folder)
    if fault:
        return [fault]
    found = read_seal(folder)
    if found is None:
        return [f"{folder} was finished by a version that wrote no checksums; run the cell again"]
    path = folder / RECORD_FILE
    try:
        record = load_record(path)
    except RecordError as error:
        return [str(error)]
    fault = identity_fault(record, path, out)
    if fault:
        return [fault]
    if record.source not in ("trained", "external") or cell_member(f"{folder.relative_to(out)}/{RECORD_FILE}") is None:
        return [f"{path} is not the record of a cell"]
    sealed = {name: digest for name, digest in found.files.items() if checkpoints or name != CHECKPOINT}
    faults = [sentence for name, digest in sealed.items() if (sentence := _file_fault(folder / name, name, digest))]
    return faults + _curves_faults(folder / CURVES_FILE, record)


def _curves_faults(path: Path, record: Record) -> list[str]:
    """Curves are no part of the seal: they carry a checksum of their own, and name cell and checkpoint."""
    try:
        if path.exists() or path.is_symlink():
            load_curves(path, record)
    except FileError as error:
        return [str(error)]
    return []


def _file_fault(path: Path, name: str, digest: str) -> str | None:
    try:
        if file_digest(path) != digest:
            return f"{path} is damaged: its checksum is not the sealed one"
        if name not in CELL_FILES:
            return f"{path} is no file that an archive may hold"
        return _content_fault(path)
    except FileError as error:
        return str(error)


def _content_fault(path: Path) -> str | None:
    """Read a file as the report would."""
    if path.suffix == ".npz":
        load_samples(path)
    elif path.suffix == ".png":
        open_picture(path)
    elif path.suffix == ".csv":
        load_log(path)
    elif path.name == Path(CHECKPOINT).name:
        told = read_bytes(path.parent / Path(CHECKSUM).name, CELL_FILES[CHECKSUM]).decode("ascii", "replace").strip()
        if told != file_digest(path):
            return f"{path} is damaged: its checksum is not the one beside it"
    return None


def control_fault(path: Path, out: Path) -> str | None:
    """Why a control's record below ``out``, or its images, cannot travel; None if they can."""
    try:
        record = load_record(path)
        load_samples(path.with_suffix(".npz"))
    except (RecordError, FileError) as error:
        return str(error)
    if record.source != "control" or control_member(path.relative_to(out).as_posix()) is None:
        return f"{path} is not the record of a control"
    return identity_fault(record, path, out)


def runs_of(cells: list[Path], controls: list[Path]) -> tuple[Run, ...]:
    """The checked cells and controls as the report has them."""
    found = [Run(load_record(folder / RECORD_FILE), folder / RECORD_FILE, False) for folder in cells]
    return (*found, *(Run(load_record(path), path, True) for path in controls))
