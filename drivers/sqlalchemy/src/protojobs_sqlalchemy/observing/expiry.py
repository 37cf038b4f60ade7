"""Deleting notes that have outlived their time, in small steps: SQLite has one write lock, and claims wait for it."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from sqlalchemy import Connection, bindparam, text

from protojobs.port.observing import ACTIONS_KEPT_S, ATTEMPTS_KEPT_S, HOUR, HOURS_KEPT_S, MINUTE, MINUTES_KEPT_S
from protojobs_sqlalchemy.tables.types import StoredTime
from protojobs_sqlalchemy.verbs.conditions import is_mysql

__all__ = ["KINDS", "TIME_S", "Kind", "expire"]

TIME_S = 1.0  # in one call, so that more go in a minute than come; a worker waits for two seconds at most
_AT_ONCE = 1_000  # notes in one step


class Kind(Struct, frozen=True):
    """One kind of notes, and how long it is kept; the condition is served by an index."""

    table: str
    is_old: str
    kept_s: float


KINDS = (
    Kind("rollups", f"period_s = {MINUTE} AND began_at < :before", MINUTES_KEPT_S),
    Kind("rollups", f"period_s = {HOUR} AND began_at < :before", HOURS_KEPT_S),
    Kind("depths", "at < :before", MINUTES_KEPT_S),
    Kind("attempts", "ended_at < :before", ATTEMPTS_KEPT_S),
    Kind("audit", "at < :before", ACTIONS_KEPT_S),
)


def expire(conn: Connection, kind: Kind, before: datetime) -> bool:
    """Delete notes from before then; True when there may be more."""
    statement = text(_statement(conn, kind)).bindparams(bindparam("before", type_=StoredTime))
    return conn.execute(statement, {"before": before, "most": _AT_ONCE}).rowcount >= _AT_ONCE


def _statement(conn: Connection, kind: Kind) -> str:
    if is_mysql(conn):
        return f"DELETE FROM {kind.table} WHERE {kind.is_old} LIMIT :most"
    place = "ctid" if conn.dialect.name == "postgresql" else "rowid"
    old = f"SELECT {place} FROM {kind.table} WHERE {kind.is_old} LIMIT :most"
    # ARRAY, since PostgreSQL would join a plain subquery with all rows.
    chosen = f"= ANY (ARRAY ({old}))" if place == "ctid" else f"IN ({old})"
    return f"DELETE FROM {kind.table} WHERE {place} {chosen}"
