"""MariaDB and MySQL 8: lock with SKIP LOCKED, then update by primary key, in one READ COMMITTED transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
from pymysql.connections import Connection as Raw
from sqlalchemy import Connection, Engine, event

from protojobs.lifecycle import JobState
from protojobs.records import BATCH_BYTES_MAX, ClaimedJob, ClaimReply, NewJob, Settled, Settlement, SettleStatus
from protojobs_sqlalchemy import settling
from protojobs_sqlalchemy.bell import Bell
from protojobs_sqlalchemy.bounded_pymysql import connected
from protojobs_sqlalchemy.bounds import payload_bytes
from protojobs_sqlalchemy.counting import count, shard_of
from protojobs_sqlalchemy.dialects import Ask, Mode, Run
from protojobs_sqlalchemy.ids import canonical
from protojobs_sqlalchemy.inserting import insert_absent, new_row
from protojobs_sqlalchemy.lanes import Lane, LaneMemory, Lanes
from protojobs_sqlalchemy.watching import Watcher, walk_lanes

__all__ = ["MariaDBDialect"]

_DEADLOCK, _LOCK_TIMEOUT = 1213, 1205
_CHANGED = 1020  # since the snapshot of a caller's transaction, which is rolled back; ours read what is committed
_NO_TABLE, _NO_COLUMN = 1146, 1054
_DUPLICATE = 1062
_LOCK_WAIT_S = 3  # for a row that another transaction holds
_SCHEMA_LOCK_S = 5  # of one try; the socket's own limit must not strike first
_SCHEMA_TRIES = 12
_PASSED_OVER_MAX = 1_000  # jobs on their last attempt that a claim looks past while it fills its prefetch

_INSERT = """
INSERT INTO jobs (id, queue, job_class, job_name, data, attempts, max_retries, timeout, status, created_at,
                  available_at, priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, meta)
VALUES (%s, %s, %s, %s, %s, 0, %s, %s, 'pending', UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND,
        coalesce(%s, UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND), %s, %s, %s, 0, 0, 0, 0, %s)
"""

# `ready` is the queue of a pending job and NULL otherwise: MariaDB has no partial indexes. The worker's row is locked
# against its deletion before any job is touched.
_START = """
SELECT UTC_TIMESTAMP(6), workers.id FROM (SELECT 1) AS once LEFT JOIN workers ON workers.id = %s LOCK IN SHARE MODE
"""
_DUE = """
SELECT id, claim_seq + 1, job_name, job_class, data, attempts + 1, max_retries, retry_delay, retry_policy, timeout,
       available_at, crashes, returns, reclaims, meta, cancel_requested_at
FROM jobs
WHERE ready = %s AND priority = %s AND available_at <= %s AND available_at >= %s
  AND NOT EXISTS (SELECT 1 FROM queues WHERE name = %s AND paused_at IS NOT NULL)
ORDER BY available_at, id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_LEND = """
UPDATE jobs SET status = 'processing', attempts = attempts + 1, claim_seq = claim_seq + 1,
                reserved_at = %s, reserved_by = %s, progress = NULL
WHERE id IN ({})
"""
_LOCK = "SELECT id, queue, claim_seq, reserved_by, available_at FROM jobs WHERE id IN ({}) ORDER BY id FOR UPDATE"
_COMPLETE = "UPDATE jobs SET status = 'completed', processed_at = %s, reserved_by = NULL WHERE id IN ({})"

_BEGINNING = datetime(1970, 1, 1)  # noqa: DTZ001 (DATETIME has no zone; ours hold UTC)


class MariaDBDialect:
    """The hot statements on PyMySQL's own cursor, in the time of the server's clock."""

    turn_mode = Mode.WORK

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
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {_LOCK_WAIT_S}")
                if "MariaDB" in str(vars(raw)["server_version"]):
                    # A client that froze inside a transaction must not hold its locks for ever. (MySQL has none.)
                    cursor.execute("SET SESSION idle_transaction_timeout = 10")

    def attach(self, run: Run) -> None:
        """See Dialect.attach."""
        # nothing is ever done outside of a verb

    def begin(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.begin."""
        cursor = _raw(conn).cursor()
        # Of the next transaction only. What is read in several statements is read at one moment.
        if mode is Mode.READ:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        elif not self._is_ours:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute("START TRANSACTION")

    def end(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.end."""
        _raw(conn).commit()

    def now(self, conn: Connection) -> datetime:
        """See Dialect.now."""
        moment = conn.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one()
        assert isinstance(moment, datetime)
        return moment.replace(tzinfo=UTC) + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        """See Dialect.is_conflict."""
        return isinstance(error, pymysql.Error) and _code(error) in (_DEADLOCK, _LOCK_TIMEOUT, _CHANGED)

    def is_schema_missing(self, error: BaseException) -> bool:
        """See Dialect.is_schema_missing."""
        return isinstance(error, pymysql.Error) and _code(error) in (_NO_TABLE, _NO_COLUMN)

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
            _raw(conn).cursor().execute(_INSERT, values)
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
        ((now, worker),) = _rows(conn, _START, (ask.worker if ask.limit else None,))
        now += timedelta(seconds=self.time_offset)
        stands = worker is not None or not ask.limit
        settled = settling.in_rounds(
            ask.settlements, lambda round_: self._settle(conn, round_, now, shard_of(ask.worker))
        )
        if len(settling.split(ask.settlements)[0]) < len(ask.settlements):
            self._lanes.note_enqueue(ask.queues)  # what goes back to pending may be claimed again by this very turn
        claimed = self._claim(conn, ask, now) if stands and ask.limit else []
        return ClaimReply(settled=tuple(settled), claimed=tuple(claimed), lease_lost=not stands)

    def _settle(self, conn: Connection, round_: Sequence[Settlement], now: datetime, shard: int) -> list[Settled]:
        plain, others = settling.split(round_)
        answers = self._complete(conn, plain, now, shard) if plain else {}
        if others:
            moment = now.replace(tzinfo=UTC)
            answers |= {answer.id: answer for answer in settling.apply(conn, others, moment, shard)}
        return [answers[s.id] for s in round_]

    def _complete(self, conn: Connection, done: Sequence[Settlement], now: datetime, shard: int) -> dict[str, Settled]:
        said = {s.id: (s.claim_seq, s.reserved_by) for s in done if canonical(s.id)}
        rows = _rows(conn, _LOCK.format(_marks(said)), tuple(said)) if said else ()
        current = [row for row in rows if said[row[0]] == (row[2], row[3])]
        if current:
            ids = [row[0] for row in current]
            _raw(conn).cursor().execute(_COMPLETE.format(_marks(ids)), (now, *ids))
            count(conn, Counter((row[1], "completed") for row in current), shard)
        answers = {
            row[0]: Settled(
                id=row[0],
                status=SettleStatus.APPLIED,
                state=JobState.COMPLETED,
                available_at=row[4].replace(tzinfo=UTC),
            )
            for row in current
        }
        if len(answers) < len(done):
            answers |= settling.answer_unmatched(conn, [s for s in done if s.id not in answers])
        return answers

    def _claim(self, conn: Connection, ask: Ask, now: datetime) -> list[ClaimedJob]:
        queues = tuple(dict.fromkeys(ask.queues))
        lanes = self._lanes.fresh(queues, self.time_offset)
        batch = _Batch(ask, now)
        if lanes is not None:
            self._fill(conn, batch, lanes)
        if not batch.is_full:  # what was remembered may have overlooked something
            lanes = self._lanes.read(queues, self.time_offset, lambda: _look(conn, queues))
            self._fill(conn, batch, lanes)
        assert lanes is not None
        lanes.note_claim(batch.jobs, is_full=len(batch.jobs) >= ask.limit)
        if batch.jobs:
            ids = [job.id for job in batch.jobs]
            _raw(conn).cursor().execute(_LEND.format(_marks(ids)), (now, ask.worker, *ids))
        return batch.jobs

    def _fill(self, conn: Connection, batch: _Batch, lanes: Lanes) -> None:
        for (queue, priority), floor in zip(lanes.order, lanes.floors, strict=True):
            if batch.is_full:
                return
            start = floor.replace(tzinfo=None) if floor else _BEGINNING
            looks_at = batch.room + len(batch.jobs)  # those taken already are still pending
            rows = _rows(conn, _DUE, (queue, priority, batch.now, start, queue, looks_at))
            if batch.add(rows, queue, priority) and len(rows) == looks_at:
                # Jobs on their last attempt stood before others: look past them.
                looks_at += _PASSED_OVER_MAX
                rows = _rows(conn, _DUE, (queue, priority, batch.now, start, queue, looks_at))
                batch.add(rows, queue, priority)

    # ------------------------------------------------------------------------------------------------------- wait

    def ring(self, queues: Iterable[str]) -> None:
        """See Dialect.ring."""
        names = set(queues)
        self._lanes.note_enqueue(names)  # what was taken back has its old place in the line, below the floors
        self._bell.ring(names)  # other processes poll

    def ring_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        """See Dialect.ring_inside."""

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See Dialect.wait."""
        return self._watcher.wait(self._heard, queues, timeout, self.time_offset)

    def close(self) -> None:
        """See Dialect.close."""
        self._watcher.close()


class _Batch:
    """What a claim has gathered so far, and what it may still take."""

    def __init__(self, ask: Ask, now: datetime) -> None:
        self.jobs: list[ClaimedJob] = []
        self.now = now
        self._ask = ask
        self._bytes = BATCH_BYTES_MAX
        self._taken: set[str] = set()

    @property
    def room(self) -> int:
        """How many more jobs fit."""
        return self._ask.limit - len(self.jobs)

    @property
    def is_full(self) -> bool:
        """No more jobs, or no more bytes."""
        return self.room <= 0 or self._bytes < 0

    def add(self, rows: Sequence[tuple[Any, ...]], queue: str, priority: int) -> bool:
        """Take what may be taken, in order; True if some were passed over."""
        is_choosy = False
        for row in rows:
            if self.is_full or row[0] in self._taken:
                continue
            if len(self.jobs) >= self._ask.slots and row[5] > row[6]:
                is_choosy = True  # it would wait in the worker's memory with its last attempt spent
                continue
            self._bytes -= payload_bytes(row[4])
            if self._bytes < 0 and self.jobs:
                continue
            self._taken.add(row[0])
            self.jobs.append(_job(row, queue, priority, self._ask.worker, self.now))
        return is_choosy


def _raw(conn: Connection) -> Raw[Any]:
    raw: Raw[Any] | None = conn.connection.driver_connection
    assert isinstance(raw, Raw)
    return raw


def _rows(conn: Connection, statement: str, values: Sequence[object]) -> tuple[tuple[Any, ...], ...]:
    with _raw(conn).cursor() as cursor:
        cursor.execute(statement, tuple(values))
        return tuple(cursor.fetchall())


def _look(conn: Connection, queues: tuple[str, ...]) -> list[Lane]:
    with _raw(conn).cursor() as cursor:
        return list(walk_lanes(cursor, queues))


def _marks(values: Iterable[object]) -> str:
    return ", ".join("%s" for _ in values)


def _code(error: pymysql.Error) -> int:
    return int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0


def _job(row: tuple[Any, ...], queue: str, priority: int, worker: str, now: datetime) -> ClaimedJob:
    (id_, seq, name, class_, data, attempts, retries, delay, policy, timeout, due, crashes, returns, reclaims, meta,
     cancel) = row  # fmt: skip
    return ClaimedJob(
        id=id_,
        claim_seq=seq,
        reserved_by=worker,
        queue=queue,
        job_name=name,
        job_class=class_,
        data=data,
        priority=priority,
        attempts=attempts,
        max_retries=retries,
        retry_delay=delay,
        retry_policy=policy,
        timeout=timeout,
        available_at=due.replace(tzinfo=UTC),
        reserved_at=now.replace(tzinfo=UTC),
        crashes=crashes,
        returns=returns,
        reclaims=reclaims,
        meta=meta,
        is_cancel_requested=cancel is not None,
    )
