"""Inserts that say what to do where the row is there already, in each database's words.

SQLAlchemy keeps them with its dialects, of which a program loads that of its own store only: each takes megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Insert, Table
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from protojobs_sqlalchemy.verbs.conditions import is_mysql

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["insert_or_change", "insert_unless_there"]

Change: TypeAlias = Callable[[ReadOnlyColumnCollection[str, ColumnElement[Any]]], Mapping[str, ColumnElement[Any]]]
"""From the row that was to be inserted, what to set in the one that is there."""


def insert_unless_there(conn: Connection, table: Table) -> Insert:
    """Leave a row of the same primary key alone. Not for MariaDB and MySQL, which do not tell whether they did."""
    return _insert(conn, table).on_conflict_do_nothing(index_elements=list(table.primary_key))


def insert_or_change(conn: Connection, table: Table, change: Change) -> Insert:
    """Change a row of the same primary key."""
    if is_mysql(conn):
        from sqlalchemy.dialects import mysql

        said = mysql.insert(table)
        return said.on_duplicate_key_update(dict(change(said.inserted)))
    new = _insert(conn, table)
    return new.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(change(new.excluded)))


def _insert(conn: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    if conn.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
