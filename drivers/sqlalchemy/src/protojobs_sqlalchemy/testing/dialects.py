"""The way of all databases inside a transaction that somebody else has begun: a savepoint for each verb, no commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import Connection

from protojobs.errors import NotSupported
from protojobs_sqlalchemy.dialect import Dialect, Mode

__all__ = ["Inside"]

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
