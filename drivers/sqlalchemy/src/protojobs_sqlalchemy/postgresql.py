"""PostgreSQL: one statement settles what is finished and claims what comes next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, LiteralString

import psycopg
from msgspec.structs import replace
from psycopg import errors
from sqlalchemy import URL, Connection, Engine, event, func, select

from protojobs.errors import ProtojobsError
from protojobs.lifecycle import Verb
from protojobs.records import ClaimReply, NewJob
from protojobs_sqlalchemy import postgresql_archive, settling
from protojobs_sqlalchemy import postgresql_statements as sql
from protojobs_sqlalchemy.bell import Bell
from protojobs_sqlalchemy.bounded import BoundedConnection
from protojobs_sqlalchemy.counting import shard_of
from protojobs_sqlalchemy.dialects import Ask, Mode, Run
from protojobs_sqlalchemy.ids import canonical
from protojobs_sqlalchemy.lanes import LaneMemory
from protojobs_sqlalchemy.listening import BACK_CHANNEL, CHANNEL, Listener, is_heard
from protojobs_sqlalchemy.notifying import Notifier
from protojobs_sqlalchemy.postgresql_turn import Row, Turn, fetched, is_plain, raw_of
from protojobs_sqlalchemy.postgresql_values import are_alike, columns_of, span_of, values_of

__all__ = ["PostgreSQLDialect"]

_MIGRATION_S = 3600.0  # how long one statement of a migration may take
_SCHEMA_TRIES = 600  # a minute
_SCHEMA_PAUSE_S = 0.1
_TABLE_LOCK_MS = 2_000  # that a migration waits for a table, before it lets the others pass and tries again


class PostgreSQLDialect:
    """The hot statements on psycopg's own cursor, in the time of the server's clock."""

    turn_mode = Mode.SINGLE

    def __init__(
        self, engine: Engine, time_offset: float, *, timeout: float, listen: URL | None, archives: bool = False
    ) -> None:
        self.time_offset = time_offset
        self.archives = archives
        self._has_archive = True if archives else None
        self._engine = engine
        self._timeout = timeout
        self._listen_url = listen
        self._lanes = LaneMemory()
        self._bell = Bell()
        self._heard = 0
        self._listener = Listener(self._bell, self._open_listener, self._lanes.note_enqueue)
        self._notifier = Notifier(partial(self._notify, CHANNEL))
        self._back_notifier = Notifier(partial(self._notify, BACK_CHANNEL))
        self._run: Run | None = None

    # ------------------------------------------------------------------------------------------------------ steps

    def prepare(self, engine: Engine) -> None:
        """See Dialect.prepare."""

        @event.listens_for(engine, "do_connect")
        def _connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> object:
            raw = BoundedConnection.connect(*arguments, **options)
            raw.wait_s = self._timeout
            return raw

    def prepare_sessions(self, engine: Engine) -> None:
        """See Dialect.prepare_sessions."""
        # psycopg's own connections do

    def attach(self, run: Run) -> None:
        """See Dialect.attach."""
        self._run = run

    def begin(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.begin."""
        # What is read in several statements is read at one moment; a writer must see what was committed just now.
        level = "REPEATABLE READ" if mode is Mode.READ else "READ COMMITTED"
        # A client that froze inside a transaction must not hold its locks for ever: not behind a pooler either, nor on
        # an application's engine. One packet for both statements.
        limit_ms = int(self._timeout * 1000)
        begin = f"BEGIN ISOLATION LEVEL {level}; SET LOCAL idle_in_transaction_session_timeout = {limit_ms}"
        raw_of(conn).execute(begin.encode())

    def end(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.end."""
        raw_of(conn).execute("COMMIT")

    def restore(self, conn: Connection) -> None:
        """See Dialect.restore."""
        # what `begin` sets ends with the transaction

    def now(self, conn: Connection) -> datetime:
        """See Dialect.now."""
        moment = conn.exec_driver_sql("SELECT statement_timestamp()").scalar_one()
        assert isinstance(moment, datetime)
        return moment.astimezone(UTC) + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        """See Dialect.is_conflict."""
        return isinstance(error, errors.DeadlockDetected | errors.SerializationFailure | errors.LockNotAvailable)

    def is_unusable(self, error: BaseException) -> bool:
        """See Dialect.is_unusable."""
        return False

    def is_schema_missing(self, error: BaseException) -> bool:
        """See Dialect.is_schema_missing."""
        return isinstance(error, errors.UndefinedTable | errors.UndefinedColumn)

    def identity(self, conn: Connection) -> str:
        """See Dialect.identity."""
        # A search_path may lead to another schema's tables.
        query = "SELECT current_database(), to_regclass('jobs')::oid::text, pg_postmaster_start_time()::text"
        row = conn.exec_driver_sql(query).one()
        return f"{row[0]} with {row[1]} since {row[2]}"

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        """See Dialect.lock_schema."""
        raw = raw_of(conn)
        raw.execute("SET LOCAL statement_timeout = 0")  # a large table takes its time ...
        # Whoever waits for a table makes all wait that come after, also those who only want to store a result.
        raw.execute(f"SET LOCAL lock_timeout = {_TABLE_LOCK_MS}".encode())
        if isinstance(raw, BoundedConnection):
            raw.wait_s = _MIGRATION_S
        for _ in range(_SCHEMA_TRIES):  # ... but nobody waits for ever
            if raw.execute(sql.LOCK_SCHEMA).fetchall()[0][0]:
                return lambda: self._set_patience(raw)
            time.sleep(_SCHEMA_PAUSE_S)
        raise errors.LockNotAvailable("another migration has been running for a minute")

    def _set_patience(self, raw: psycopg.Connection[Row]) -> None:
        if isinstance(raw, BoundedConnection):
            raw.wait_s = self._timeout

    def has_archive(self, conn: Connection) -> bool:
        """See Dialect.has_archive."""
        if self._has_archive is None:
            self._has_archive = postgresql_archive.has_rows(conn)
        return self._has_archive

    # ---------------------------------------------------------------------------------------------------- enqueue

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        """See Dialect.enqueue_mode."""
        return Mode.SINGLE

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> set[str]:
        """See Dialect.enqueue."""
        alike = are_alike(jobs)
        values = values_of(jobs) if alike else columns_of(jobs)
        if self.has_archive(conn):
            values |= span_of(jobs)
            rows = self._rows(conn, sql.ENQUEUE_ALIKE_ABSENT if alike else sql.ENQUEUE_ABSENT, values)
        else:
            rows = self._rows(conn, sql.ENQUEUE_ALIKE if alike else sql.ENQUEUE, values)
        stored = {str(row[0]) for row in rows}
        self._lanes.note_enqueue({job.queue for job in jobs})
        return stored

    # ------------------------------------------------------------------------------------------------------- turn

    def turn(self, conn: Connection, ask: Ask) -> ClaimReply:
        """See Dialect.turn."""
        if ask.limit:
            self._heard = self._bell.listen()
            if self._listen_url is not None and self._lanes.is_put_off(ask.queues):
                self._listener.want()  # it shall hear of jobs that come back, though it never waits
        if is_plain(ask.settlements):
            return self._turn(conn, ask).run()
        # Jobs that go back to pending may be claimed again by this very turn, which one statement cannot see.
        self.begin(conn, Mode.WORK)
        lock = "SELECT id FROM workers WHERE id = %(worker)s FOR KEY SHARE"
        stands = not ask.limit or bool(self._rows(conn, lock, {"worker": ask.worker}))
        now, shard = self.now(conn), shard_of(ask.worker)
        settled = settling.in_rounds(
            ask.settlements, lambda round_: settling.apply(conn, round_, now, shard, archives=self.archives)
        )
        self._lanes.note_enqueue(ask.queues)
        released = [s.id for s in ask.settlements if s.verb is Verb.RELEASE and canonical(s.id)]
        back = self._rows(conn, sql.QUEUES_OF, {"ids": released}) if released else ()
        reply = self._turn(conn, ask).claim() if stands and ask.limit else ClaimReply(lease_lost=not stands)
        self.end(conn, Mode.WORK)
        if back:
            self._back_notifier.notify({str(row[0]) for row in back}, is_here=False)
        return replace(reply, settled=tuple(settled))

    def _turn(self, conn: Connection, ask: Ask) -> Turn:
        return Turn(conn, ask, self._lanes, self.time_offset, archives=self.archives)

    def _rows(self, conn: Connection, statement: LiteralString, values: dict[str, object]) -> list[Row]:
        return fetched(conn, statement, values, self.time_offset)

    # ------------------------------------------------------------------------------------------------------- wait

    def ring(self, queues: Iterable[str], *, takes_none: bool = False, came_back: bool = False) -> None:
        """See Dialect.ring."""
        names = set(queues)
        if names:
            self._lanes.note_enqueue(names)  # what was taken back has its old place in the line, below the floors
            self._bell.ring(names)
            self._notifier.notify(names, is_here=not takes_none)
            if came_back:
                self._back_notifier.notify(names, is_here=False)

    def ring_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        """See Dialect.ring_inside."""
        for queue in sorted(queues):
            conn.execute(select(func.pg_notify(CHANNEL, queue)))  # in the words of whichever DBAPI the caller's is

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See Dialect.wait."""
        if self._listen_url is not None:
            self._listener.want()
        return self._bell.wait(self._heard, queues, timeout)

    def is_heard(self, conn: Connection) -> bool | None:
        """Whether a notification that is sent over `conn` arrives where `wait` listens; None: it does not listen."""
        if self._listen_url is None:
            return None
        statement = "SELECT pg_notify(%s, %s)"
        return is_heard(
            self._open_listener, lambda channel, payload: conn.exec_driver_sql(statement, (channel, payload))
        )

    def close(self) -> None:
        """See Dialect.close."""
        self._listener.close()

    def _notify(self, channel: str, queues: list[str]) -> None:
        try:
            if self._run is not None:
                self._run(
                    lambda conn: self._rows(conn, sql.NOTIFY, {"channel": channel, "queues": queues}), Mode.SINGLE
                )
        except ProtojobsError:
            pass  # the jobs are stored; a worker's poll finds them

    def _open_listener(self) -> psycopg.Connection[Row]:
        assert self._listen_url is not None
        arguments, options = self._engine.dialect.create_connect_args(self._listen_url)
        options.update({"connect_timeout": 5, "autocommit": True, "application_name": "protojobs-listen"})
        # It sends nothing, so only the kernel can notice that its server is gone: by itself after two hours.
        options = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, **options}
        return psycopg.connect(*arguments, **options)
