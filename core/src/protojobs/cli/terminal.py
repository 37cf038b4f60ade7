"""Tables on a terminal, drawn by rich. Loaded only when stdout is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
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


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table as wide as the terminal. Cells are taken as they are: rich's markup means nothing in them."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        is_number = column.kind in ("number", "time")
        table.add_column(
            Text(column.title),
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="fold" if column.kind == "id" else "ellipsis",
            min_width=36 if column.kind == "id" and any(len(row[0]) == 36 for row in rows) else None,
        )
    for row in rows:
        table.add_row(
            *(
                Text(cell, style=_STATES.get(cell, "") if column.kind == "state" else "")
                for column, cell in zip(columns, row, strict=True)
            )
        )
    Console().print(table)
