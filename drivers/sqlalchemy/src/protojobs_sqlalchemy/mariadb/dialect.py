"""MariaDB and MySQL 8: lock with SKIP LOCKED, then update by primary key, in one READ COMMITTED transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
from pymysql.connections import Connection as Raw
from pymysql.constants import SERVER_STATUS
from pymysql.cursors import Cursor
from sqlalchemy import Connection, Engine, Insert, Table, event, func, insert, select
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import IntegrityError

from protojobs.errors import ConfigurationError
from protojobs.port.records import ClaimReply, NewJob, Pruned
from protojobs.port.schedules import Schedule
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import Age, Change, Dialect, FailedAlike, LiveLane, Look, Mode, Stored, TurnRequest
from protojobs_sqlalchemy.mariadb import live
from protojobs_sqlalchemy.mariadb.conditions import GeneratedColumns
from protojobs_sqlalchemy.mariadb.connection import connected, keep_alive
from protojobs_sqlalchemy.mariadb.failures import failed_alike
from protojobs_sqlalchemy.mariadb.turn import Turn, raw_of, send
from protojobs_sqlalchemy.mariadb.waiting import Watcher
from protojobs_sqlalchemy.tables.indexes import other_indexes
from protojobs_sqlalchemy.tables.tables import Tables
from protojobs_sqlalchemy.verbs.administration import prune_rows
from protojobs_sqlalchemy.verbs.inserting import kind_of
from protojobs_sqlalchemy.verbs.lanes import LaneMemory
from protojobs_sqlalchemy.verbs.schedules import MOVED, schedule_row
from protojobs_sqlalchemy.waking.threads import Wakeup

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
INSERT INTO @jobs (id, queue, job_class, job_name, data, attempts, max_retries, timeout, status, created_at,
                  available_at, priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, meta)
VALUES """
_WRITE = """
UPDATE @jobs FORCE INDEX (PRIMARY)
SET status = %(status)s, attempts = %(attempts)s, returns = %(returns)s, crashes = %(crashes)s, reason = %(reason)s,
    available_at = %(available_at)s, processed_at = %(processed_at)s, reserved_at = %(reserved_at)s, reserved_by = NULL
WHERE id = %(id)s
"""
_GIVE_UP = """
INSERT INTO @failed_jobs (id, job_id, queue, job_class, job_name, data, attempts, exception, fingerprint, failed_at)
SELECT %(failed_id)s, id, queue, job_class, job_name, data, attempts, %(exception)s, %(fingerprint)s, %(failed_at)s
FROM @jobs FORCE INDEX (PRIMARY) WHERE id = %(id)s
"""
_FRONT = ",%s,%s,%s,"
_BACK = """,0,%s,%s,'pending',UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND,
coalesce(%s,UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND),%s,%s,%s,0,0,0,0,%s)"""
_PACKET_BYTES = 1_000_000  # max_allowed_packet is 16 MiB or more; where somebody had a reason for less, a MiB


class MariaDBDialect(Dialect):
    """MariaDB and MySQL, in the time of the server's clock; the statements of jobs on PyMySQL's own cursor."""

    def __init__(self, engine: Engine, tables: Tables, time_offset: float, *, is_ours: bool) -> None:
        super().__init__(tables, time_offset)
        self.conditions = GeneratedColumns(tables)
        self._engine = engine
        self._is_ours = is_ours
        self._lanes = LaneMemory()
        self._wakeup = Wakeup()
        self._mark = 0
        self._watcher = Watcher(engine, self._wakeup, self.names)

    def prepare(self, engine: Engine) -> None:

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

        @event.listens_for(engine, "do_connect")
        def _connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> object:
            raw: Raw[Any] = Raw(*arguments, **options)
            keep_alive(raw)
            return raw

    def begin(self, conn: Connection, mode: Mode) -> None:
        cursor = raw_of(conn).cursor()
        # What is read in several statements is read at one moment.
        if mode is Mode.READ:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        elif not self._is_ours:
            cursor.execute(_READ_COMMITTED)
        cursor.execute(_START)

    def end(self, conn: Connection, mode: Mode) -> None:
        raw_of(conn).commit()

    def now(self, conn: Connection) -> datetime:
        moment = conn.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one()
        assert isinstance(moment, datetime)
        return moment.replace(tzinfo=UTC) + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        return isinstance(error, pymysql.Error) and _code(error) in (_DEADLOCK, _LOCK_TIMEOUT, _CHANGED)

    def is_schema_missing(self, error: BaseException) -> bool:
        return isinstance(error, pymysql.Error) and _code(error) in (_NO_TABLE, _NO_COLUMN)

    def identity(self, conn: Connection) -> str:
        return str(conn.exec_driver_sql("SELECT database(), @@hostname, @@port, @@datadir").one())

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        place = f"concat(database(), ' {self.names.prefix}')" if self.names.prefix else "database()"
        name = f"protojobs:{conn.exec_driver_sql(f'SELECT md5({place})').scalar_one()}"
        for _ in range(_SCHEMA_TRIES):
            if conn.exec_driver_sql("SELECT GET_LOCK(%s, %s)", (name, _SCHEMA_LOCK_S)).scalar_one():
                return lambda: conn.exec_driver_sql("SELECT RELEASE_LOCK(%s)", (name,)).close()
        raise pymysql.OperationalError(_LOCK_TIMEOUT, "another migration has been running for a minute")

    def check_place(self, conn: Connection) -> None:
        if conn.execute(select(func.database())).scalar() is None:
            raise ConfigurationError(
                f"{masked(conn.engine.url)} names no database.", mend="Name one behind the host: mysql://HOST/NAME."
            )

    def looks(self, connect: Callable[[], Connection], script: str) -> list[Look]:
        from protojobs_sqlalchemy.mariadb import diagnosis

        return [lambda conn: other_indexes(conn, self.names, script), *diagnosis.looks(self.tables)]

    def delete_some(self, table: str, condition: str) -> str:
        return f"DELETE FROM {table} WHERE {condition} LIMIT :most"

    def insert_unless_there(self, table: Table) -> Insert:
        # Not INSERT IGNORE, which would cut what is too long.
        first = next(column for column in table.c if not column.primary_key)
        return self.insert_or_change(table, lambda _new: {first.name: first})

    def insert_or_change(self, table: Table, change: Change) -> Insert:
        new = mysql.insert(table)
        return new.on_duplicate_key_update(dict(change(new.inserted)))

    def inserts(self, conn: Connection, table: Table, row: Mapping[str, object]) -> bool:
        # There is no telling the rows that ON DUPLICATE KEY left alone.
        try:
            conn.execute(insert(table), row)
        except IntegrityError as error:
            _check_is_duplicate(error)
            return False
        return True

    def inserts_each(self, conn: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> set[str]:
        # All at once; only when one of them is there already, one by one. The savepoint is made by hand: a deadlock
        # takes it along, and SQLAlchemy's own would then hide the deadlock behind error 1305.
        conn.exec_driver_sql("SAVEPOINT protojobs_insert")
        try:
            conn.execute(insert(table), rows)
        except IntegrityError as error:
            _check_is_duplicate(error)
            conn.exec_driver_sql("ROLLBACK TO SAVEPOINT protojobs_insert")
            return {str(row["id"]) for row in rows if self.inserts(conn, table, row)}
        return {str(row["id"]) for row in rows}

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        return Mode.SINGLE

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> Stored:
        raw = raw_of(conn)
        cursor, statements = raw.cursor(), self._inserts(raw, jobs)
        is_alone = not vars(raw)["server_status"] & SERVER_STATUS.SERVER_STATUS_IN_TRANS
        if is_alone and len(statements) == 1 and _is_inserted(cursor, statements[0]):
            stored = {job.id for job in jobs}
        elif is_alone and len(jobs) == 1:
            stored = set[str]()
        elif is_alone:
            self.begin(conn, Mode.STORE)
            stored = self._insert_absent(raw, jobs, statements)
            self.end(conn, Mode.STORE)
        else:
            stored = self._insert_absent(raw, jobs, statements)
        self._lanes.note_enqueue({job.queue for job in jobs})
        return Stored(stored)

    def _insert_absent(self, raw: Raw[Any], jobs: Sequence[NewJob], statements: Sequence[str]) -> set[str]:
        """Within a transaction, as `inserts_each`."""
        cursor = raw.cursor()
        cursor.execute("SAVEPOINT protojobs_insert")
        if all(_is_inserted(cursor, statement) for statement in statements):
            return {job.id for job in jobs}
        cursor.execute("ROLLBACK TO SAVEPOINT protojobs_insert")
        return {job.id for job in jobs if _is_inserted(cursor, self._inserts(raw, [job])[0])}

    def _inserts(self, raw: Raw[Any], jobs: Sequence[NewJob]) -> list[str]:
        """INSERTs of plain text, each small enough for a packet. What jobs have in common is put into words once."""
        cursor, offset = raw.cursor(), round(self.time_offset * 1e6)
        statements: list[list[str]] = [[]]
        size, kind, front, back = 0, None, "", ""
        for job in jobs:
            if (its_kind := kind_of(job)) != kind:
                kind, (front, back) = its_kind, _around_data(cursor, job, offset)
            row = f"('{job.id}'{front}{raw.escape(job.data)}{back}"
            size += len(row.encode())
            if size > _PACKET_BYTES and statements[-1]:
                statements.append([])
                size = len(row.encode())
            statements[-1].append(row)
        insert_into = self.names.sql(_INSERT)
        return [insert_into + ",".join(rows) for rows in statements]

    def write_settled(
        self, conn: Connection, settled: Sequence[Mapping[str, object]], failures: Sequence[Mapping[str, object]]
    ) -> None:
        with raw_of(conn).cursor() as cursor:
            write, give_up = self.names.sql(_WRITE), self.names.sql(_GIVE_UP)
            statements = [str(cursor.mogrify(write, _values_of(values))) for values in settled]
            statements += [str(cursor.mogrify(give_up, _values_of(failure))) for failure in failures]
        for packet in in_packets(statements):
            send(conn, packet)

    def turn(self, conn: Connection, request: TurnRequest) -> ClaimReply:
        if request.limit:
            self._mark = self._wakeup.mark()
        return Turn(conn, self, request, self._lanes, *self._frame()).run()

    def _frame(self) -> tuple[Sequence[str], Sequence[str]]:
        """The statements that begin a turn's transaction, and those that commit it."""
        return ([_START] if self._is_ours else [_READ_COMMITTED, _START]), ["COMMIT"]

    def prune(self, conn: Connection, ages: Sequence[Age], *, limit: int, now: datetime) -> Pruned:
        return prune_rows(conn, self, ages, limit=limit, now=now)

    def move_schedules(self, conn: Connection, schedules: Sequence[Schedule]) -> None:
        # An upsert, though each of them is there: of an UPDATE the client would send one for each row.
        upsert = self.insert_or_change(self.tables.schedules, lambda new: {name: new[name] for name in MOVED})
        conn.execute(upsert, [schedule_row(schedule) for schedule in schedules])

    def live_lanes(self, conn: Connection, values: Mapping[str, Any]) -> Iterable[LiveLane]:
        return live.walked(conn, self.names, values)

    def failed_alike(self, conn: Connection, values: Mapping[str, int]) -> list[FailedAlike]:
        return failed_alike(conn, self.names, values)

    def wake(self, queues: Iterable[str], *, told: Collection[str] = (), came_back: bool = False) -> None:
        names = set(queues)
        self._lanes.note_enqueue(names)  # what was reclaimed has its old place in the line, below the floors
        self._wakeup.wake(names)
        self._watcher.wake(names)  # processes on other machines poll

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        return self._watcher.wait(self._mark, queues, timeout, self.time_offset)

    def close(self) -> None:
        self._watcher.close()


def _code(error: pymysql.Error) -> int:
    return int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0


def _check_is_duplicate(error: IntegrityError) -> None:
    if error.orig is None or error.orig.args[0] != _DUPLICATE:
        raise error


def _is_inserted(cursor: Cursor, statement: str) -> bool:
    """False: one of its rows is there already, and none was inserted."""
    try:
        cursor.execute(statement)
    except pymysql.IntegrityError as error:
        if _code(error) != _DUPLICATE:
            raise
        return False
    return True


def in_packets(statements: Sequence[str]) -> Iterator[list[str]]:
    """In order, as many at a time as fit a packet; one at least."""
    packet, size = list[str](), 0
    for statement in statements:
        length = len(statement.encode())
        if packet and size + length > _PACKET_BYTES:
            yield packet
            packet, size = [], 0
        packet.append(statement)
        size += length
    if packet:
        yield packet


def _values_of(values: Mapping[str, object]) -> dict[str, object]:
    """As this database has them: a DATETIME has no zone, and ours hold UTC."""
    return {
        name: value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value
        for name, value in values.items()
    }


def _around_data(cursor: Cursor, job: NewJob, offset: int) -> tuple[str, str]:
    """The text of a row between the id and the data, and behind the data."""
    moment = job.available_at and job.available_at.astimezone(UTC).replace(tzinfo=None)
    front = (job.queue, job.job_class, job.job_name)
    back = (
        *(job.max_retries, job.timeout, offset, moment, offset + round(job.delay * 1e6)),
        *(job.priority, job.retry_delay, job.retry_policy, job.meta),
    )
    return cursor.mogrify(_FRONT, front), cursor.mogrify(_BACK, back)
