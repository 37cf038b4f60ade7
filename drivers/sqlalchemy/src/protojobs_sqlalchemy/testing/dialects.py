"""Each database's way inside a transaction that somebody else has begun: a savepoint for each verb, and no commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import Connection

from protojobs.errors import NotSupported
from protojobs_sqlalchemy.dialect import Dialect, Mode
from protojobs_sqlalchemy.mariadb.dialect import MariaDBDialect
from protojobs_sqlalchemy.postgresql.dialect import PostgreSQLDialect
from protojobs_sqlalchemy.sqlite.dialect import SQLiteDialect
from protojobs_sqlalchemy.sqlite.jobs import raw_of

__all__ = ["Inside", "InsideMariaDB", "InsidePostgreSQL", "InsideSQLite"]

_SAVEPOINT = "protojobs_verb"


class Inside(Dialect):
    """What is alike: the frame of a verb is a savepoint, so the frames of its steps have nothing to do."""

    def enter(self, conn: Connection) -> None:
        """Begin a verb."""
        conn.exec_driver_sql(f"SAVEPOINT {_SAVEPOINT}")

    def leave(self, conn: Connection) -> None:
        """End it, and keep what it did as long as the transaction does."""
        conn.exec_driver_sql(f"RELEASE SAVEPOINT {_SAVEPOINT}")

    def undo(self, conn: Connection) -> None:
        conn.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")

    def begin(self, conn: Connection, mode: Mode) -> None:
        pass

    def end(self, conn: Connection, mode: Mode) -> None:
        self.restore(conn)

    def wake(self, queues: Iterable[str], *, told: Collection[str] = (), came_back: bool = False) -> None:
        pass  # nobody else can see these jobs

    def wake_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        pass

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        raise NotSupported(
            "A worker cannot share the one connection of a test with the test.", mend="Run the jobs by drain()."
        )


class InsideSQLite(Inside, SQLiteDialect):
    """SQLite. A savepoint outside of any transaction would be one, and its release a commit, so one is begun."""

    def enter(self, conn: Connection) -> None:
        raw = raw_of(conn)
        if not raw.in_transaction:
            raw.execute("BEGIN")
        super().enter(conn)

    def begin(self, conn: Connection, mode: Mode) -> None:
        conn.info.setdefault("text_factory", raw_of(conn).text_factory)  # which a turn changes


class InsidePostgreSQL(Inside, PostgreSQLDialect):
    """PostgreSQL."""


class InsideMariaDB(Inside, MariaDBDialect):
    """MariaDB and MySQL."""

    def _frame(self) -> tuple[Sequence[str], Sequence[str]]:
        return [], []
