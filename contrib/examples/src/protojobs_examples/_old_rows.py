"""Deletes old rows of a table in small transactions, so that no other transaction waits for long."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchTableError

__all__ = ["DatabaseUnavailable", "RowsDone", "TableRefused", "delete_old_rows"]


class DatabaseUnavailable(Exception):
    """The database does not answer, or is locked. Worth another try."""


class TableRefused(ValueError):
    """The table or its column is not what the job takes it for. Another try would not help."""


class RowsDone(msgspec.Struct, frozen=True):
    """How many rows, and whether there may be more."""

    rows: int
    has_more: bool


def delete_old_rows(  # noqa: PLR0913  (what, how old, how many, and how to stop)
    engine: sa.Engine, table: str, column: str, *, before: datetime, batch: int, dry_run: bool, stop: Callable[[], bool]
) -> RowsDone:
    """Delete the rows whose `column` is earlier than `before`, `batch` at a time, each batch in its own transaction.

    Times without a zone are taken for UTC. An empty time is not old. Raises TableRefused when there is no such table,
    it has no primary key, or the column holds no date or time; DatabaseUnavailable when the database does not answer.
    """
    try:
        reflected = _reflected(engine, table)
        is_old = _older(reflected, column, before)
        if dry_run:
            with engine.connect() as connection:
                count = connection.scalar(sa.select(sa.func.count()).select_from(reflected).where(is_old))
            return RowsDone(count or 0, has_more=False)
        rows = 0
        while not stop():
            with engine.begin() as connection:
                deleted = _delete_batch(connection, reflected, is_old, batch)
            rows += deleted
            if deleted < batch:
                return RowsDone(rows, has_more=False)
        return RowsDone(rows, has_more=True)
    except DBAPIError as error:
        raise DatabaseUnavailable(f"deleting old rows of {table} failed: {error.orig}") from error


def _reflected(engine: sa.Engine, name: str) -> sa.Table:
    schema, _, table = name.rpartition(".")
    try:
        reflected = sa.Table(table, sa.MetaData(), schema=schema or None, autoload_with=engine)
    except NoSuchTableError as error:
        raise TableRefused(f"there is no table {name}") from error
    if not reflected.primary_key.columns:
        raise TableRefused(f"table {name} has no primary key, so its rows cannot be deleted in batches")
    return reflected


def _older(table: sa.Table, name: str, before: datetime) -> sa.ColumnElement[bool]:
    column: sa.Column[object] | None = table.columns.get(name)
    if column is None:
        raise TableRefused(f"table {table.name} has no column {name}")
    if isinstance(column.type, sa.DateTime):
        return column < (
            before.astimezone(UTC) if column.type.timezone else before.astimezone(UTC).replace(tzinfo=None)
        )
    if isinstance(column.type, sa.Date):
        return column < before.astimezone(UTC).date()
    raise TableRefused(f"column {table.name}.{name} is of type {column.type}, not a date or time")


def _delete_batch(connection: sa.Connection, table: sa.Table, is_old: sa.ColumnElement[bool], batch: int) -> int:
    # By primary key: DELETE ... LIMIT exists on MySQL alone. `is_old` once more, for a row that was renewed in between.
    key = list(table.primary_key.columns)
    keys = [tuple(row) for row in connection.execute(sa.select(*key).where(is_old).limit(batch))]
    if not keys:
        return 0
    if len(key) == 1:
        is_chosen: sa.ColumnElement[bool] = key[0].in_([value for (value,) in keys])
    else:
        is_chosen = sa.tuple_(*key).in_(keys)
    connection.execute(sa.delete(table).where(is_chosen, is_old))
    return len(keys)
