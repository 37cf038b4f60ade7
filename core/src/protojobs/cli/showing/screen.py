"""A terminal that is drawn again and again by rich, and given back as it was. Loaded only for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from protojobs.cli.showing.terminal import table
from protojobs.cli.showing.text import escaped

if TYPE_CHECKING:
    from protojobs.cli.showing.output import Column

__all__ = ["Screen"]


class Screen:
    """A context manager: what was on the terminal is there again after the block."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    @property
    def height(self) -> int:
        """Lines."""
        return self._console.height

    def show(self, lines: Sequence[str], tables: Sequence[tuple[Sequence[Column], Sequence[Sequence[str]]]]) -> None:
        """Draw this, in place of what was there. Empty tables and lines are left out."""
        parts: list[RenderableType] = [
            Text(escaped(line), style="bold", no_wrap=True, overflow="ellipsis") for line in lines if line
        ]
        for columns, rows in tables:
            if rows:
                parts += [Text(""), table(columns, rows, self._console.width)[0]]
        self._live.update(Group(*parts), refresh=True)
