"""Compares a published report with one that was just made from the records: what differs first, and where.

Tables are compared as text, character by character; results.parquet as a table; of index.html
all but the pictures inside it, of figures only which ones there are: drawings differ with the machine's fonts.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from evaluation.files import MAX_TABLE, FileError, read_bytes

PICTURES = (".svg", ".png")
DATA_URI = re.compile(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]*")
SHOWN = 60  # characters of a value or line that a sentence quotes
KEYS = ("model", "dataset", "config_hash", "seed")


def report_differences(published: Path, made: Path) -> Iterator[str]:
    """One sentence for every file of a report that is missing, superfluous or different.

    Args:
        published: The folder of the report to check; nothing in it is touched.
        made: A report that was made from the same records.
    """
    names, expected = _files(published), _files(made)
    for name in sorted(names | expected):
        if name not in names:
            yield f"{name} is missing"
        elif name not in expected:
            yield f"{name} is not made from these records"
        elif Path(name).suffix not in PICTURES:
            try:
                difference = _difference(published / name, made / name)
            except FileError as error:
                difference = error.reason
            if difference:
                yield f"{name}: {difference}"


def _files(folder: Path) -> set[str]:
    """Names of all files but hidden ones, which hold no results."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)}


def _difference(published: Path, made: Path) -> str | None:
    found, expected = read_bytes(published, MAX_TABLE), made.read_bytes()
    if found == expected:
        return None
    if published.suffix == ".parquet":
        return _parquet(found, expected)
    try:
        text, right = found.decode(), expected.decode()
    except UnicodeDecodeError:
        return "it is not UTF-8 text"
    if published.suffix == ".csv":
        return table_difference(text, right) or "its line ends or quotes are others"
    if published.suffix == ".html":
        text, right = DATA_URI.sub("data:", text), DATA_URI.sub("data:", right)
    return text_difference(text, right)


def _parquet(found: bytes, expected: bytes) -> str | None:
    right = pd.read_parquet(io.BytesIO(expected))
    try:
        told = pq.ParquetFile(io.BytesIO(found)).metadata
        if (told.num_rows, told.num_columns) != right.shape:
            rows, columns = right.shape
            shape = f"{told.num_rows} rows and {told.num_columns} columns"
            return f"it has {shape} where the records give {rows} and {columns}"
        frame = pd.read_parquet(io.BytesIO(found))
        text = frame.to_csv(index=False)
    except Exception as error:  # nearly anything, from a damaged file
        return f"cannot be read: {(str(error).strip() or type(error).__name__).splitlines()[0][:200]}"
    odd = [str(name) for name in right if name in frame and frame[name].dtype != right[name].dtype]
    return table_difference(text, right.to_csv(index=False)) or (
        f"the column {odd[0]} is of another type" if odd else None
    )


def table_difference(text: str, right: str) -> str | None:
    """Where two tables in CSV differ first: row, column and both values."""
    try:
        found = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        return f"cannot be read as a table: {error}"
    expected = list(csv.reader(io.StringIO(right)))
    header, wanted = (found or [[]])[0], expected[0]
    if header != wanted:
        place = _first(header, wanted)
        return f"column {place + 1} is {_at(header, place)} where the records give {_at(wanted, place)}"
    if len(found) != len(expected):
        extra = _first([tuple(row) for row in found], [tuple(row) for row in expected])
        rows = found if len(found) > len(expected) else expected
        which = _row_name(header, rows[extra]) if extra < len(rows) else ""
        count = f"it has {len(found) - 1} rows where the records give {len(expected) - 1}"
        return f"{count}; the first that differs is row {extra}{which}"
    for number, (row, other) in enumerate(zip(found, expected, strict=True)):
        if row != other:
            place = _first(row, other)
            column = header[place] if place < len(header) else f"number {place + 1}"
            where = f"row {number}{_row_name(header, other)}, column {column}"
            return f"{where} is {_at(row, place)} where the records give {_at(other, place)}"
    return None


def _row_name(header: Sequence[str], row: Sequence[str]) -> str:
    values = [f"{key} {row[header.index(key)]}" for key in KEYS if key in header and header.index(key) < len(row)]
    return f" ({', '.join(values)[:120]})" if values else ""


def text_difference(text: str, right: str) -> str | None:
    """Where two texts differ first: the line, and in a table the row and column; None if they do not."""
    if text == right:
        return None
    found, expected = text.splitlines(), right.splitlines()
    line = _first(found, expected)
    if line >= min(len(found), len(expected)):
        if len(found) == len(expected):
            return "its line ends are others"
        more = "ends where the records give more" if len(found) < len(expected) else "goes on where the records end"
        return f"after line {line} it {more}"
    cells, wanted = _cells(found[line]), _cells(expected[line])
    if len(cells) > 1 and len(cells) == len(wanted):
        place = _first(cells, wanted)
        head = _head((row for row in reversed(expected[:line]) if row != r"\midrule"), len(cells))
        column = f"column {head[place]}" if head and head[place] else f"column {place + 1}"
        row = f" ({wanted[0][:SHOWN]})" if wanted[0] else ""
        return f"line {line + 1}{row}, {column} is {_at(cells, place)} where the records give {_at(wanted, place)}"
    here, there = _around(found[line], expected[line])
    return f"line {line + 1} reads {here} where the records give {there}"


def _head(lines: Iterator[str], width: int) -> list[str]:
    """The first row of the table whose rows come upwards."""
    rows = list(takewhile(lambda cells: len(cells) == width, map(_cells, lines)))
    return rows[-1] if rows else []


def _cells(line: str) -> list[str]:
    """The cells of a row of Markdown or LaTeX; a line that is none is one cell."""
    if line.startswith("|"):
        return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    if line.endswith(r"\\"):
        return [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]
    return [line]


def _first(found: Sequence[object], expected: Sequence[object]) -> int:
    """The first place where two sequences differ."""
    pairs = enumerate(zip(found, expected, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(found), len(expected)))


def _at(values: Sequence[str], place: int) -> str:
    return repr(values[place][:SHOWN]) if place < len(values) else "missing"


def _around(found: str, expected: str) -> tuple[str, str]:
    """Both lines, from shortly before their first difference."""
    start = max(0, _first(found, expected) - SHOWN // 3)
    return repr(found[start : start + SHOWN]), repr(expected[start : start + SHOWN])
