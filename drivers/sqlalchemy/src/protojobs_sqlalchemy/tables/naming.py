"""The names of one store's objects in its database: tables, indexes, functions, channels and locks.

A store is told apart from others of the same database by a schema of its own (PostgreSQL's) or by a prefix. Statements
that are written by hand say `@jobs` where the table `jobs` of their store is meant. Nothing here depends on a
search_path, so the statements also work on a caller's connection and behind a pooler.
"""

from __future__ import annotations

import hashlib
import re
from typing import LiteralString, cast

from sqlalchemy import URL

from protojobs.errors import OptionInvalid, shown

__all__ = ["PREFIX_MAX", "VERSION_TABLE", "Names", "names_in"]

VERSION_TABLE = "protojobs_schema_version"
SCHEMA_MAX = 63  # characters, as PostgreSQL's own bound
PREFIX_MAX = 32  # with the longest name of an index or a constraint behind it, 63 characters are not exceeded
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_MARKED = re.compile(r"@([a-z_]+)")
_KEPT_MAX = 1_000  # statements; there are about a hundred


class Names:
    """The names of a store with this schema and this prefix. Without both they are the plain ones."""

    def __init__(self, schema: str | None = None, prefix: str = "") -> None:
        """Raises OptionInvalid for what cannot stand in front of a name."""
        if schema is not None:
            _check("schema", schema, SCHEMA_MAX)
            if schema.startswith("pg_") or schema == "information_schema":
                raise OptionInvalid(f"schema={schema} is PostgreSQL's own.", mend="Take another name.")
        if prefix:
            _check("prefix", prefix, PREFIX_MAX)
        self.schema = schema
        self.prefix = prefix
        self._filled: dict[str, LiteralString] = {}

    def __repr__(self) -> str:
        return f"Names(schema={self.schema!r}, prefix={self.prefix!r})"

    def bare(self, name: str) -> str:
        """As the database's catalogue has it, without the schema."""
        return self.prefix + name

    def quoted(self, name: str) -> str:
        """As a statement names it."""
        return self.bare(name) if self.schema is None else f'"{self.schema}".{self.bare(name)}'

    def sql(self, statement: str) -> LiteralString:
        """The statement with this store's names in it: `@jobs` is its table `jobs`. For fixed texts."""
        filled = self._filled.get(statement)
        if filled is None:
            # Names are checked, so what is filled in is as safe as what is written in the program.
            text = _MARKED.sub(lambda mark: self.quoted(mark[1]), statement)
            filled = cast("LiteralString", text)  # type: ignore[redundant-cast]  # to mypy it is a str
            if len(self._filled) < _KEPT_MAX:
                self._filled[statement] = filled
        return filled

    def channel(self, name: str) -> str:
        """A channel of PostgreSQL's, which are the whole database's."""
        if self.schema is None and not self.prefix:
            return name
        digest = hashlib.sha256(f"{self.schema or ''}.{self.prefix}".encode()).hexdigest()
        return f"{name}_{digest[:12]}"

    @property
    def place(self) -> str:
        """SQL for the text that tells this store's advisory locks on PostgreSQL from those of others."""
        schema = "current_schema()" if self.schema is None else f"'{self.schema}'"
        return f"{schema} || ' {self.prefix}'" if self.prefix else schema

    def said(self, place: str) -> str:
        """A database's URL, and where in it the store is, for people."""
        parts = [f'schema "{self.schema}"'] if self.schema is not None else []
        parts += [f'prefix "{self.prefix}"'] if self.prefix else []
        return f"{place} ({', '.join(parts)})" if parts else place


def names_in(url: URL, schema: str | None, prefix: str | None) -> tuple[URL, Names]:
    """The URL without the options `schema` and `prefix`, and the names that they ask for; the options are given apart.

    Raises OptionInvalid where both are given and differ, and for a schema where the database has none.
    """
    schema, prefix = _option(url, "schema", schema), _option(url, "prefix", prefix)
    if schema is not None and url.get_backend_name() != "postgresql":
        raise OptionInvalid(
            f"schema={schema}: only PostgreSQL has schemas.",
            mend=f"Write ?prefix={schema}_ instead, or take another database.",
        )
    return url.difference_update_query(["schema", "prefix"]), Names(schema, prefix or "")


def _option(url: URL, name: str, given: str | None) -> str | None:
    value = url.query.get(name, given)
    if value is not None and not isinstance(value, str):
        raise OptionInvalid(f"The URL names {name} more than once.", mend="Name it once.")
    if given is not None and given != value:
        raise OptionInvalid(f"{name}={given} is given, and the URL says {name}={value}.", mend="Name it in one place.")
    return value


def _check(option: str, name: str, most: int) -> None:
    if len(name) > most:
        raise OptionInvalid(
            f"{option}={shown(name, 80)} has {len(name)} characters.", mend=f"Take one of at most {most}."
        )
    if not _NAME.fullmatch(name):
        raise OptionInvalid(
            f"{option}={shown(name)} is no plain name.",
            mend="Write it in lower-case letters (a to z), digits and underscores, and begin with no digit.",
        )
