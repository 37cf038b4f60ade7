"""Notes that have outlived their time are deleted in small steps: SQLite has one write lock, and claims wait for it."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from sqlalchemy import Connection, bindparam, text

from protojobs.port.observing import ACTIONS_KEPT_S, ATTEMPTS_KEPT_S, HOUR, HOURS_KEPT_S, MINUTE, MINUTES_KEPT_S
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.tables.types import StoredTime

__all__ = ["KINDS", "Kind", "expire"]

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


def expire(conn: Connection, dialect: Dialect, kind: Kind, before: datetime) -> bool:
    """Delete notes from before then; True when there may be more."""
    statement = text(dialect.delete_some(dialect.names.quoted(kind.table), kind.is_old)).bindparams(
        bindparam("before", type_=StoredTime)
    )
    return conn.execute(statement, {"before": before, "most": _AT_ONCE}).rowcount >= _AT_ONCE
