"""SQLite: one writer at a time, so every step is a BEGIN IMMEDIATE, short, on a write-ahead log."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from protojobs.clock import SYSTEM_CLOCK, time_left
from protojobs.entropy import jittered
from protojobs.lifecycle import JobState
from protojobs.records import BATCH_BYTES_MAX, ClaimedJob, ClaimReply, NewJob, Settled, Settlement, SettleStatus
from protojobs_sqlalchemy import settling
from protojobs_sqlalchemy.bell import Bell
from protojobs_sqlalchemy.bounds import payload_bytes
from protojobs_sqlalchemy.counting import shard_of
from protojobs_sqlalchemy.dialects import Ask, Mode, Run
from protojobs_sqlalchemy.types import from_microseconds, to_microseconds

__all__ = ["SQLiteDialect"]

_BUSY_S = 5.0  # how long a step waits for the write lock
_BUSY_PAUSE_S = 0.002  # SQLite's own handler sleeps up to 100 ms and is unfair: 342 ms at worst against 5
_POLL_S = 0.025  # PRAGMA data_version costs 2.4 us; 40 a second are 0.1 ms
_LIVELY_POLL_S, _LIVELY_S = 0.002, 2.0  # where jobs came lately, more are likely: 500 a second are 1 ms
_PASSED_OVER_MAX = 1_000  # jobs on their last attempt that a claim looks past while it fills its prefetch

_PRAGMAS = ("journal_mode = WAL", "temp_store = MEMORY", "cache_size = -16000", "mmap_size = 268435456")

_INSERT = """
INSERT INTO jobs (id, queue, job_class, job_name, data, attempts, max_retries, timeout, status, created_at,
                  available_at, priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, meta)
VALUES (?, ?, ?, ?, ?, 0, ?, ?, 'pending', ?, ?, ?, ?, ?, 0, 0, 0, 0, ?)
ON CONFLICT (id) DO NOTHING
"""

# A lane is a (queue, priority) that has pending jobs. Found by jumping from one to the next in jobs_ready: two probes
# each, however many jobs wait in it. `IN (...) ORDER BY priority` would sort all of them.
_LANES = """
WITH RECURSIVE lanes (place, queue, priority) AS (
    SELECT key, value, (SELECT max(priority) FROM jobs WHERE status = 'pending' AND queue = value) FROM json_each(?)
    UNION ALL
    SELECT place, queue, (SELECT max(priority) FROM jobs
                          WHERE status = 'pending' AND queue = lanes.queue AND priority < lanes.priority)
    FROM lanes WHERE priority IS NOT NULL
)
SELECT queue, priority FROM lanes
WHERE priority IS NOT NULL AND queue NOT IN (SELECT name FROM queues WHERE paused_at IS NOT NULL)
ORDER BY place, priority DESC
"""

_DUE = """
SELECT rowid, id, claim_seq + 1, job_name, job_class, data, attempts + 1, max_retries, retry_delay, retry_policy,
       timeout, available_at, crashes, returns, reclaims, meta, cancel_requested_at
FROM jobs
WHERE status = 'pending' AND queue = ? AND priority = ? AND available_at <= ?
ORDER BY available_at, id
"""

_LEND = """
UPDATE jobs SET status = 'processing', attempts = attempts + 1, claim_seq = claim_seq + 1,
                reserved_at = ?, reserved_by = ?, progress = NULL
WHERE rowid IN (SELECT value FROM json_each(?))
"""

_COMPLETE = """
UPDATE jobs SET status = 'completed', processed_at = ?, reserved_by = NULL
FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS claim_seq,
             json_extract(value, '$[2]') AS reserved_by FROM json_each(?)) AS done
WHERE jobs.id = done.id AND jobs.claim_seq = done.claim_seq AND jobs.reserved_by = done.reserved_by
RETURNING jobs.id, jobs.queue, jobs.available_at
"""

_COUNT = """
INSERT INTO counters (queue, status, shard, count) VALUES (?, 'completed', ?, ?)
ON CONFLICT (queue, status, shard) DO UPDATE SET count = count + excluded.count
"""

_NEXT_DUE = "SELECT min(available_at) FROM jobs WHERE status = 'pending' AND queue = ? AND priority = ?"


def _raw(conn: Connection) -> sqlite3.Connection:
    raw = conn.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


class SQLiteDialect:
    """The hot statements on sqlite3's own cursor, in the time of this machine's clock."""

    turn_mode = Mode.WORK

    def __init__(self, engine: Engine, time_offset: float, *, is_ours: bool) -> None:
        self.time_offset = time_offset
        self._engine = engine
        self._is_ours = is_ours
        self._bell = Bell()
        self._lively_until = 0.0

    # ------------------------------------------------------------------------------------------------------ steps

    def prepare(self, engine: Engine) -> None:
        """See Dialect.prepare."""

        @event.listens_for(engine, "connect")
        def _set_up(raw: sqlite3.Connection, _record: object) -> None:
            raw.isolation_level = None  # the module begins nothing by itself: it would begin too late, and too weakly
            for pragma in _PRAGMAS:
                _patiently(lambda sql=f"PRAGMA {pragma}": raw.execute(sql))  # type: ignore[misc]

        @event.listens_for(engine, "begin")
        def _begin(conn: Connection) -> None:
            options = conn.get_execution_options()
            if options.get("isolation_level") != "AUTOCOMMIT":  # a session of the application's on our engine
                # A writer had better ask for IMMEDIATE: one that reads first may find the lock taken when it writes.
                kind = options.get("sqlite_begin", "DEFERRED")
                _patiently(lambda: _raw(conn).execute(f"BEGIN {kind}"))

    def attach(self, run: Run) -> None:
        """See Dialect.attach."""
        # nothing is ever done outside of a verb

    def begin(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.begin."""
        raw = _raw(conn)
        if not conn.in_transaction():
            conn.begin()  # now, since an application's engine may have a recipe of its own for this event ...
        if raw.in_transaction:  # ... which has begun a transaction, of a kind that we do not know
            raw.execute("COMMIT")
        if mode is Mode.READ:
            raw.execute("BEGIN")
            return
        if self._is_ours:
            raw.execute("PRAGMA synchronous = FULL" if mode is Mode.STORE else "PRAGMA synchronous = NORMAL")
        elif mode is Mode.STORE:
            conn.info["synchronous"] = raw.execute("PRAGMA synchronous").fetchone()[0]
            raw.execute("PRAGMA synchronous = FULL")
        _patiently(lambda: raw.execute("BEGIN IMMEDIATE"))

    def end(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.end."""
        raw = _raw(conn)
        _patiently(raw.commit)
        if mode is Mode.STORE and not self._is_ours:
            raw.execute(f"PRAGMA synchronous = {int(conn.info.pop('synchronous', 2))}")

    def now(self, conn: Connection) -> datetime:
        """See Dialect.now."""
        return self._clock()

    def _clock(self) -> datetime:
        return SYSTEM_CLOCK.now() + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        """See Dialect.is_conflict."""
        code = getattr(error, "sqlite_errorcode", 0) or 0
        return isinstance(error, sqlite3.OperationalError) and code & 0xFF in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        )

    def is_schema_missing(self, error: BaseException) -> bool:
        """See Dialect.is_schema_missing."""
        return isinstance(error, sqlite3.OperationalError) and str(error).startswith(
            ("no such table", "no such column")
        )

    def identity(self, conn: Connection) -> str:
        """See Dialect.identity."""
        rows = conn.exec_driver_sql("PRAGMA database_list").fetchall()
        return str(Path(next(str(row[2]) for row in rows if row[1] == "main")).resolve())

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        """See Dialect.lock_schema."""
        return lambda: None  # BEGIN IMMEDIATE has locked everything

    # ---------------------------------------------------------------------------------------------------- enqueue

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        """See Dialect.enqueue_mode."""
        return Mode.STORE

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> set[str]:
        """See Dialect.enqueue."""
        now = to_microseconds(self.now(conn))
        cursor = _raw(conn).cursor()
        return {job.id for job in jobs if cursor.execute(_INSERT, _new_row(job, now)).rowcount == 1}

    # ------------------------------------------------------------------------------------------------------- turn

    def turn(self, conn: Connection, ask: Ask) -> ClaimReply:
        """See Dialect.turn."""
        now = self.now(conn)
        cursor = _raw(conn).cursor()
        stands = not ask.limit or cursor.execute("SELECT 1 FROM workers WHERE id = ?", (ask.worker,)).fetchone()
        settled = settling.in_rounds(
            ask.settlements, lambda round_: self._settle(conn, round_, now, shard_of(ask.worker))
        )
        claimed = self._claim(cursor, ask, to_microseconds(now)) if stands and ask.limit else []
        return ClaimReply(settled=tuple(settled), claimed=tuple(claimed), lease_lost=not stands)

    def _settle(self, conn: Connection, round_: Sequence[Settlement], now: datetime, shard: int) -> list[Settled]:
        plain, others = settling.split(round_)
        answers = self._complete(conn, plain, to_microseconds(now), shard) if plain else {}
        if others:
            answers |= {answer.id: answer for answer in settling.apply(conn, others, now, shard)}
        return [answers[s.id] for s in round_]

    def _complete(self, conn: Connection, done: Sequence[Settlement], now: int, shard: int) -> dict[str, Settled]:
        cursor = _raw(conn).cursor()
        batch = json.dumps([(s.id, s.claim_seq, s.reserved_by) for s in done])
        rows = cursor.execute(_COMPLETE, (now, batch)).fetchall()
        for queue, count in sorted(Counter(row[1] for row in rows).items()):
            cursor.execute(_COUNT, (queue, shard, count))
        answers = {
            row[0]: Settled(
                id=row[0],
                status=SettleStatus.APPLIED,
                state=JobState.COMPLETED,
                available_at=from_microseconds(row[2]),
            )
            for row in rows
        }
        if len(answers) < len(done):
            answers |= settling.answer_unmatched(conn, [s for s in done if s.id not in answers])
        return answers

    def _claim(self, cursor: sqlite3.Cursor, ask: Ask, now: int) -> list[ClaimedJob]:
        lent: list[ClaimedJob] = []
        row_ids: list[int] = []
        room, passed_over = BATCH_BYTES_MAX, 0
        lent_at = from_microseconds(now)
        lanes = cursor.execute(_LANES, (json.dumps(list(dict.fromkeys(ask.queues))),)).fetchall()
        for queue, priority in lanes:
            for row in cursor.execute(_DUE, (queue, priority, now)):
                if len(lent) >= ask.limit or passed_over >= _PASSED_OVER_MAX:
                    break
                if len(lent) >= ask.slots and row[6] > row[7]:
                    passed_over += 1  # it would wait in the worker's memory with its last attempt spent
                    continue
                room -= payload_bytes(row[5])
                if room < 0 and lent:
                    break
                row_ids.append(row[0])
                lent.append(_claimed(row, queue, priority, ask.worker, lent_at))
            if len(lent) >= ask.limit or room < 0:
                break
        if lent:
            cursor.execute(_LEND, (now, ask.worker, json.dumps(row_ids)))
        return lent

    # ------------------------------------------------------------------------------------------------------- wait

    def ring(self, queues: Iterable[str]) -> None:
        """See Dialect.ring."""
        self._bell.ring(queues)  # other processes see it by the file's data_version

    def ring_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        """See Dialect.ring_inside."""
        # the commit itself changes data_version

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See Dialect.wait."""
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        heard = self._bell.listen()
        with closing(self._open()) as raw:
            seen, due_at = -1, None
            while True:
                version = raw.execute("PRAGMA data_version").fetchone()[0]
                if version != seen:
                    seen, due_at = version, self._next_due(raw, queues)
                now = SYSTEM_CLOCK.monotonic()
                if due_at is not None and due_at <= to_microseconds(self._clock()):
                    self._lively_until = now + _LIVELY_S
                    return True
                if now >= ends_at:
                    return False
                poll_s = _LIVELY_POLL_S if now < self._lively_until else _POLL_S
                if self._bell.wait(heard, queues, min(poll_s, ends_at - now)):
                    return True

    def _open(self) -> sqlite3.Connection:
        """A connection apart from the pool's: it looks and sleeps, and nobody shall wait for it."""
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        options.update(isolation_level=None, timeout=0.1)
        return sqlite3.connect(arguments[0], **options)

    def _next_due(self, raw: sqlite3.Connection, queues: Sequence[str]) -> int | None:
        lanes = raw.execute(_LANES, (json.dumps(list(queues)),)).fetchall()
        moments = [raw.execute(_NEXT_DUE, lane).fetchone()[0] for lane in lanes]
        return min((moment for moment in moments if moment is not None), default=None)

    def close(self) -> None:
        """See Dialect.close."""


def _patiently(action: Callable[[], object]) -> None:
    """Do it once the file is free, or raise SQLite's own `database is locked` after `_BUSY_S`."""
    gives_up_at = SYSTEM_CLOCK.monotonic() + time_left(_BUSY_S)
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or SYSTEM_CLOCK.monotonic() > gives_up_at:
                raise
        time.sleep(jittered(_BUSY_PAUSE_S, 0.9))


def _new_row(job: NewJob, now: int) -> tuple[object, ...]:
    due = now + round(job.delay * 1e6) if job.available_at is None else to_microseconds(job.available_at)
    return (
        job.id,
        job.queue,
        job.job_class,
        job.job_name,
        job.data,
        job.max_retries,
        job.timeout,
        now,
        due,
        job.priority,
        job.retry_delay,
        job.retry_policy,
        job.meta,
    )


def _claimed(row: tuple[Any, ...], queue: str, priority: int, worker: str, lent_at: datetime) -> ClaimedJob:
    (_, id_, seq, name, class_, data, attempts, retries, delay, policy, timeout, due, crashes, returns, reclaims, meta,
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
        available_at=from_microseconds(due),
        reserved_at=lent_at,
        crashes=crashes,
        returns=returns,
        reclaims=reclaims,
        meta=meta,
        is_cancel_requested=cancel is not None,
    )
