"""Writes an archive: all finished cells and controls of a folder of runs, the same bytes for the same input.

A damaged cell stops it: an archive that silently lacks what was measured would be another result.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import json
import os
import shutil
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.record import RECORD_FILE
from evaluation.seal import DONE_FILE, Seal, file_digest, read_seal
from experiments.archive import layout
from experiments.archive.card import croissant, readme
from reports.collect import Run, results_frame

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that ZIP knows
READABLE = 0o100644 << 16

Content = bytes | Path


class ExportError(ValueError):
    """An archive that cannot be written; one sentence per line."""


@dataclass(frozen=True)
class Exported:
    """What went into an archive; ``written`` is False if the very same one was there."""

    cells: int
    controls: int
    unfinished: int
    written: bool


def export(out: Path, target: Path, *, checkpoints: bool) -> Exported:
    """Write the finished cells below ``out`` to ``target``, whole or not at all.

    Raises:
        ExportError: There is none, some are damaged (each is named), or ``target`` holds something else.
    """
    folders = sorted(path for path in out.glob("*/*/*/seed=*") if path.is_dir())
    cells = [folder for folder in folders if (folder / DONE_FILE).exists()]
    controls = sorted(out.glob("controls/*/*/*.json"))
    if not cells:
        raise ExportError(f"{out} has no finished cells (<model>/<dataset>/<hash>/seed=<n>/{DONE_FILE})")
    found = [fault for folder in cells for fault in layout.cell_faults(folder, out, checkpoints=checkpoints)]
    found += [fault for path in controls if (fault := layout.control_fault(path, out))]
    if found:
        raise ExportError("\n".join(found))
    contents = {name: path for folder in cells for name, path in _cell_files(folder, out, checkpoints).items()}
    for path in controls:
        contents |= {file.relative_to(out).as_posix(): file for file in (path, path.with_suffix(".npz"))}
    written = _publish(_complete(contents, layout.runs_of(cells, controls), checkpoints), target)
    return Exported(len(cells), len(controls), len(folders) - len(cells), written)


def _cell_files(folder: Path, out: Path, checkpoints: bool) -> dict[str, Content]:
    """The files of a cell by their names in the archive; its seal is over what travels."""
    sealed = read_seal(folder)
    assert sealed is not None, "the cell was checked"
    kept = {name: digest for name, digest in sealed.files.items() if checkpoints or name != layout.CHECKPOINT}
    names = [RECORD_FILE, *kept, *([layout.CHECKSUM] if layout.CHECKPOINT in kept else [])]
    names += [layout.CURVES_FILE] if (folder / layout.CURVES_FILE).exists() else []
    files: dict[str, Content] = {name: folder / name for name in names}
    files[DONE_FILE] = (json.dumps(asdict(Seal(sealed.record, kept)), indent=2) + "\n").encode()
    return {f"{folder.relative_to(out).as_posix()}/{name}": content for name, content in files.items()}


def _complete(contents: dict[str, Content], runs: tuple[Run, ...], checkpoints: bool) -> dict[str, Content]:
    """The contents with the files that describe them."""
    frame = results_frame(runs)
    results = frame.to_csv(index=False, lineterminator="\n").encode()
    digests = {name: _digest(content) for name, content in contents.items()}
    digests[layout.RESULTS] = _digest(results)
    described: dict[str, Content] = {
        layout.RESULTS: results,
        layout.README: readme(runs, checkpoints=checkpoints).encode(),
        layout.CARD: croissant(runs, frame, digests).encode(),
    }
    digests |= {name: _digest(content) for name, content in described.items()}
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return contents | described | {layout.SUMS: sums.encode()}


def _digest(content: Content) -> str:
    return file_digest(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def _publish(contents: dict[str, Content], target: Path) -> bool:
    """Write beside the target, then put it in place unless something is there; False if it is the same."""
    if len(contents) > layout.MAX_MEMBERS or sum(map(_size, contents.values())) > layout.MAX_ARCHIVE * 0.99:
        raise ExportError(f"{target} would have more than 4 GiB or {layout.MAX_MEMBERS:,} files; export fewer runs")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _write(contents, temporary)
        if not target.exists():
            with contextlib.suppress(FileExistsError):
                _put(temporary, target)
                return True
        if filecmp.cmp(temporary, target, shallow=False):
            return False
        raise ExportError(f"{target} exists and holds something else; nothing is overwritten")
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _size(content: Content) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _put(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)  # which, unlike a rename, never replaces anything
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.rename(temporary, target)


def _write(contents: dict[str, Content], path: Path) -> None:
    with open(path, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
            for name in sorted(contents):
                member = zipfile.ZipInfo(name, EPOCH)
                member.create_system, member.external_attr = 3, READABLE  # Unix, wherever it is written
                content = contents[name]
                if isinstance(content, bytes):
                    archive.writestr(member, content)
                    continue
                with open(content, "rb") as source, archive.open(member, "w") as sink:
                    shutil.copyfileobj(source, sink, 2**20)
        file.flush()
        os.fsync(file.fileno())
