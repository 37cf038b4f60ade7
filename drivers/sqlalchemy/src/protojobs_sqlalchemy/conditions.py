"""Conditions in the words of the indexes: a partial index serves a query only if its condition stands there literally.

MariaDB and MySQL have no partial indexes; there a generated column that is NULL outside the condition stands in.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, column, literal_column

from protojobs.lifecycle import JobState
from protojobs_sqlalchemy.tables import jobs
from protojobs_sqlalchemy.types import Name

__all__ = ["is_finished", "is_mysql", "is_pending", "is_processing", "ready"]


def is_mysql(conn: Connection) -> bool:
    """MariaDB or MySQL."""
    return conn.dialect.name in ("mysql", "mariadb")


def _is(state: JobState) -> ColumnElement[bool]:
    return jobs.c.status == literal_column(f"'{state.value}'")


def ready(conn: Connection) -> ColumnElement[str]:
    """The first column of jobs_ready: the name of a pending job's queue."""
    return column("ready", Name(100)) if is_mysql(conn) else jobs.c.queue


def is_pending(conn: Connection, queue: str | None = None) -> list[ColumnElement[bool]]:
    """Pending, in `queue` if one is named; served by jobs_ready."""
    if is_mysql(conn):
        return [ready(conn).is_not(None) if queue is None else ready(conn) == queue]
    return [_is(JobState.PENDING)] if queue is None else [_is(JobState.PENDING), jobs.c.queue == queue]


def is_processing(conn: Connection) -> ColumnElement[bool]:
    """Processing; served by jobs_processing."""
    return jobs.c.reserved_by.is_not(None) if is_mysql(conn) else _is(JobState.PROCESSING)


def is_finished(conn: Connection, state: JobState) -> list[ColumnElement[bool]]:
    """Finished in this way; served by jobs_finished."""
    if is_mysql(conn):
        return [column("finished", Name(12)) == state.value]
    return [_is(state), jobs.c.processed_at.is_not(None)]
