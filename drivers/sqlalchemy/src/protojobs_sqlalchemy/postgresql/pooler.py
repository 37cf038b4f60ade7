"""What lies between this process and PostgreSQL: a pooler that hands sessions on, and whether NOTIFY arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol, runtime_checkable

from sqlalchemy import Connection

from protojobs.entropy import fresh_id
from protojobs.port.diagnosis import Finding, Severity, judged
from protojobs_sqlalchemy.dialect import Dialect

__all__ = ["notifications", "pooler"]

_MARK = "protojobs.mark"  # a setting of nobody's, by which a session is known again


@runtime_checkable
class _Listens(Protocol):
    def is_heard(self, conn: Connection) -> bool | None: ...


def pooler(conn: Connection, connect: Callable[[], Connection]) -> Iterator[Finding]:
    """Whether a session stays ours. One that is marked, and then used again after another client began a transaction,
    is another one behind a pooler in transaction mode: that client got the marked one.
    """
    mark, raw = fresh_id(), conn.connection.driver_connection
    prepares = getattr(raw, "prepare_threshold", None) is not None
    try:
        conn.exec_driver_sql("SELECT set_config(%s, %s, false)", (_MARK, mark))
        with closing(connect()) as other:
            other.exec_driver_sql("BEGIN")
            try:
                other.exec_driver_sql("SELECT 1")
                read = conn.exec_driver_sql("SELECT current_setting(%s, true)", (_MARK,)).scalar()
            finally:
                other.exec_driver_sql("ROLLBACK")
    finally:
        conn.exec_driver_sql("SELECT set_config(%s, '', false)", (_MARK,))
    is_pooled = read != mark
    is_wrong = is_pooled and prepares
    yield judged(
        "pooler",
        "A pooler hands sessions from client to client (transaction mode)."
        if is_pooled
        else "A session stays ours from statement to statement.",
        is_good=not is_wrong,
        bad=Severity.ERROR,
        why="Settings and prepared statements are a session's: they get lost, or another client meets them.",
        mend="SQLAlchemyDriver(url, is_pooled=True, listen_url=<a direct one>).",
    )


def notifications(conn: Connection, dialect: Dialect) -> Iterator[Finding]:
    """Whether a push can wake a worker."""
    is_heard = dialect.is_heard(conn) if isinstance(dialect, _Listens) else None
    if is_heard is None:
        yield Finding(
            code="doorbell",
            severity=Severity.NOTE,
            what="No listen_url is given, so no worker is woken by a push.",
            why="New jobs are found by polling, poll_interval seconds later at most.",
            mend="Give listen_url, a direct one that leads past the pooler.",
        )
        return
    yield judged(
        "doorbell",
        "A notification arrives." if is_heard else "A notification did not arrive within two seconds.",
        is_good=is_heard,
        why="LISTEN needs a session of its own; without it new jobs are found by polling, poll_interval seconds later.",
        mend="Give listen_url, a direct one that leads past the pooler.",
    )
