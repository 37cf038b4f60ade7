"""A job's way through SQLite: the statements that store jobs, settle completions and lend jobs to a worker.

There is one write lock for the whole file, so nothing happens under it that can wait: rows become records afterwards.
`dialect.py` says how a step gets the lock, and how workers wait for jobs.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, ValidationError, convert
from sqlalchemy import Connection

from protojobs.port.lifecycle import JobState
from protojobs.port.records import (
    BATCH_BYTES_MAX,
    ClaimedJob,
    ClaimReply,
    Fence,
    NewJob,
    Settled,
    Settlement,
    SettleStatus,
    payload_bytes,
)
from protojobs.port.rules import DELAY_MAX_S, PASSED_OVER_MAX
from protojobs.port.unreadable_rows import set_aside, why_unreadable
from protojobs_sqlalchemy.dialect import Dialect, Mode, TurnReply, TurnRequest
from protojobs_sqlalchemy.tables.naming import Names
from protojobs_sqlalchemy.tables.types import (
    TIMES_FROM,
    TIMES_UNTIL,
    from_microseconds,
    read_time,
    stored_value,
    to_microseconds,
)
from protojobs_sqlalchemy.verbs import settling
from protojobs_sqlalchemy.verbs.lanes import Lane

__all__ = ["enqueue", "next_due", "raw_of", "turn"]

_ROWS = 100  # 1,300 values of the 32,766 that a statement may have; with 500 it is no faster
_SHARD = 0  # of the counters: whoever writes has the file to itself


def _insert(rows: int) -> str:
    row = "(?, ?, ?, ?, ?, 0, ?, ?, 'pending', ?, ?, ?, ?, ?, 0, 0, 0, 0, ?)"
    return f"""
INSERT INTO @jobs (id, queue, job_class, job_name, data, attempts, max_retries, timeout, status, created_at,
                  available_at, priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, meta)
VALUES {", ".join([row] * rows)}
ON CONFLICT (id) DO NOTHING
"""


_STORED_LAST = "SELECT id FROM @jobs WHERE rowid > ?"
_STANDS = "SELECT 1 FROM @workers WHERE id = ?"

_INSERT_ONE, _INSERT_MANY = _insert(1), _insert(_ROWS)  # two texts only: SQLite keeps what it has prepared

# A lane is a (queue, priority) that has pending jobs. Found by jumping from one to the next in jobs_ready: two probes
# each, however many jobs wait in it. `IN (...) ORDER BY priority` would sort all of them.
_LANES = """
WITH RECURSIVE lanes (place, queue, priority) AS (
    SELECT key, value, (SELECT max(priority) FROM @jobs WHERE status = 'pending' AND queue = value) FROM json_each(?)
    UNION ALL
    SELECT place, queue, (SELECT max(priority) FROM @jobs
                          WHERE status = 'pending' AND queue = lanes.queue AND priority < lanes.priority)
    FROM lanes WHERE priority IS NOT NULL
)
SELECT queue, priority FROM lanes
WHERE priority IS NOT NULL AND queue NOT IN (SELECT name FROM @queues WHERE paused_at IS NOT NULL)
ORDER BY place, priority DESC
"""

_DUE = """
SELECT rowid, id, min(claim_seq, 2147483646) + 1, job_name, job_class, data, min(attempts, 2147483646) + 1, max_retries,
       retry_delay, retry_policy, timeout, available_at, crashes, returns, reclaims, meta, cancel_requested_at,
       attempts >= max_retries
FROM @jobs
WHERE status = 'pending' AND queue = ? AND priority = ? AND available_at <= ?
ORDER BY available_at, id
"""

_LEND = """
UPDATE @jobs SET status = 'processing', attempts = min(attempts, 2147483646) + 1,
                claim_seq = min(claim_seq, 2147483646) + 1, reserved_at = ?, reserved_by = ?, progress = NULL
WHERE rowid IN (SELECT value FROM json_each(?))
"""

# An object of id: claim_seq, since json_each hands out its keys and values as columns: half the time of json_extract.
_COMPLETE = """
UPDATE @jobs SET status = 'completed', processed_at = ?, reserved_by = NULL
FROM json_each(?) AS done
WHERE @jobs.id = done.key AND @jobs.claim_seq = done.value AND @jobs.reserved_by = ?
RETURNING @jobs.id, @jobs.queue
"""

_COUNT = """
INSERT INTO @counters (queue, status, shard, count) VALUES (?, 'completed', ?, ?)
ON CONFLICT (queue, status, shard) DO UPDATE SET count = count + excluded.count
"""

_NEXT_DUE = f"""
SELECT min(available_at) FROM @jobs
WHERE status = 'pending' AND queue = ? AND priority = ? AND available_at <= {TIMES_UNTIL}
"""

_NAMES = (
    *("id", "claim_seq", "job_name", "job_class", "data", "attempts", "max_retries", "retry_delay", "retry_policy"),
    *("timeout", "available_at", "crashes", "returns", "reclaims", "meta"),
)
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Seconds = Annotated[float, Meta(ge=0, le=DELAY_MAX_S)]
_Time = Annotated[int, Meta(ge=TIMES_FROM, le=TIMES_UNTIL)]
_Sound = tuple[  # the lane, and a row of _DUE as drivers write it
    tuple[str, Annotated[int, Meta(ge=-(2**15), le=2**15 - 1)]],
    tuple[
        int, str, _Count, str, str, str, _Count, _Count, _Seconds, str | None, _Seconds, _Time, _Count, _Count, _Count,
        str | None, int | None, int,
    ],
]  # fmt: skip

Lent: TypeAlias = list[tuple[Lane, tuple[Any, ...]]]  # each row with the lane that it stood in


def enqueue(cursor: sqlite3.Cursor, names: Names, jobs: Sequence[NewJob], now: int) -> set[str]:
    """Insert the jobs whose id is not there; the ids that were stored. Within a step that may write."""
    whole = len(jobs) - len(jobs) % _ROWS
    number = 0
    for first in range(0, whole, _ROWS):
        values = [value for job in jobs[first : first + _ROWS] for value in _new_values(job, now)]
        number += cursor.execute(names.sql(_INSERT_MANY), values).rowcount
    for job in jobs[whole:]:
        number += cursor.execute(names.sql(_INSERT_ONE), _new_values(job, now)).rowcount
    if number in (0, len(jobs)):
        return {job.id for job in jobs} if number else set()
    # Some were there already. Ours are at the end, one after the other, since nobody else can write meanwhile.
    before = (cursor.lastrowid or 0) - number
    return {row[0] for row in cursor.execute(names.sql(_STORED_LAST), (before,))}


def _new_values(job: NewJob, now: int) -> tuple[object, ...]:
    due = now + round(job.delay * 1e6) if job.available_at is None else to_microseconds(job.available_at)
    return (
        *(job.id, job.queue, job.job_class, job.job_name, job.data, job.max_retries, job.timeout, now, due),
        *(job.priority, job.retry_delay, job.retry_policy, job.meta),
    )


def turn(
    conn: Connection, dialect: Dialect, request: TurnRequest, text_factory: Callable[[bytes], str | bytes]
) -> ClaimReply:
    """Settle, then claim, in one transaction; then make the records of what was lent."""
    dialect.begin(conn, Mode.WORK)
    raw = raw_of(conn)
    raw.text_factory = text_factory
    now = dialect.now(conn)
    moment, lent, is_standing = to_microseconds(now), Lent(), True
    with closing(raw.cursor()) as cursor:  # one left open half-way would keep its snapshot, and the log grow
        if request.limit:
            standing = cursor.execute(dialect.names.sql(_STANDS), (request.worker,))
            is_standing = standing.fetchone() is not None
        settled = _settle(conn, dialect, cursor, request.settlements, now)
        if any([s.then for s in request.settlements]):  # what has come just now is due for this very claim
            moment = to_microseconds(dialect.now(conn))
        if request.limit and is_standing:
            lent = _claim(cursor, dialect.names, request, moment)
    dialect.end(conn, Mode.WORK)
    if not is_standing:
        return ClaimReply(settled=tuple(settled), lease_lost=True)
    return _reply(lent, request.worker, moment, settled)


def _settle(
    conn: Connection, dialect: Dialect, cursor: sqlite3.Cursor, settlements: Sequence[Settlement], now: datetime
) -> list[Settled]:
    """Completions of different jobs, which are nearly all, by statements of their own; the others as everywhere."""
    if settling.are_plain(settlements):
        return _complete(conn, dialect, cursor, settlements, now) if settlements else []

    def settle_round(settlements: Sequence[Settlement]) -> list[Settled]:
        plain, others = settling.split(settlements)
        replies = settling.settle(conn, dialect, others, now, _SHARD) if others else []
        if plain:
            replies += _complete(conn, dialect, cursor, plain, now)
        by_id = {reply.id: reply for reply in replies}
        return [by_id[s.id] for s in settlements]

    return settling.in_rounds(settlements, settle_round)


def _complete(
    conn: Connection, dialect: Dialect, cursor: sqlite3.Cursor, done: Sequence[Settlement], now: datetime
) -> list[Settled]:
    """Mark jobs completed, count them, and reply in order. No job twice."""
    rows: list[tuple[str, str]] = []
    for holder in sorted({s.reserved_by for s in done}):  # one, unless a worker settles what it held under an older id
        batch = json.dumps({s.id: s.claim_seq for s in done if s.reserved_by == holder})
        rows += cursor.execute(dialect.names.sql(_COMPLETE), (to_microseconds(now), batch, holder)).fetchall()
    for queue, number in sorted(Counter([row[1] for row in rows]).items()):
        cursor.execute(dialect.names.sql(_COUNT), (queue, _SHARD, number))
    applied, completed = SettleStatus.APPLIED, JobState.COMPLETED
    if len(rows) == len(done):
        return [Settled(s.id, applied, completed) for s in done]
    ids = {row[0] for row in rows}
    others = settling.settle_unmatched(conn, dialect, [s for s in done if s.id not in ids])
    return [others.get(s.id) or Settled(s.id, applied, completed) for s in done]


def _claim(cursor: sqlite3.Cursor, names: Names, request: TurnRequest, now: int) -> Lent:
    """Lend due jobs to the worker; the rows as they were before, in the order of the claim."""
    lent: Lent = []
    room, passed_over = BATCH_BYTES_MAX, 0
    for lane in _lanes(cursor, names, request.queues):
        for row in cursor.execute(names.sql(_DUE), (*lane, now)):
            if len(lent) >= request.limit or passed_over >= PASSED_OVER_MAX:
                break
            if len(lent) >= request.slots and row[17]:
                passed_over += 1  # it would wait in the worker's memory with its last attempt spent
                continue
            room -= payload_bytes(row[5])
            if room < 0 and lent:
                break
            lent.append((lane, row))
        if len(lent) >= request.limit or room < 0:
            break
    if lent:
        cursor.execute(names.sql(_LEND), (now, request.worker, json.dumps([row[0] for _, row in lent])))
    return lent


def _reply(lent: Lent, worker: str, now: int, settled: Sequence[Settled]) -> ClaimReply:
    """The port's records of what was lent. What no driver wrote is not among them: see TurnReply."""
    try:
        convert(lent, list[_Sound])
    except ValidationError:
        reasons = [why_unreadable(_values(*each)) for each in lent]
        unreadable = tuple(
            set_aside(Fence(id=row[1], claim_seq=row[2], reserved_by=worker), why)
            for (_, row), why in zip(lent, reasons, strict=True)
            if why and isinstance(row[1], str)
        )
        lent = [(lane, _texts(row)) for (lane, row), why in zip(lent, reasons, strict=True) if not why]
        return TurnReply(settled=tuple(settled), claimed=_records(lent, worker, now), unreadable=unreadable)
    return ClaimReply(settled=tuple(settled), claimed=_records(lent, worker, now))


def _records(lent: Lent, worker: str, now: int) -> tuple[ClaimedJob, ...]:
    lent_at = from_microseconds(now)
    jobs: list[ClaimedJob] = []
    last, due_at = now, lent_at
    for (queue, priority), (_, id_, seq, name, class_, data, attempts, retries, delay, policy, timeout, due, crashes,
                            returns, reclaims, meta, cancelled_at, _) in lent:  # fmt: skip
        if due != last:  # what was pushed together is due together
            last, due_at = due, from_microseconds(due)
        jobs.append(
            ClaimedJob(
                id_, seq, worker, queue, name, class_, data, priority, attempts, retries, delay, policy, timeout,
                due_at, lent_at, crashes, returns, reclaims, meta, cancelled_at is not None,
            )
        )  # fmt: skip
    return tuple(jobs)


def _values(lane: Lane, row: tuple[Any, ...]) -> dict[str, object]:
    values: dict[str, object] = dict(zip(_NAMES, row[1:], strict=False))
    return values | {"priority": lane[1], "available_at": stored_value(read_time(values["available_at"]))}


def _texts(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.decode() if isinstance(value, bytes) else value for value in row)


def next_due(raw: sqlite3.Connection, names: Names, queues: Sequence[str]) -> int | None:
    """When the next job of these queues is due, in microseconds since 1970; None when none waits."""
    lanes = _lanes(raw.cursor(), names, queues)
    moments = [raw.execute(names.sql(_NEXT_DUE), lane).fetchone()[0] for lane in lanes]
    return min((moment for moment in moments if moment is not None), default=None)


def _lanes(cursor: sqlite3.Cursor, names: Names, queues: Sequence[str]) -> list[Lane]:
    return cursor.execute(names.sql(_LANES), (json.dumps(list(dict.fromkeys(queues))),)).fetchall()


def raw_of(conn: Connection) -> sqlite3.Connection:
    """The connection of sqlite3 beneath SQLAlchemy's."""
    raw = conn.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw
