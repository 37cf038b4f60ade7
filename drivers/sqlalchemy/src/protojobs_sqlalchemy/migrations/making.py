"""What the steps are made of: each object is made, or removed, only where that is still to be done.

The steps name tables and indexes plainly; here they get the names of the store that is migrated.

MariaDB and MySQL commit every statement by itself, so a starter that dies half-way leaves some of them behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import sqlalchemy as sa
from alembic import context, op

from protojobs_sqlalchemy.tables.naming import VERSION_TABLE, Names

__all__ = [
    "Tables",
    "drop_column",
    "drop_index",
    "drop_table",
    "is_on",
    "lacking",
    "make_column",
    "make_index",
    "make_table",
    "names",
    "note_readable_from",
]

Tables: TypeAlias = dict[str, Sequence[sa.Column[object]]]


def names() -> Names:
    """Those of the store that is being migrated."""
    given: Names = context.config.attributes["names"]
    return given


def make_table(name: str, *columns: sa.Column[object], postgresql_with: Mapping[str, object] | None = None) -> None:
    """Create a table; `postgresql_with` are its storage parameters on PostgreSQL."""
    op.create_table(
        names().bare(name),
        *columns,
        schema=names().schema,
        if_not_exists=True,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )
    if postgresql_with and is_on("postgresql"):
        # A statement of its own, since CREATE TABLE ... WITH needs SQLAlchemy 2.1.
        settings = ", ".join(f"{key} = {value}" for key, value in postgresql_with.items())
        op.execute(f"ALTER TABLE {names().quoted(name)} SET ({settings})")


def make_index(name: str, table: str, columns: list[str], *, where: str | None = None, unique: bool = False) -> None:
    """Create an index; `where` makes it a partial one, where the database has those."""
    if _has_index(name, table) is True:
        return
    condition = sa.text(where) if where else None
    op.create_index(
        names().bare(name),
        names().bare(table),
        columns,
        schema=names().schema,
        unique=unique,
        postgresql_where=condition,
        sqlite_where=condition,
    )


def make_column(table: str, column: sa.Column[object]) -> None:
    """Add a column."""
    if _has_column(column.name, table) is not True:
        op.add_column(names().bare(table), column, schema=names().schema)


def is_on(*databases: str) -> bool:
    """Whether the step runs on one of these databases, as SQLAlchemy names them."""
    return op.get_context().dialect.name in databases


def note_readable_from(version: str) -> None:
    """Say that releases which know this version can work on the tables."""
    columns = sa.column("readable_from", sa.String)
    versions = sa.table(names().bare(VERSION_TABLE), columns, schema=names().schema)
    op.execute(sa.update(versions).values(readable_from=op.inline_literal(version)))


def drop_table(name: str, columns: Sequence[sa.Column[object]]) -> None:
    """Remove a table. The application's own of the same name stays."""
    if context.is_offline_mode() or not lacking(op.get_bind(), names().bare(name), columns, names().schema):
        op.drop_table(names().bare(name), schema=names().schema, if_exists=True)


def drop_index(name: str, table: str) -> None:
    """Remove an index."""
    if _has_index(name, table) is not False:
        op.drop_index(names().bare(name), table_name=names().bare(table), schema=names().schema)


def drop_column(table: str, name: str) -> None:
    """Remove a column."""
    if _has_column(name, table) is not False:
        op.drop_column(names().bare(table), name, schema=names().schema)


def lacking(
    conn: sa.Connection, name: str, columns: Sequence[sa.Column[object]], schema: str | None = None
) -> list[str]:
    """Which of these columns the table of that name does not have; none where there is no such table."""
    look = sa.inspect(conn)
    if not look.has_table(name, schema):
        return []
    there = {column["name"] for column in look.get_columns(name, schema)}
    return [column.name for column in columns if column.name not in there]


def _has_index(name: str, table: str) -> bool | None:
    """None: nobody can tell, since the statements are only printed."""
    if context.is_offline_mode():
        return None
    there = sa.inspect(op.get_bind()).get_indexes(names().bare(table), names().schema)
    return names().bare(name) in {index["name"] for index in there}


def _has_column(name: str, table: str) -> bool | None:
    if context.is_offline_mode():
        return None
    there = sa.inspect(op.get_bind()).get_columns(names().bare(table), names().schema)
    return name in {column["name"] for column in there}
