"""MariaDB and MySQL 8: lock with SKIP LOCKED, then update by primary key, in one READ COMMITTED transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
from pymysql.connections import Connection as Raw
from sqlalchemy import Connection, Engine, event

from protojobs.port.records import ClaimReply, NewJob
from protojobs_sqlalchemy.dialect import Ask, Mode, Run
from protojobs_sqlalchemy.mariadb.connection import connected, keep_alive
from protojobs_sqlalchemy.mariadb.turn import Turn, raw_of
from protojobs_sqlalchemy.mariadb.waiting import Watcher
from protojobs_sqlalchemy.verbs.inserting import insert_absent, new_row
from protojobs_sqlalchemy.verbs.lanes import LaneMemory
from protojobs_sqlalchemy.waking.threads import Bell

__all__ = ["MariaDBDialect"]

_DEADLOCK, _LOCK_TIMEOUT = 1213, 1205
_CHANGED = 1020  # since the snapshot of a caller's transaction, which is rolled back; ours read what is committed
_NO_TABLE, _NO_COLUMN = 1146, 1054
_DUPLICATE = 1062
_LOCK_WAIT_S = 3  # for a row that another transaction holds
_SCHEMA_LOCK_S = 5  # of one try; the socket's own limit must not strike first
_SCHEMA_TRIES = 12

_READ_COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"  # of the next transaction only
_START = "START TRANSACTION"

_INSERT = """
INSERT INTO jobs (id, queue, job_class, job_name, data, attempts, max_retries, timeout, status, created_at,
                  available_at, priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, meta)
VALUES (%s, %s, %s, %s, %s, 0, %s, %s, 'pending', UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND,
        coalesce(%s, UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND), %s, %s, %s, 0, 0, 0, 0, %s)
"""


class MariaDBDialect:
    """The hot statements on PyMySQL's own cursor, in the time of the server's clock."""

    turn_mode = Mode.SINGLE  # a turn begins and commits by itself, in the packets of its statements
    archives = False

    def __init__(self, engine: Engine, time_offset: float, *, is_ours: bool) -> None:
        self.time_offset = time_offset
        self._engine = engine
        self._is_ours = is_ours
        self._lanes = LaneMemory()
        self._bell = Bell()
        self._heard = 0
        self._watcher = Watcher(engine, self._bell)

    # ------------------------------------------------------------------------------------------------------ steps

    def prepare(self, engine: Engine) -> None:
        """See Dialect.prepare."""

        @event.listens_for(engine, "do_connect")
        def _connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> object:
            return connected(arguments, options)

        @event.listens_for(engine, "connect")
        def _set_up(raw: Raw[Any], _record: object) -> None:
            with raw.cursor() as cursor:
                cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {_LOCK_WAIT_S}")
                if "MariaDB" in str(vars(raw)["server_version"]):
                    # A client that froze inside a transaction must not hold its locks for ever. (MySQL has none.)
                    cursor.execute("SET SESSION idle_transaction_timeout = 10")

    def prepare_sessions(self, engine: Engine) -> None:
        """See Dialect.prepare_sessions."""

        @event.listens_for(engine, "do_connect")
        def _connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> object:
            raw: Raw[Any] = Raw(*arguments, **options)
            keep_alive(raw)
            return raw

    def attach(self, run: Run) -> None:
        """See Dialect.attach."""
        # nothing is ever done outside of a verb

    def begin(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.begin."""
        cursor = raw_of(conn).cursor()
        # What is read in several statements is read at one moment.
        if mode is Mode.READ:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        elif not self._is_ours:
            cursor.execute(_READ_COMMITTED)
        cursor.execute(_START)

    def end(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.end."""
        raw_of(conn).commit()

    def restore(self, conn: Connection) -> None:
        """See Dialect.restore."""
        # what `begin` sets ends with the transaction

    def now(self, conn: Connection) -> datetime:
        """See Dialect.now."""
        moment = conn.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one()
        assert isinstance(moment, datetime)
        return moment.replace(tzinfo=UTC) + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        """See Dialect.is_conflict."""
        return isinstance(error, pymysql.Error) and _code(error) in (_DEADLOCK, _LOCK_TIMEOUT, _CHANGED)

    def is_unusable(self, error: BaseException) -> bool:
        """See Dialect.is_unusable."""
        return False

    def is_schema_missing(self, error: BaseException) -> bool:
        """See Dialect.is_schema_missing."""
        return isinstance(error, pymysql.Error) and _code(error) in (_NO_TABLE, _NO_COLUMN)

    def has_archive(self, conn: Connection) -> bool:
        """See Dialect.has_archive."""
        return False

    def identity(self, conn: Connection) -> str:
        """See Dialect.identity."""
        return str(conn.exec_driver_sql("SELECT database(), @@hostname, @@port, @@datadir").one())

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        """See Dialect.lock_schema."""
        name = f"protojobs:{conn.exec_driver_sql('SELECT md5(database())').scalar_one()}"
        for _ in range(_SCHEMA_TRIES):
            if conn.exec_driver_sql("SELECT GET_LOCK(%s, %s)", (name, _SCHEMA_LOCK_S)).scalar_one():
                return lambda: conn.exec_driver_sql("SELECT RELEASE_LOCK(%s)", (name,)).close()
        raise pymysql.OperationalError(_LOCK_TIMEOUT, "another migration has been running for a minute")

    # ---------------------------------------------------------------------------------------------------- enqueue

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        """See Dialect.enqueue_mode."""
        return Mode.SINGLE if len(jobs) == 1 else Mode.STORE

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> set[str]:
        """See Dialect.enqueue."""
        if len(jobs) == 1:
            stored = {jobs[0].id} if self._insert(conn, jobs[0]) else set[str]()
        else:
            now = self.now(conn)
            stored = insert_absent(conn, [new_row(job, now) for job in jobs])
        self._lanes.note_enqueue({job.queue for job in jobs})
        return stored

    def _insert(self, conn: Connection, job: NewJob) -> bool:
        offset = round(self.time_offset * 1e6)
        moment = job.available_at and job.available_at.astimezone(UTC).replace(tzinfo=None)
        values = (
            job.id,
            job.queue,
            job.job_class,
            job.job_name,
            job.data,
            job.max_retries,
            job.timeout,
            offset,
            moment,
            offset + round(job.delay * 1e6),
            job.priority,
            job.retry_delay,
            job.retry_policy,
            job.meta,
        )
        try:
            raw_of(conn).cursor().execute(_INSERT, values)
        except pymysql.IntegrityError as error:
            if _code(error) != _DUPLICATE:
                raise
            return False
        return True

    # ------------------------------------------------------------------------------------------------------- turn

    def turn(self, conn: Connection, ask: Ask) -> ClaimReply:
        """See Dialect.turn."""
        if ask.limit:
            self._heard = self._bell.listen()
        opening = [_START] if self._is_ours else [_READ_COMMITTED, _START]
        return Turn(conn, ask, self._lanes, self.time_offset, opening).run()

    # ------------------------------------------------------------------------------------------------------- wait

    def ring(self, queues: Iterable[str], *, takes_none: bool = False, came_back: bool = False) -> None:
        """See Dialect.ring."""
        names = set(queues)
        self._lanes.note_enqueue(names)  # what was taken back has its old place in the line, below the floors
        self._bell.ring(names)
        self._watcher.ring(names)  # processes on other machines poll

    def ring_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        """See Dialect.ring_inside."""

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See Dialect.wait."""
        return self._watcher.wait(self._heard, queues, timeout, self.time_offset)

    def close(self) -> None:
        """See Dialect.close."""
        self._watcher.close()


def _code(error: pymysql.Error) -> int:
    return int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0
