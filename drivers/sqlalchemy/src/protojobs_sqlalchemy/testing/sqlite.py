"""SQLite's way inside a test's transaction."""

from __future__ import annotations

from sqlalchemy import Connection

from protojobs_sqlalchemy.dialect import Mode
from protojobs_sqlalchemy.sqlite.dialect import SQLiteDialect
from protojobs_sqlalchemy.sqlite.jobs import raw_of
from protojobs_sqlalchemy.testing.dialects import Inside

__all__ = ["InsideSQLite"]


class InsideSQLite(Inside, SQLiteDialect):
    """SQLite. A savepoint outside of any transaction would be one, and its release a commit, so one is begun."""

    def enter(self, conn: Connection) -> None:
        raw = raw_of(conn)
        if not raw.in_transaction:
            raw.execute("BEGIN")
        super().enter(conn)

    def begin(self, conn: Connection, mode: Mode) -> None:
        conn.info.setdefault("text_factory", raw_of(conn).text_factory)  # which a turn changes
