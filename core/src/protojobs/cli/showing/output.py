"""What a command prints: data on stdout, as a table, as tab-separated lines or as JSON; notes on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import cast

import click
import msgspec

from protojobs.cli.showing.tables import Cell, Column, plain, print_table, readable
from protojobs.cli.showing.text import age, escaped, escaped_lines

__all__ = ["Output", "decoded", "plain_values"]

_JSON_TEXTS = ("data", "retry_policy", "meta")  # columns that hold JSON as text: shown as what they hold


class Output:
    """Prints one list or one item: JSON with `is_json`, else a table on a terminal, else tab-separated lines."""

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        self.is_terminal = sys.stdout.isatty()

    def note(self, text: str) -> None:
        """Print a line for people on stderr."""
        click.echo(escaped(text), err=True)

    def items(  # noqa: PLR0913  (what a list is: its name, contents, looks and continuation)
        self,
        schema: str,
        records: Sequence[object],
        columns: Sequence[Column],
        rows: Iterable[Sequence[Cell]],
        *,
        now: Callable[[], datetime] | None = None,
        cursor: str | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        """A list. `records` make the JSON, `rows` (a cell for each column) the table; ages are counted from `now`."""
        if self.is_json:
            items = [plain_values(record) for record in records]
            self._document({"schema": f"protojobs/{schema}", "items": items, **(more or {}), "next": cursor})
        elif not self.is_terminal:
            for row in rows:
                click.echo("\t".join(plain(cell) for cell in row))
        elif table := [list(row) for row in rows]:
            moment = now() if now and any(isinstance(cell, datetime) for row in table for cell in row) else None
            print_table(columns, [[readable(cell, moment) for cell in row] for row in table])

    def item(
        self,
        schema: str,
        record: object,
        fields: Iterable[tuple[str, Cell]],
        *,
        blocks: Iterable[tuple[str, str]] = (),
        now: Callable[[], datetime] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        """One thing: a line for each field, and blocks of several lines such as a traceback."""
        if self.is_json:
            values = {**cast("dict[str, object]", plain_values(record)), **(more or {})}
            self._document({"schema": f"protojobs/{schema}", "item": values})
            return
        moment = now() if now and self.is_terminal else None
        for label, cell in fields:
            if not self.is_terminal:
                click.echo(f"{label}\t{plain(cell)}")
            elif cell is not None:
                click.echo(f"{click.style(f'{label:14}', bold=True)} {_moment_and_age(cell, moment)}")
        for label, text in blocks:
            click.echo(click.style(f"{label}:", bold=self.is_terminal or None))
            for line in escaped_lines(text.rstrip()):
                click.echo(f"  {line}".rstrip())

    def _document(self, document: Mapping[str, object]) -> None:
        # The letters stay readable, and no control character gets through: JSON's own escapes say the same.
        text = json.dumps(document, ensure_ascii=False, indent=2)
        for line in text.split("\n"):
            click.echo("".join(c if c.isprintable() else _json_escape(c) for c in line))


def _json_escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else json.dumps(character)[1:-1]


def plain_values(record: object) -> object:
    """A record as values that JSON has: times as ISO 8601 in UTC, JSON texts as what they hold."""
    values = cast("object", msgspec.to_builtins(record))
    if isinstance(values, dict):
        named = cast("dict[str, object]", values)
        return {name: decoded(value) if name in _JSON_TEXTS else value for name, value in named.items()}
    return values


def decoded(value: object) -> object:
    """What a text of JSON holds; what is no such text as it is."""
    try:
        return msgspec.json.decode(value) if isinstance(value, str) else value
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # encrypted by a plugin, or spoilt: then as it is
        return value


def _moment_and_age(cell: Cell, now: datetime | None) -> str:
    if isinstance(cell, datetime) and now is not None:
        return f"{cell.strftime('%Y-%m-%d %H:%M:%S')} UTC ({age(cell, now)})"
    return plain(cell)
