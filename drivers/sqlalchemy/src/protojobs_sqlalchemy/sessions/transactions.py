"""Jobs that commit or vanish with the caller's own rows: whose connection it is, and what follows its root commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError, UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from protojobs.errors import OptionInvalid
from protojobs_sqlalchemy.tables.models import models_of
from protojobs_sqlalchemy.tables.tables import Tables

__all__ = ["asynchronous", "connection_of", "session_of", "when_committed"]

_KEY = "protojobs.when_committed"


def session_of(transaction: object) -> Session | None:
    """The Session, where the caller gave one (or a registry of them)."""
    if isinstance(transaction, scoped_session):
        return cast("scoped_session[Session]", transaction)()
    return transaction if isinstance(transaction, Session) else None


def connection_of(transaction: object, tables: Tables) -> Connection:
    """The caller's connection to the database that holds the jobs table; OptionInvalid for what has none."""
    session = session_of(transaction)
    if session is not None:
        try:
            # A session may be bound to several databases: ours is the one of the jobs table.
            model, _ = models_of(tables)
            return session.connection(bind_arguments={"mapper": model.__mapper__, "clause": tables.jobs})
        except UnboundExecutionError as error:
            raise OptionInvalid(
                "The session is bound to no database for the jobs table.",
                mend="Bind it to an engine, or name driver.job_model in its binds=.",
            ) from error
        except InvalidRequestError as error:
            raise OptionInvalid(f"The session is in no state to store a job: {error}") from error
    if isinstance(transaction, Connection):
        return transaction
    kind = type(transaction).__name__
    if isinstance(transaction, AsyncSession | AsyncConnection | async_scoped_session):
        raise OptionInvalid(f"{kind} is asynchronous.", mend="Use apush (or aenqueue_in), and await it.")
    raise OptionInvalid(
        f"{kind} is no transaction that this driver knows.",
        mend="Give a SQLAlchemy Session, scoped_session or Connection.",
    )


def asynchronous(transaction: object) -> AsyncSession | AsyncConnection:
    """The caller's AsyncSession or AsyncConnection; OptionInvalid for anything else."""
    if isinstance(transaction, async_scoped_session):
        return cast("async_scoped_session[AsyncSession]", transaction)()
    if isinstance(transaction, AsyncSession | AsyncConnection):
        return transaction
    kind = type(transaction).__name__
    raise OptionInvalid(
        f"{kind} is no asynchronous transaction.",
        mend="Give an AsyncSession or AsyncConnection; for a Session use push instead of apush.",
    )


def when_committed(session: Session, conn: Connection, callback: Callable[[], None]) -> None:
    """Call `callback` once after the session's root commit; never if it, or the savepoint it is in, rolls back."""
    _Promises.of(session).add(conn, callback)


class _Promises:
    """What one session owes to the jobs that were pushed in it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._owed: list[tuple[list[SessionTransaction], Connection, Callable[[], None]]] = []
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_soft_rollback", self._rolled_back)
        event.listen(session, "after_transaction_end", self._ended)

    @classmethod
    def of(cls, session: Session) -> _Promises:
        """The session's own, made on first use."""
        if _KEY not in session.info:
            session.info[_KEY] = cls(session)
        promises = session.info[_KEY]
        assert isinstance(promises, cls)
        return promises

    def add(self, conn: Connection, callback: Callable[[], None]) -> None:
        """Owe `callback`, to be dropped with any of the transactions that are open now."""
        chain: list[SessionTransaction] = []
        inner = self._session.get_nested_transaction() or self._session.get_transaction()
        while inner is not None:
            chain.append(inner)
            inner = inner.parent
        self._owed.append((chain, conn, callback))

    def _committed(self, session: Session) -> None:
        if session.get_nested_transaction() is not None:
            return  # only a savepoint was released
        owed, self._owed = self._owed, []
        for _, conn, callback in owed:
            # A session that was bound to a connection with a transaction of its own has committed nothing yet, and we
            # are not told when that one does.
            if conn.closed or not conn.in_transaction():
                callback()

    def _rolled_back(self, _session: Session, transaction: SessionTransaction) -> None:
        self._owed = [owed for owed in self._owed if transaction not in owed[0]]

    def _ended(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:  # closed without a commit
            self._owed = []
