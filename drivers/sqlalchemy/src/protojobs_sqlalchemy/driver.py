"""SQLAlchemyDriver: the port's verbs, each one step on a connection. The hot statements are in the dialects' files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace
from sqlalchemy import URL, Engine

from protojobs.errors import OptionInvalid
from protojobs.port.driver import PORT_VERSION
from protojobs.port.records import Capabilities, ClaimedJob, ClaimReply, Enqueued, NewJob, Settled, Settlement
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.connecting.urls import (
    archive_of,
    backend_of,
    make_engine,
    make_sessions_engine,
    masked,
    parse,
)
from protojobs_sqlalchemy.diagnosing import Diagnosing
from protojobs_sqlalchemy.dialect import Ask, Dialect, Mode, Turned, Use
from protojobs_sqlalchemy.inspecting.inspection import Inspection
from protojobs_sqlalchemy.observing.observing import Observing
from protojobs_sqlalchemy.sessions.joining import Joining, load_if_the_orm_is
from protojobs_sqlalchemy.transfer import Transfer
from protojobs_sqlalchemy.verbs.administration import Administration
from protojobs_sqlalchemy.verbs.bounds import check_new, check_settlements
from protojobs_sqlalchemy.verbs.inserting import answers, due_queues
from protojobs_sqlalchemy.verbs.leases import Leases, lease_lost
from protojobs_sqlalchemy.verbs.schedules import Schedules

__all__ = ["SQLAlchemyDriver"]


_SET_ASIDE_ROUNDS = 10  # of at most as many jobs as were asked for


class SQLAlchemyDriver(Leases, Inspection, Administration, Schedules, Transfer, Observing, Joining, Diagnosing):
    """Jobs in SQLite, PostgreSQL, MariaDB or MySQL; implements `Store` and both transaction protocols.

    `where` is a URL, or your application's own Engine: then its pool is used, never disposed of, and no setting of its
    connections outlives a verb. Nothing is opened before the first verb. A verb takes at most about `timeout` seconds.

    `time_offset` is added to the store's clock (tests move it; 0 in production). `is_pooled` says that the URL leads to
    a pooler such as PgBouncer: nothing is kept in a session then, and LISTEN needs `listen_url`, a direct one.
    `archive="daily"` (or `?archive=daily` in the URL) puts completed jobs into a table with a partition for each day:
    for PostgreSQL and a million jobs a day or more. Give it to every process of the store.
    """

    port_version = PORT_VERSION

    def __init__(
        self,
        where: str | URL | Engine,
        *,
        time_offset: float = 0.0,
        timeout: float = 10.0,
        is_pooled: bool = False,
        listen_url: str | None = None,
        archive: str | None = None,
    ) -> None:
        load_if_the_orm_is()
        is_ours = not isinstance(where, Engine)
        if isinstance(where, Engine):
            backend_of(where)
            engine = where
            _, archives = archive_of(where.url, archive)
        elif isinstance(where, str | URL):
            url, archives = archive_of(parse(where), archive)
            engine = make_engine(url, timeout=timeout, is_pooled=is_pooled)
        else:
            raise OptionInvalid(
                f"A driver is made from a URL or an Engine, not from {type(where).__name__}.",
                mend="From an AsyncEngine, give its sync URL.",
            )
        listen = archive_of(parse(listen_url))[0] if listen_url else None if is_pooled else engine.url
        dialect = _dialect(engine, time_offset, is_ours=is_ours, timeout=timeout, listen=listen, archives=archives)
        if is_ours:
            dialect.prepare(engine)

        def make_sessions() -> Engine:
            sessions = make_sessions_engine(engine.url, is_pooled=is_pooled)
            dialect.prepare_sessions(sessions)
            return sessions

        connections = Connections(engine, dialect, make_sessions=make_sessions if is_ours else None)
        dialect.attach(connections.run)
        super().__init__(connections, dialect)
        self.capabilities = Capabilities(
            transactions=True, async_transactions=True, server_time=engine.dialect.name != "sqlite", observing=True
        )

    @classmethod
    def from_url(cls, url: str) -> SQLAlchemyDriver:
        """A driver with the default settings."""
        return cls(url)

    def __repr__(self) -> str:
        return f"<SQLAlchemyDriver {masked(self._connections.engine.url)}>"

    @property
    def engine(self) -> Engine:
        """For your own sessions: the engine that you gave, or one of the driver's with a pool for nothing else."""
        return self._connections.sessions

    @property
    def time_offset(self) -> float:
        """Seconds that the store's clock is ahead of the server's."""
        return self._dialect.time_offset

    @time_offset.setter
    def time_offset(self, seconds: float) -> None:
        self._dialect.time_offset = seconds

    # -------------------------------------------------------------------------------------------------- the storage

    def setup(self) -> None:
        """Create or upgrade the tables."""
        self.migrate()

    def teardown(self) -> None:
        """Remove the tables, jobs included."""
        self.migrate(down=True)

    def migrate(self, *, down: bool = False) -> list[str]:
        """As `setup` (or `teardown`); answers the revisions that were run."""
        from protojobs_sqlalchemy.migrations.migrating import Schema  # Alembic is a quarter of the import time

        applied = Schema(self._connections, self._dialect).migrate(down=down)
        self._is_checked = False
        if not down:
            self._connections.run(self._check, Mode.READ)
            if self._dialect.archives:
                self._turn_over(None)
        return applied

    def migration_sql(self, *, down: bool = False) -> str:
        """The statements of a whole migration, to be read or run by hand."""
        from protojobs_sqlalchemy.migrations.migrating import Schema  # Alembic is a quarter of the import time

        return Schema(self._connections, self._dialect).sql(down=down)

    def close(self) -> None:
        """Give back connections; the next verb opens new ones."""
        self._dialect.close()
        self._connections.close()

    def now(self) -> datetime:
        """Store time."""
        return self._connections.run(self._dialect.now, Mode.SINGLE)

    # -------------------------------------------------------------------------------------------------- the hot path

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Store all of `jobs` or none."""
        if not jobs:
            return []
        check_new(jobs)
        mode = self._dialect.enqueue_mode(jobs)
        stored = self._run(lambda conn: self._dialect.enqueue(conn, jobs), mode, is_repeatable=True)  # by the ids
        self._dialect.ring(due_queues(jobs))
        return answers([job.id for job in jobs], stored)

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        """Lend up to `limit` due jobs; LeaseLost when the worker's row is gone."""
        reply = self._turn(Ask(worker=worker, queues=queues, slots=slots, limit=limit))
        if reply.lease_lost:
            raise lease_lost(worker)
        return list(reply.claimed)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Apply each settlement whose claim is the job's current one; answer in order."""
        if not settlements:
            return []
        return list(self._turn(Ask(worker=settlements[0].reserved_by, settlements=settlements)).settled)

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        """`settle`, then `claim`, in one round trip where the database can."""
        return self._turn(Ask(worker=worker, settlements=settlements, queues=queues, slots=slots, limit=limit))

    def _turn(self, ask: Ask, *, rounds_left: int = _SET_ASIDE_ROUNDS) -> ClaimReply:
        check_settlements(ask.settlements)
        reply = self._run(lambda conn: self._dialect.turn(conn, ask), self._dialect.turn_mode, use=Use.WORK)
        if isinstance(reply, Turned):
            self._set_aside(reply.unreadable)
            if not reply.claimed and rounds_left:  # only such jobs stood in front: the queues are not empty
                more = self._turn(replace(ask, settlements=()), rounds_left=rounds_left - 1)
                return replace(more, settled=reply.settled)
        return reply

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Block for up to `timeout` seconds, or until one of `queues` may have a due job."""
        with self._connections.translating():
            return self._dialect.wait(queues, timeout)


def _dialect(
    engine: Engine, time_offset: float, *, is_ours: bool, timeout: float, listen: URL | None, archives: bool
) -> Dialect:
    if engine.dialect.name == "sqlite":
        from protojobs_sqlalchemy.sqlite.dialect import SQLiteDialect

        return SQLiteDialect(engine, time_offset, is_ours=is_ours)
    if engine.dialect.name == "postgresql":
        from protojobs_sqlalchemy.postgresql.dialect import PostgreSQLDialect  # its DBAPI is an extra

        return PostgreSQLDialect(engine, time_offset, timeout=timeout, listen=listen, archives=archives)
    from protojobs_sqlalchemy.mariadb.dialect import MariaDBDialect  # its DBAPI is an extra

    return MariaDBDialect(engine, time_offset, is_ours=is_ours)
