"""PostgreSQL's way inside a test's transaction, and a plain connection of psycopg on the wire of an AsyncConnection."""

from __future__ import annotations

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from protojobs.errors import ConfigurationError
from protojobs_sqlalchemy.postgresql.dialect import PostgreSQLDialect
from protojobs_sqlalchemy.testing.dialects import Inside

__all__ = ["InsidePostgreSQL", "check_free", "on_the_wire_of"]


class InsidePostgreSQL(Inside, PostgreSQLDialect):
    """PostgreSQL."""


def check_free(wire: psycopg.AsyncConnection[object]) -> None:
    """Raise ConfigurationError while a task waits for the answer to a statement."""
    if wire.lock.locked() or wire.pgconn.transaction_status is TransactionStatus.ACTIVE:
        raise ConfigurationError(
            "Another task waits for an answer on this test's connection.",
            mend="Let one task at a time use it, and await each statement before the next one.",
        )


class _OnTheirWire(psycopg.Connection[tuple[object, ...]]):
    def __del__(self, *_warn: object) -> None:
        pass  # psycopg warns of connections that nobody has closed; this one's wire belongs to the AsyncConnection


def on_the_wire_of(theirs: psycopg.AsyncConnection[object]) -> _OnTheirWire:
    """A plain connection that sends on the same wire, and closes nothing."""
    wire = theirs.pgconn
    handlers = wire.notice_handler, wire.notify_handler
    ours = _OnTheirWire(wire, tuple_row)
    wire.notice_handler, wire.notify_handler = handlers  # which a new connection takes for itself
    ours.prepare_threshold = None  # both would give their prepared statements the same names
    if wire.transaction_status is TransactionStatus.IDLE:  # whoever sends the first statement begins
        ours.isolation_level, ours.read_only, ours.deferrable = (
            theirs.isolation_level,
            theirs.read_only,
            theirs.deferrable,
        )
    return ours
