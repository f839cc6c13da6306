"""A plain table of texts: what every format of the report can print without knowing what it says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GridRow:
    """One line. ``control`` is set back, ``flagged`` set in the colour of warnings."""

    cells: tuple[str, ...]
    control: bool = False
    flagged: bool = False


@dataclass(frozen=True)
class Grid:
    """A titled table: ``intro`` stands above it, ``notes`` below.

    ``text`` are the positions of the columns that hold words and are set flush left; ``folded``
    tables are closed until they are asked for, where the format can do that.
    """

    title: str
    intro: str
    header: tuple[str, ...]
    rows: tuple[GridRow, ...]
    notes: tuple[str, ...] = ()
    text: tuple[int, ...] = (0,)
    folded: bool = False

    def __post_init__(self) -> None:
        if any(len(row.cells) != len(self.header) for row in self.rows):
            raise ValueError(f"a row of the table {self.title!r} has another length than its header")
