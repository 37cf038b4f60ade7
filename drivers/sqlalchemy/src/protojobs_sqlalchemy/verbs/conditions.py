"""Conditions in the words of the indexes: a partial index serves a query only if its condition stands there literally.

MariaDB and MySQL have no partial indexes; there a generated column that is NULL outside the condition stands in.
"""

from __future__ import annotations

from itertools import pairwise

from sqlalchemy import ColumnElement, Connection, column, literal_column

from protojobs.port.lifecycle import STORED, JobState
from protojobs_sqlalchemy.tables.tables import jobs
from protojobs_sqlalchemy.tables.types import Name

__all__ = ["in_no_state", "is_finished", "is_mysql", "is_pending", "is_processing", "is_without_holder", "ready"]


_is_not_live = jobs.c.status.not_in([literal_column("'pending'"), literal_column("'processing'")])
_finished = column("finished", Name(12))


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
        return [_finished == state.value]
    return [_is(state), _is_not_live]


def is_without_holder() -> ColumnElement[bool]:
    """Processing, and nobody holds it; served by jobs_finished on MariaDB and MySQL."""
    return _finished == JobState.PROCESSING.value


def in_no_state(conn: Connection) -> list[list[ColumnElement[bool]]]:
    """In a state that no driver writes: the spans of jobs_finished between those that there are."""
    status = _finished if is_mysql(conn) else jobs.c.status
    known: list[ColumnElement[str]] = [
        literal_column(f"'{state.value}'") for state in sorted(set(STORED) - {JobState.PENDING})
    ]
    spans = [[status < known[0]], *([status > a, status < b] for a, b in pairwise(known)), [status > known[-1]]]
    return spans if is_mysql(conn) else [[*span, _is_not_live] for span in spans]
