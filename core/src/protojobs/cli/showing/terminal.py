"""Tables on a terminal, drawn by rich. Loaded only when stdout is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from protojobs.cli.showing.output import Column

__all__ = ["print_table", "table"]

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


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table as wide as the terminal. Cells are taken as they are: rich's markup means nothing in them.

    Only columns of text are cut. Half an id, a number or an age would be wrong; rather the lines are too long.
    """
    console = Console()
    drawn, width = table(columns, rows, console.width)
    console.width = max(console.width, width)
    console.print(drawn)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], space: int) -> tuple[Table, int]:
    """That table for so many columns of the terminal, and how many it takes."""
    widths = _widths(columns, rows, space)
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        justify: JustifyMethod = "right" if column.kind in ("number", "time") else "left"
        drawn.add_column(Text(column.title), justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        styles = [_STATES.get(cell, "") if col.kind == "state" else "" for col, cell in zip(columns, row, strict=True)]
        drawn.add_row(*(Text(cell, style=style) for cell, style in zip(row, styles, strict=True)))
    return drawn, sum(widths) + _GAP * len(widths)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], space: int) -> list[int]:
    """The width of each column: what it needs, less what the widest columns of text must give."""
    widths = [max(map(cell_len, (column.title, *(row[i] for row in rows)))) for i, column in enumerate(columns)]
    texts = [i for i, column in enumerate(columns) if column.kind == "text"]
    while sum(widths) + _GAP * (len(widths) - 1) > space and texts:
        widest = max(texts, key=widths.__getitem__)
        if widths[widest] <= _TEXT_MIN:
            break
        widths[widest] -= 1
    return widths
