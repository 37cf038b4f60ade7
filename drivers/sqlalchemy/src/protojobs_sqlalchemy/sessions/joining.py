"""Jobs are pushed and completed inside the caller's own transaction, without a commit and on no other connection."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select, update

from protojobs.errors import LeaseLost, OptionInvalid
from protojobs.port.records import Enqueued, Fence, NewJob
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.connecting.urls import masked, same_address
from protojobs_sqlalchemy.dialect import Dialect, Mode
from protojobs_sqlalchemy.tables.types import is_job_id
from protojobs_sqlalchemy.verbs.counting import count, lone_shard
from protojobs_sqlalchemy.verbs.inserting import check_new, due_queues, enqueued, insert_absent, new_row

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["Joining", "load_if_the_orm_is"]


def load_if_the_orm_is() -> None:
    """Load what sessions need, where the program is likely to have some."""
    if "sqlalchemy.orm" in sys.modules:
        from protojobs_sqlalchemy.sessions import transactions  # noqa: F401  # pyright: ignore[reportUnusedImport]


class Joining:
    """Joins the transactions of sessions and connections that callers have.

    A worker whose jobs have no sessions does without the ORM and its six megabytes. A program that has loaded the ORM
    before it makes a driver gets the rest of what is needed here at once, and not in the middle of a transaction.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._dialect = connections.dialect
        self._identity: str | None = None  # of our database, as it was asked for last

    @contextmanager
    def begin(self) -> Generator[Session]:
        """A Session on `driver.engine`: committed at the end of the block, rolled back by an exception.

        The driver sets no time limit to its statements and transactions. On SQLite it holds the write lock from its
        start, so keep it short.
        """
        from sqlalchemy.orm import Session

        engine = self._connections.sessions.execution_options(sqlite_begin="IMMEDIATE")
        with Session(engine) as session, session.begin():
            yield session

    def enqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], on_commit: Callable[[], None] | None
    ) -> list[Enqueued]:
        """As `enqueue`, inside the caller's Session, scoped_session or Connection."""
        from protojobs_sqlalchemy.sessions.transactions import session_of, when_committed

        check_new(jobs)
        conn = self._join(transaction)
        session = session_of(transaction)
        queues = due_queues(jobs)
        with self._connections.translating():
            now = self._dialect.now(conn)
            stored = insert_absent(conn, self._dialect, [new_row(job, now) for job in jobs])
            if self._dialect.archive.has_jobs(conn):
                stored = self._dialect.archive.without_known(conn, stored)
            if session is None:
                self._dialect.wake_inside(conn, queues)
        if session is not None:
            when_committed(session, conn, lambda: self._dialect.wake(queues))
            if on_commit is not None:
                when_committed(session, conn, on_commit)
        return enqueued(jobs, stored)

    async def aenqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], on_commit: Callable[[], None] | None
    ) -> list[Enqueued]:
        """As `enqueue_in`, inside the caller's AsyncSession or AsyncConnection."""
        from protojobs_sqlalchemy.sessions.transactions import asynchronous

        theirs = asynchronous(transaction)
        return await theirs.run_sync(lambda inner: self.enqueue_in(inner, jobs, on_commit))

    def complete_in(self, transaction: object, claim: Fence) -> None:
        """Settle the claim as completed inside the caller's transaction; LeaseLost when it is not current."""
        conn = self._join(transaction)
        with self._connections.translating():
            now = self._dialect.now(conn)
            is_done = is_job_id(claim.id) is not None and self._complete(conn, claim, now)
        if not is_done:
            raise LeaseLost(
                f"Job {claim.id} is no longer lent to this run (claim {claim.claim_seq}), so it was not completed.",
                mend="Roll the transaction back: another run does the work.",
            )

    def _join(self, transaction: object) -> Connection:
        from protojobs_sqlalchemy.sessions.transactions import connection_of

        with self._connections.translating():
            conn = connection_of(transaction, self._dialect.tables)
            self._check_place(conn)
            if not self._connections.are_tables_checked:
                self._connections.check_tables_on(conn)
        return conn

    def _check_place(self, conn: Connection) -> None:
        """Raise OptionInvalid unless the caller's connection leads to the driver's database."""
        if not self._is_ours(conn):
            raise OptionInvalid(
                f"The transaction is on {masked(conn.engine.url)}, but the jobs are elsewhere.",
                mend=f"Give a session of {self._dialect.names.said(masked(self._connections.engine.url))}.",
            )

    def _complete(self, conn: Connection, claim: Fence, now: datetime) -> bool:
        archive = self._dialect.archive
        return (
            archive.complete(conn, claim, now)
            if archive.takes_completed
            else _complete(conn, self._dialect, claim, now)
        )

    def _is_ours(self, conn: Connection) -> bool:
        """Whether the caller's connection leads to the driver's database."""
        ours, other = self._connections.engine, conn.engine
        if other.pool is ours.pool or same_address(ours.url, other.url):
            return True
        if other.dialect.name != ours.dialect.name:
            return False
        # Another name for one server (localhost and 127.0.0.1, a socket, a pooler)? The database itself knows best.
        theirs = self._dialect.identity(conn)
        if self._identity != theirs:  # not asked yet, or the server started anew or failed over since
            self._identity = self._connections.run(self._dialect.identity, Mode.READ, needs_tables=False)
        return self._identity == theirs


def _complete(conn: Connection, dialect: Dialect, claim: Fence, now: datetime) -> bool:
    jobs = dialect.tables.jobs
    is_current = (jobs.c.id == claim.id, jobs.c.claim_seq == claim.claim_seq, jobs.c.reserved_by == claim.reserved_by)
    change = update(jobs).where(*is_current).values(status="completed", processed_at=now, reserved_by=None)
    if conn.execute(change).rowcount != 1:
        return False
    # A locking read: a plain one would fix the caller's snapshot, and MariaDB lets no transaction change what others
    # have committed since, such as a counter for which this one has waited.
    queue = conn.execute(select(jobs.c.queue).where(jobs.c.id == claim.id).with_for_update()).scalar_one()
    count(conn, dialect, {(queue, "completed"): 1}, lone_shard(claim.id))
    return True
