"""Tables: their columns, their cells as text, and how they are drawn on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from protojobs.cli.showing.text import age, escaped, iso

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Cell", "Column", "plain", "print_table", "readable", "table"]

Cell: TypeAlias = "str | int | float | datetime | None"
_STATES = {
    "completed": "green",
    "failed": "red",
    "processing": "cyan",
    "cancelled": "dim",
    "moving": "yellow",
    "unreadable": "red",
    "paused": "yellow",
    "lapsed": "red",
    "broken": "red",
    "disabled": "dim",
}
_TEXT_MIN = 12  # letters that a column of text keeps, however narrow the terminal
_GAP = 2


class Column(Struct, frozen=True):
    """A column of a table. `id` is never cut, `state` is coloured, `time` is an age on a terminal."""

    title: str
    kind: Literal["text", "id", "number", "state", "time"] = "text"


def plain(cell: Cell) -> str:
    """A cell as a pipe reads it: unformatted, times as ISO 8601 in UTC, text escaped."""
    match cell:
        case None:
            return ""
        case datetime():
            return iso(cell)
        case float():
            return f"{cell:g}"
        case _:
            return escaped(str(cell))


def readable(cell: Cell, now: datetime | None) -> str:
    """A cell as a terminal shows it, escaped; times as ages, counted from `now`."""
    match cell:
        case datetime() if now is not None:
            return age(cell, now)
        case int():
            return f"{cell:,}"
        case None | "":
            return "-"
        case _:
            return plain(cell)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table as wide as the terminal. Cells are taken as they are: rich's markup means nothing in them.

    Only columns of text are cut. Half an id, a number or an age would be wrong; rather the lines are too long.
    """
    from rich.console import Console  # costs 50 ms, which a pipe need not pay

    console = Console()
    drawn, width = table(columns, rows, console.width)
    console.width = max(console.width, width)
    console.print(drawn)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], space: int) -> tuple[Table, int]:
    """The table for a terminal that is `space` letters wide, and how many it takes."""
    from rich.table import Table
    from rich.text import Text

    widths = _widths(columns, rows, space)
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.kind in ("number", "time") else "left"
        drawn.add_column(Text(column.title), justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        styles = [_STATES.get(cell, "") if col.kind == "state" else "" for col, cell in zip(columns, row, strict=True)]
        drawn.add_row(*(Text(cell, style=style) for cell, style in zip(row, styles, strict=True)))
    return drawn, sum(widths) + _GAP * len(widths)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], space: int) -> list[int]:
    """The width of each column: what it needs, less what the widest columns of text must give."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, (column.title, *(row[i] for row in rows)))) for i, column in enumerate(columns)]
    texts = [i for i, column in enumerate(columns) if column.kind == "text"]
    while sum(widths) + _GAP * (len(widths) - 1) > space and texts:
        widest = max(texts, key=widths.__getitem__)
        if widths[widest] <= _TEXT_MIN:
            break
        widths[widest] -= 1
    return widths
