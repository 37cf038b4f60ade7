"""PostgreSQL: how a step begins and ends, how workers are notified, and what else is different there.

One statement settles what is finished and claims what comes next: `statements.py`, run by `turn.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, LiteralString

import psycopg
from msgspec.structs import replace
from psycopg import errors
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, Insert, String, Table, column, event, func, inspect, select, table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateSchema

from protojobs.errors import ConfigurationError, ProtojobsError, shown
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimReply, NewJob, Pruned
from protojobs.port.schedules import Schedule
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import (
    Age,
    Change,
    Dialect,
    FailedAlike,
    LiveLane,
    Look,
    Mode,
    Run,
    Stored,
    TurnRequest,
)
from protojobs_sqlalchemy.inspecting.live import walked_lanes
from protojobs_sqlalchemy.observing.failures import walked_groups
from protojobs_sqlalchemy.postgresql import pruning
from protojobs_sqlalchemy.postgresql import statements as sql
from protojobs_sqlalchemy.postgresql.archive import DailyArchive
from protojobs_sqlalchemy.postgresql.connection import BoundedConnection
from protojobs_sqlalchemy.postgresql.listener import BACK_CHANNEL, CHANNEL, Listener, is_heard
from protojobs_sqlalchemy.postgresql.notifier import Notifier
from protojobs_sqlalchemy.postgresql.turn import Row, Turn, fetched, is_plain, raw_of, run
from protojobs_sqlalchemy.postgresql.values import are_alike, columns_of, span_of, values_of
from protojobs_sqlalchemy.tables.tables import Tables
from protojobs_sqlalchemy.tables.types import is_job_id, within_calendar
from protojobs_sqlalchemy.verbs import settling
from protojobs_sqlalchemy.verbs.counting import shard_of
from protojobs_sqlalchemy.verbs.inserting import due_queues
from protojobs_sqlalchemy.verbs.lanes import LaneMemory
from protojobs_sqlalchemy.verbs.schedules import MOVED
from protojobs_sqlalchemy.waking.threads import Wakeup

__all__ = ["PostgreSQLDialect"]

_MIGRATION_S = 3600.0  # how long one statement of a migration may take
_SCHEMA_TRIES = 600  # a minute
_SCHEMA_PAUSE_S = 0.1
_TABLE_LOCK_MS = 2_000  # that a migration waits for a table, before it lets the others pass and tries again


# Without its second condition a planner that may choose reads the whole of a small table.
_MOVE_SCHEDULES = """
UPDATE @schedules AS s SET next_due_at = m.next_due_at, last_due_at = m.last_due_at, last_job_id = m.last_job_id,
                          version = m.version
FROM unnest(CAST(:id AS text[]), CAST(:next_due_at AS timestamptz[]), CAST(:last_due_at AS timestamptz[]),
            CAST(:last_job_id AS uuid[]), CAST(:version AS int[]))
     AS m (id, next_due_at, last_due_at, last_job_id, version)
WHERE s.id = m.id AND s.id = ANY (CAST(:id AS text[]))
"""


class PostgreSQLDialect(Dialect):
    """PostgreSQL, in the time of the server's clock; the statements of jobs on psycopg's own cursor."""

    has_marked_index = True

    def __init__(
        self,
        engine: Engine,
        tables: Tables,
        time_offset: float,
        *,
        timeout: float,
        listen: URL | None,
        archives: bool = False,
    ) -> None:
        super().__init__(tables, time_offset)
        self.archive = DailyArchive(self, takes_completed=archives)
        self._floors = pruning.Floors()
        self._engine = engine
        self._timeout = timeout
        self._listen_url = listen
        self._lanes = LaneMemory()
        self._wakeup = Wakeup()
        self._mark = 0
        self._channel, self._back_channel = self.names.channel(CHANNEL), self.names.channel(BACK_CHANNEL)
        self._listener = Listener(
            self._wakeup,
            self._open_listener,
            self._lanes.note_enqueue,
            channel=self._channel,
            back_channel=self._back_channel,
        )
        self._notifier = Notifier(partial(self._notify, self._channel))
        self._back_notifier = Notifier(partial(self._notify, self._back_channel))
        self._run: Run | None = None

    def prepare(self, engine: Engine) -> None:

        @event.listens_for(engine, "do_connect")
        def _connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> object:
            raw = BoundedConnection.connect(*arguments, **options)
            raw.wait_s = self._timeout
            return raw

    def attach(self, run: Run) -> None:
        self._run = run

    def begin(self, conn: Connection, mode: Mode) -> None:
        # What is read in several statements is read at one moment; a writer must see what was committed just now.
        level = "REPEATABLE READ" if mode is Mode.READ else "READ COMMITTED"
        # A client that froze inside a transaction must not hold its locks for ever: not behind a pooler either, nor on
        # an application's engine. One packet for both statements.
        limit_ms = int(self._timeout * 1000)
        begin = f"BEGIN ISOLATION LEVEL {level}; SET LOCAL idle_in_transaction_session_timeout = {limit_ms}"
        raw_of(conn).execute(begin.encode())

    def end(self, conn: Connection, mode: Mode) -> None:
        raw_of(conn).execute("COMMIT")

    def now(self, conn: Connection) -> datetime:
        moment = conn.exec_driver_sql("SELECT statement_timestamp()").scalar_one()
        assert isinstance(moment, datetime)
        return moment.astimezone(UTC) + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        return isinstance(error, errors.DeadlockDetected | errors.SerializationFailure | errors.LockNotAvailable)

    def is_schema_missing(self, error: BaseException) -> bool:
        return isinstance(error, errors.UndefinedTable | errors.UndefinedColumn)

    def identity(self, conn: Connection) -> str:
        # A search_path may lead to another schema's tables.
        jobs = self.names.quoted("jobs")
        query = f"SELECT current_database(), to_regclass('{jobs}')::oid::text, pg_postmaster_start_time()::text"
        row = conn.exec_driver_sql(query).one()
        return f"{row[0]} with {row[1]} since {row[2]}"

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        raw = raw_of(conn)
        raw.execute("SET LOCAL statement_timeout = 0")  # a large table takes its time ...
        # Whoever waits for a table makes all wait that come after, also those who only want to store a result.
        raw.execute(f"SET LOCAL lock_timeout = {_TABLE_LOCK_MS}".encode())
        if isinstance(raw, BoundedConnection):
            raw.wait_s = _MIGRATION_S
        lock = f"SELECT pg_try_advisory_xact_lock(hashtext('protojobs'), hashtext({self.names.place}))".encode()
        for _ in range(_SCHEMA_TRIES):  # ... but nobody waits for ever
            if raw.execute(lock).fetchall()[0][0]:
                return lambda: self._set_patience(raw)
            time.sleep(_SCHEMA_PAUSE_S)
        raise errors.LockNotAvailable("another migration has been running for a minute")

    def _set_patience(self, raw: psycopg.Connection[Row]) -> None:
        if isinstance(raw, BoundedConnection):
            raw.wait_s = self._timeout

    def check_place(self, conn: Connection) -> None:
        if self.names.schema is not None:
            return  # `version.check` says where it is missing, and `make_place` makes it
        if conn.execute(select(func.current_schema())).scalar() is not None:
            return
        place = masked(conn.engine.url)
        path = str(conn.exec_driver_sql("SHOW search_path").scalar())
        user = str(conn.execute(select(func.current_user())).scalar())
        names = [name.strip().strip('"').replace("$user", user) for name in path.split(",")]
        there = set(conn.execute(select(column("nspname", String())).select_from(table("pg_namespace"))).scalars())
        if closed := [name for name in names if name in there]:
            raise ConfigurationError(
                f"{place}: the user {shown(user)} may not use the schema {shown(closed[0])} of its search_path.",
                mend=f'GRANT USAGE, CREATE ON SCHEMA "{closed[0]}" TO "{user}";',
            )
        raise ConfigurationError(
            f"{place}: the search_path is {shown(path)}, and no such schema exists.",
            mend=f'CREATE SCHEMA "{names[-1]}"; or correct the search_path.',
        )

    def make_place(self, conn: Connection) -> None:
        schema = self.names.schema
        if schema is None or inspect(conn).has_schema(schema):
            return
        user, may_create = conn.exec_driver_sql(
            "SELECT current_user, has_database_privilege(current_database(), 'CREATE')"
        ).one()
        if not may_create:
            raise ConfigurationError(
                f"{masked(conn.engine.url)} has no schema {shown(schema)}, and the user {shown(user)} may make none.",
                mend=f'CREATE SCHEMA "{schema}" AUTHORIZATION "{user}";',
            )
        conn.execute(CreateSchema(schema, if_not_exists=True))

    def check_may_create(self, conn: Connection) -> None:
        # Since version 15 the schema `public` is closed to most.
        place = "current_schema()" if self.names.schema is None else f"'{self.names.schema}'"
        schema, user, may_create = conn.exec_driver_sql(
            f"SELECT {place}, current_user, has_schema_privilege({place}, 'CREATE')"
        ).one()
        if not may_create:
            raise ConfigurationError(
                f"{masked(conn.engine.url)}: the user {shown(user)} may make no tables in the schema {shown(schema)}.",
                mend=f'GRANT CREATE ON SCHEMA "{schema}" TO "{user}"; or migrate as its owner.',
            )

    def schema(self, conn: Connection) -> str | None:
        if self.names.schema is not None:
            return self.names.schema
        return conn.execute(select(func.current_schema())).scalar()  # the search_path may show tables of others too

    def looks(self, connect: Callable[[], Connection], script: str) -> list[Look]:
        from protojobs_sqlalchemy.postgresql import diagnosis

        return diagnosis.looks(connect, self, script)

    def readable_time(self, time: str) -> str:
        return within_calendar(time)

    def delete_some(self, table: str, condition: str) -> str:
        # ARRAY, since PostgreSQL would join a plain subquery with all rows.
        some = f"SELECT ctid FROM {table} WHERE {condition} LIMIT :most"
        return f"DELETE FROM {table} WHERE ctid = ANY (ARRAY ({some}))"

    def insert_unless_there(self, table: Table) -> Insert:
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=list(table.primary_key))

    def insert_or_change(self, table: Table, change: Change) -> Insert:
        new = postgresql.insert(table)
        return new.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(change(new.excluded)))

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        return Mode.SINGLE

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> Stored:
        is_alone = raw_of(conn).info.transaction_status is TransactionStatus.IDLE
        queue, told = jobs[0].queue, False
        if not are_alike(jobs):
            ids = self._store(conn, jobs, sql.ENQUEUE, columns_of(jobs), is_alone=is_alone)
        elif not is_alone or not due_queues(jobs):
            ids = self._store(conn, jobs, sql.ENQUEUE_ALIKE, values_of(jobs), is_alone=is_alone)
        else:
            with self._notifier.along(queue) as told:
                storing = sql.ENQUEUE_ALIKE_AND_NOTIFY if told else sql.ENQUEUE_ALIKE
                ids = self._store(conn, jobs, storing, values_of(jobs) | {"channel": self._channel}, is_alone=True)
        self._lanes.note_enqueue({job.queue for job in jobs})
        return Stored(ids, told={queue} if told else ())

    def _store(
        self,
        conn: Connection,
        jobs: Sequence[NewJob],
        storing: sql.Storing,
        values: dict[str, object],
        *,
        is_alone: bool,
    ) -> set[str]:
        if self.archive.has_jobs(conn):
            rows = self._rows(conn, storing.besides_archive, values | span_of(jobs))
            return {str(row[0]) for row in rows}
        if is_alone:  # in a longer transaction what fails would take all of it along
            try:
                run(conn, self, storing.plain, values)
                return {job.id for job in jobs}
            except errors.UniqueViolation:
                pass  # some are there, perhaps since this call is sent again
        return {str(row[0]) for row in self._rows(conn, storing.unless_there, values)}

    def write_settled(
        self, conn: Connection, settled: Sequence[Mapping[str, object]], failures: Sequence[Mapping[str, object]]
    ) -> None:
        settling.write_each(
            conn, self, settled, failures
        )  # of which psycopg makes one round trip for each of the two statements

    def turn(self, conn: Connection, request: TurnRequest) -> ClaimReply:
        if request.limit:
            self._mark = self._wakeup.mark()
            if self._listen_url is not None and self._lanes.is_put_off(request.queues):
                self._listener.want()  # it shall hear of jobs that come back, though it never waits
        if is_plain(request.settlements):
            return Turn(conn, self, request, self._lanes).run()
        # Jobs that go back to pending may be claimed again by this very turn, which one statement cannot see.
        self.begin(conn, Mode.WORK)
        lock = "SELECT id FROM @workers WHERE id = %(worker)s FOR KEY SHARE"
        is_standing = not request.limit or bool(self._rows(conn, lock, {"worker": request.worker}))
        now, shard = self.now(conn), shard_of(conn, request.worker)
        settled = settling.in_rounds(
            request.settlements, lambda settlements: settling.settle(conn, self, settlements, now, shard)
        )
        self._lanes.note_enqueue(request.queues)
        released = [s.id for s in request.settlements if s.verb is Verb.RELEASE and is_job_id(s.id)]
        back = self._rows(conn, sql.QUEUES_OF, {"ids": released}) if released else ()
        if is_standing and request.limit:
            reply = Turn(conn, self, request, self._lanes).claim()
        else:
            reply = ClaimReply(lease_lost=not is_standing)
        self.end(conn, Mode.WORK)
        if back:
            self._back_notifier.notify({str(row[0]) for row in back})
        return replace(reply, settled=tuple(settled))

    def prune(self, conn: Connection, ages: Sequence[Age], *, limit: int, now: datetime) -> Pruned:
        return pruning.prune(conn, self, ages, limit=limit, now=now, floors=self._floors)

    def move_schedules(self, conn: Connection, schedules: Sequence[Schedule]) -> None:
        columns = {name: [getattr(schedule, name) for schedule in schedules] for name in ("id", *MOVED)}
        conn.execute(text(self.names.sql(_MOVE_SCHEDULES)), columns)

    def live_lanes(self, conn: Connection, values: Mapping[str, Any]) -> Iterable[LiveLane]:
        return walked_lanes(conn, self, values)

    def failed_alike(self, conn: Connection, values: Mapping[str, int]) -> list[FailedAlike]:
        return walked_groups(conn, self, values)

    def guess_pending(self, conn: Connection, queues: Sequence[str | None]) -> list[int]:
        # The planner's guess.
        if not queues:
            return []
        jobs = self.names.quoted("jobs")
        conditions = [f"AND queue = :queue_{number}" if name is not None else "" for number, name in enumerate(queues)]
        counts = ", ".join(f"ARRAY (SELECT 1 FROM {jobs} WHERE status = 'pending' {each})" for each in conditions)
        values = {f"queue_{number}": name for number, name in enumerate(queues) if name is not None}
        plan = conn.execute(text(f"EXPLAIN (FORMAT JSON) SELECT {counts}"), values).scalar_one()
        return [int(part["Plan Rows"]) for part in plan[0]["Plan"]["Plans"]]

    def _rows(self, conn: Connection, statement: LiteralString, values: dict[str, object]) -> list[Row]:
        return fetched(conn, self, statement, values)

    def wake(self, queues: Iterable[str], *, told: Collection[str] = (), came_back: bool = False) -> None:
        names = set(queues)
        if names:
            self._lanes.note_enqueue(names)  # what was reclaimed has its old place in the line, below the floors
            self._wakeup.wake(names)
            self._notifier.notify(names.difference(told))
            if came_back:
                self._back_notifier.notify(names)

    def wake_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        for queue in sorted(queues):
            conn.execute(
                select(func.pg_notify(self._channel, queue))
            )  # in the words of whichever DBAPI the caller's is

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        if self._listen_url is not None:
            self._listener.want()
        return self._wakeup.wait(self._mark, queues, timeout)

    def is_heard(self, conn: Connection) -> bool | None:
        """Whether a notification that is sent over `conn` arrives where `wait` listens; None: it does not listen."""
        if self._listen_url is None:
            return None
        statement = "SELECT pg_notify(%s, %s)"
        return is_heard(
            self._open_listener, lambda channel, payload: conn.exec_driver_sql(statement, (channel, payload))
        )

    def close(self) -> None:
        self._notifier.finish()
        self._back_notifier.finish()
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
