"""Reads an archive into a folder of runs: everything is checked first, then one cell after the other is placed.

A cell's files go into its folder under its lock, the marker last, so that whoever looks finds a finished
cell or none; the folder itself is not exchanged, as the lock lies in it. What is there is never
overwritten: the same cell with another record is a conflict, which is named and left alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.controls import CONTROLS
from evaluation.record import RECORD_FILE, RecordError, load_record
from evaluation.seal import DONE_FILE, SealError, read_seal, record_digest, record_fault
from experiments.archive import layout
from experiments.archive.container import ArchiveError, unpack
from experiments.discovery import model_names
from experiments.locks import HOLDER_FILE, LOCK_FILE, LockedError, cell_lock

LAST = (RECORD_FILE, DONE_FILE)


@dataclass
class Imported:
    """What became of the cells and controls of an archive: how many, and a sentence for each that was left out."""

    added: int = 0
    present: int = 0
    conflicts: list[str] = field(default_factory=list)


def import_archive(path: Path, out: Path) -> Imported:
    """Add what an archive holds and ``out`` lacks.

    Raises:
        ArchiveError: The archive is refused; nothing has been written.
    """
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    try:
        staged = Path(tempfile.mkdtemp(prefix=".paragon-import-", dir=existing))
    except OSError as error:
        raise ArchiveError(f"{existing} cannot be written to: {error.strerror}") from None
    try:
        cells, controls = _checked(unpack(path, staged), staged, path)
        result = Imported()
        for place in controls:
            _place_control(staged / f"{place}.json", out / f"{place}.json", result)
        for place in cells:
            _place_cell(staged / place, out / place, result)
        return result
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _checked(names: list[str], staged: Path, path: Path) -> tuple[list[str], list[str]]:
    """The places of cells and controls, all of which are whole, sealed, and what they say they are."""
    cells: dict[str, set[str]] = {}
    controls: dict[str, set[str]] = {}
    for name in names:
        if cell := layout.cell_member(name):
            cells.setdefault(cell[0], set()).add(cell[1])
        elif control := layout.control_member(name):
            controls.setdefault(control[0], set()).add(control[1])
    for place, files in cells.items():
        fault = _incomplete(staged / place, files) or next(_faults(staged / place, staged), None)
        if fault:
            raise _refused(path, fault, staged)
    for place, files in controls.items():
        missing = set(layout.CONTROL_FILES) - files
        record = staged / f"{place}.json"
        fault = f"{place} lacks {missing.pop()}" if missing else layout.control_fault(record, staged)
        if fault:
            raise _refused(path, fault, staged)
    if not cells:
        raise ArchiveError(f"{path} is refused: it holds no cells")
    return sorted(cells), sorted(controls)


def _refused(path: Path, fault: str, staged: Path) -> ArchiveError:
    return ArchiveError(f"{path} is refused: {fault.replace(f'{staged}/', '')}")


def _incomplete(folder: Path, files: set[str]) -> str | None:
    """Why the files of a cell are not exactly those that its seal is over."""
    missing = {RECORD_FILE, DONE_FILE} - files
    if missing:
        return f"{folder} lacks {sorted(missing)[0]}"
    try:
        found = read_seal(folder)
    except SealError as error:
        return str(error)
    sealed = {RECORD_FILE, DONE_FILE, *(found.files if found else ())}
    if layout.CHECKPOINT in sealed:
        sealed.add(layout.CHECKSUM)
    odd = sorted(sealed ^ (files - {layout.CURVES_FILE}))
    return f"{folder} and its seal do not have the same files: {odd[0][:100]}" if odd else None


def _faults(folder: Path, staged: Path) -> Iterator[str]:
    yield from layout.cell_faults(folder, staged, checkpoints=True)
    record = load_record(folder / RECORD_FILE)
    if record.source == "external" and record.model in {*model_names(), *CONTROLS}:
        yield f"{folder} is made elsewhere under the name of a model or control"


def _place_control(staged: Path, target: Path, result: Imported) -> None:
    """Place a control unless there is one; that of another machine is the same if its numbers are."""
    if target.exists():
        try:
            here, there = load_record(target), load_record(staged)
            same = (here.metrics, here.truth) == (there.metrics, there.truth)
            sentence = f"{target} has other numbers in the archive; it is left as it is"
        except RecordError as error:
            same, sentence = False, f"{error}; it is left as it is: remove it to import it"
        result.present += same
        result.conflicts += [] if same else [sentence]
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for ending in (".npz", ".json"):
            os.replace(staged.with_suffix(ending), target.with_suffix(ending))
        result.added += 1
    except OSError as error:
        result.conflicts.append(f"{target} cannot be written: {error.strerror or error}")


def _place_cell(staged: Path, folder: Path, result: Imported) -> None:
    try:
        if not (folder / DONE_FILE).exists():
            with cell_lock(folder):
                if not (folder / DONE_FILE).exists():  # it may have been finished while its lock was awaited
                    _replace(staged, folder)
                    result.added += 1
                    return
        difference = _difference(staged, folder)
        result.present += difference is None
        result.conflicts += [f"{folder} {difference}; it is left as it is"] if difference else []
    except LockedError as error:
        result.conflicts.append(f"{error}; it is left as it is")
    except OSError as error:
        result.conflicts.append(f"{folder} cannot be written: {error.strerror or error}")


def _difference(staged: Path, folder: Path) -> str | None:
    """What distinguishes a finished cell from the one in the archive; None if they are the same."""
    fault = record_fault(folder)
    if fault:
        return f"is damaged ({fault})"
    try:
        if record_digest(folder / RECORD_FILE) != record_digest(staged / RECORD_FILE):
            return "has another record than in the archive"
    except (OSError, ValueError) as error:
        return f"is damaged ({error})"
    here, there = read_seal(folder), read_seal(staged)
    if here is None or there is None:
        return None
    other = [name for name in sorted(here.files) if there.files.get(name, here.files[name]) != here.files[name]]
    return f"has another {other[0]} than in the archive" if other else None


def _replace(staged: Path, folder: Path) -> None:
    """Move a staged cell into its folder, the marker last; on an error what was there is put back."""
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _move(folder, old)
        try:
            _move(staged, folder)
        except OSError:
            for path in _contents(folder):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            _move(old, folder)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _contents(folder: Path) -> list[Path]:
    """All that lies in a cell's folder but its lock, in the order in which it may be placed."""
    paths = [path for path in folder.iterdir() if path.name not in (LOCK_FILE, HOLDER_FILE)]
    return sorted(paths, key=lambda path: (LAST.index(path.name) if path.name in LAST else -1, path.name))


def _move(source: Path, target: Path) -> None:
    for path in _contents(source):
        os.replace(path, target / path.name)
