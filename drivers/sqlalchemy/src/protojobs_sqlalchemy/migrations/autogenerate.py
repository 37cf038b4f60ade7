"""For your own Alembic environment: `alembic revision --autogenerate` leaves the tables of protojobs alone.

Alembic compares the database with your models, and removes each table that it finds only in the database. In `env.py`,
hand `context.configure` a function of this module, and it does not look at ours:

    from protojobs_sqlalchemy.migrations.autogenerate import include_name

    context.configure(connection=connection, target_metadata=target_metadata, include_name=include_name)

For a store with `?schema=` or `?prefix=` in its URL, take `include_name_for(url)`. If you have an `include_name`
already, or several stores, a name is compared if all of them want it:

    def include_both(name, type_, parent_names):
        return mine(name, type_, parent_names) and include_name(name, type_, parent_names)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from alembic import context
from alembic.runtime.environment import NameFilterParentNames, NameFilterType
from sqlalchemy import URL

from protojobs_sqlalchemy.connecting.urls import parse
from protojobs_sqlalchemy.tables.naming import VERSION_TABLE, Names, names_in
from protojobs_sqlalchemy.tables.tables import tables_of

__all__ = ["IncludeName", "include_name", "include_name_for"]

IncludeName: TypeAlias = Callable[[str | None, NameFilterType, NameFilterParentNames], bool]
"""The form of Alembic's option `include_name`."""

_ARCHIVE = r"jobs_archive(_rest|_\d{8})?"  # partitioned by days, on PostgreSQL


def include_name_for(url: str | URL, *, schema: str | None = None, prefix: str | None = None) -> IncludeName:
    """An `include_name` for the store with this URL; `schema` and `prefix` as given to the driver beside the URL.

    It is False for the tables of that store, also with `include_schemas=True`, and True for all other names. Nothing
    is connected. Raises ConfigurationError for a URL that no SQL driver takes, and OptionInvalid for names that it
    refuses.
    """
    _, names = names_in(parse(url), schema, prefix)
    return _leaving_out(names)


def _leaving_out(names: Names) -> IncludeName:
    ours = {table.name for table in tables_of(names).metadata.tables.values()} | {names.bare(VERSION_TABLE)}
    archive = re.compile(names.bare(_ARCHIVE))

    def include(name: str | None, type_: NameFilterType, parent_names: NameFilterParentNames) -> bool:
        if type_ != "table" or name is None or not (name in ours or archive.fullmatch(name)):
            return True
        found_in = parent_names.get("schema_name")  # None: the connection's default schema
        if found_in is None and names.schema is not None:
            found_in = _default_schema()
        return found_in != names.schema

    return include


def _default_schema() -> str | None:
    try:
        return context.get_context().dialect.default_schema_name
    except (NameError, AttributeError):  # no env.py is run now: `compare_metadata` is called without one
        return "public"


_plain = _leaving_out(Names())


def include_name(name: str | None, type_: NameFilterType, parent_names: NameFilterParentNames) -> bool:
    """Whether Alembic is to compare what has this name: all but the tables of a store with the plain names."""
    return _plain(name, type_, parent_names)
