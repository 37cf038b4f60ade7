"""What was stored inside which savepoint of the application's, for those who want to hear of a rollback."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy import Connection, event
from sqlalchemy.sql.elements import ReleaseSavepointClause, RollbackToSavepointClause, SavepointClause

__all__ = ["Savepoints"]


class Savepoints:
    """The open savepoints of one transaction, each with whom to call when it is rolled back."""

    def __init__(self, conns: Iterable[Connection]) -> None:
        """`conns` are all that send savepoints into this transaction."""
        self._open: list[tuple[str, list[Callable[[], None]]]] = [("", [])]  # first the transaction itself
        # Not the events of savepoints themselves: the one of a new savepoint does not tell its name.
        for conn in conns:
            event.listen(conn, "before_execute", self._look)
            event.listen(conn, "rollback", self._ended)

    def when_rolled_back(self, callback: Callable[[], None]) -> None:
        """Call it once if the innermost savepoint that is open now, or one around it, is rolled back."""
        self._open[-1][1].append(callback)

    def _look(self, _conn: Connection, statement: object, *_values: object) -> None:
        match statement:
            case RollbackToSavepointClause():
                for callback in self._closed(_name_of(statement)):
                    callback()
            case ReleaseSavepointClause():
                callbacks = self._closed(_name_of(statement))
                self._open[-1][1].extend(callbacks)  # to what is around it
            case SavepointClause():
                self._open.append((_name_of(statement), []))
            case _:
                pass

    def _ended(self, _conn: Connection) -> None:
        callbacks = [callback for _, each in self._open for callback in each]
        self._open = [("", [])]
        for callback in callbacks:
            callback()

    def _closed(self, name: str) -> list[Callable[[], None]]:
        """Close this savepoint and those inside it; their callbacks. One that is not known closes nothing."""
        names = [known for known, _ in self._open]
        if name not in names[1:]:
            return []
        first = len(names) - 1 - names[::-1].index(name)  # of two connections' equal names, the inner one
        closed, self._open = self._open[first:], self._open[:first]
        return [callback for _, callbacks in closed for callback in callbacks]


def _name_of(statement: object) -> str:
    return str(getattr(statement, "ident", ""))  # SQLAlchemy gives it no type
