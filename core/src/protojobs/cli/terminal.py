"""Tables on a terminal, drawn by rich. Loaded only when stdout is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from protojobs.cli.output import Column

__all__ = ["print_table"]

_STATES = {
    "completed": "green",
    "failed": "red",
    "processing": "cyan",
    "cancelled": "dim",
    "moving": "yellow",
    "paused": "yellow",
    "lapsed": "red",
    "broken": "red",
    "disabled": "dim",
}


_FLEXIBLE_MIN = 12  # letters that a column of text keeps, however narrow the terminal


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table as wide as the terminal. Cells are taken as they are: rich's markup means nothing in them.

    Only columns of text are cut. Half an id, a number or an age would be wrong; rather the lines are too long.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    needed = 0
    for index, column in enumerate(columns):
        widest = max(cell_len(cell) for cell in (column.title, *(row[index] for row in rows)))
        least = min(widest, _FLEXIBLE_MIN) if column.kind == "text" else widest
        needed += least + 2
        justify: JustifyMethod = "right" if column.kind in ("number", "time") else "left"
        table.add_column(Text(column.title), justify=justify, no_wrap=True, overflow="ellipsis", min_width=least)
    for row in rows:
        styles = [_STATES.get(cell, "") if col.kind == "state" else "" for col, cell in zip(columns, row, strict=True)]
        table.add_row(*(Text(cell, style=style) for cell, style in zip(row, styles, strict=True)))
    console = Console()
    console.width = max(console.width, needed)
    console.print(table)
