"""A worker's turn on SQLite: the statements that settle completions and lend jobs, and what comes out of them.

The write lock is the only one there is, so nothing happens under it that can wait: rows become records afterwards.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta, ValidationError, convert
from sqlalchemy import Connection

from protojobs.port.lifecycle import JobState
from protojobs.port.records import BATCH_BYTES_MAX, ClaimedJob, ClaimReply, Fence, Settled, Settlement, SettleStatus
from protojobs.port.rules import DELAY_MAX_S
from protojobs.port.unreadable import set_aside, why_unreadable
from protojobs_sqlalchemy.dialect import Ask, Turned
from protojobs_sqlalchemy.tables.types import TIMES_FROM, TIMES_UNTIL, from_microseconds, read_time, stored_value
from protojobs_sqlalchemy.verbs import settling
from protojobs_sqlalchemy.verbs.bounds import payload_bytes
from protojobs_sqlalchemy.verbs.lanes import Lane

__all__ = ["Lent", "answer", "complete", "next_due", "take"]

_PASSED_OVER_MAX = 1_000  # jobs on their last attempt that a claim looks past while it fills its prefetch

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
SELECT rowid, id, min(claim_seq, 2147483646) + 1, job_name, job_class, data, min(attempts, 2147483646) + 1, max_retries,
       retry_delay, retry_policy, timeout, available_at, crashes, returns, reclaims, meta, cancel_requested_at,
       attempts >= max_retries
FROM jobs
WHERE status = 'pending' AND queue = ? AND priority = ? AND available_at <= ?
ORDER BY available_at, id
"""

_LEND = """
UPDATE jobs SET status = 'processing', attempts = min(attempts, 2147483646) + 1,
                claim_seq = min(claim_seq, 2147483646) + 1, reserved_at = ?, reserved_by = ?, progress = NULL
WHERE rowid IN (SELECT value FROM json_each(?))
"""

# An object of id: claim_seq, since json_each hands out its keys and values as columns: half the time of json_extract.
_COMPLETE = """
UPDATE jobs SET status = 'completed', processed_at = ?, reserved_by = NULL
FROM json_each(?) AS done
WHERE jobs.id = done.key AND jobs.claim_seq = done.value AND jobs.reserved_by = ?
RETURNING jobs.id, jobs.queue
"""

_COUNT = """
INSERT INTO counters (queue, status, shard, count) VALUES (?, 'completed', ?, ?)
ON CONFLICT (queue, status, shard) DO UPDATE SET count = count + excluded.count
"""

_NEXT_DUE = f"""
SELECT min(available_at) FROM jobs
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

Lent = list[tuple[Lane, tuple[Any, ...]]]  # each row with the lane that it stood in


def complete(
    conn: Connection, cursor: sqlite3.Cursor, done: Sequence[Settlement], now: int, shard: int
) -> list[Settled]:
    """Mark jobs completed, count them, and answer in order. No job twice."""
    rows: list[tuple[str, str]] = []
    for holder in sorted({s.reserved_by for s in done}):  # one, unless a worker settles what it held under an older id
        batch = json.dumps({s.id: s.claim_seq for s in done if s.reserved_by == holder})
        rows += cursor.execute(_COMPLETE, (now, batch, holder)).fetchall()
    for queue, count in sorted(Counter([row[1] for row in rows]).items()):
        cursor.execute(_COUNT, (queue, shard, count))
    applied, completed = SettleStatus.APPLIED, JobState.COMPLETED
    if len(rows) == len(done):
        return [Settled(id=s.id, status=applied, state=completed) for s in done]
    ids = {row[0] for row in rows}
    others = settling.answer_unmatched(conn, [s for s in done if s.id not in ids])
    return [others.get(s.id) or Settled(id=s.id, status=applied, state=completed) for s in done]


def take(cursor: sqlite3.Cursor, ask: Ask, now: int) -> Lent:
    """Lend due jobs to the worker of `ask`; the rows as they were before, in the order of the claim."""
    lent: Lent = []
    room, passed_over = BATCH_BYTES_MAX, 0
    for lane in _lanes(cursor, ask.queues):
        for row in cursor.execute(_DUE, (*lane, now)):
            if len(lent) >= ask.limit or passed_over >= _PASSED_OVER_MAX:
                break
            if len(lent) >= ask.slots and row[17]:
                passed_over += 1  # it would wait in the worker's memory with its last attempt spent
                continue
            room -= payload_bytes(row[5])
            if room < 0 and lent:
                break
            lent.append((lane, row))
        if len(lent) >= ask.limit or room < 0:
            break
    if lent:
        cursor.execute(_LEND, (now, ask.worker, json.dumps([row[0] for _, row in lent])))
    return lent


def answer(lent: Lent, worker: str, now: int, settled: Sequence[Settled]) -> ClaimReply:
    """The port's records of what was lent. What no driver wrote is not among them: see Turned."""
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
        return Turned(settled=tuple(settled), claimed=_records(lent, worker, now), unreadable=unreadable)
    return ClaimReply(settled=tuple(settled), claimed=_records(lent, worker, now))


def _texts(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.decode() if isinstance(value, bytes) else value for value in row)


def _values(lane: Lane, row: tuple[Any, ...]) -> dict[str, object]:
    values: dict[str, object] = dict(zip(_NAMES, row[1:], strict=False))
    return values | {"priority": lane[1], "available_at": stored_value(read_time(values["available_at"]))}


def _records(lent: Lent, worker: str, now: int) -> tuple[ClaimedJob, ...]:
    lent_at = from_microseconds(now)
    moments = {due: from_microseconds(due) for due in {row[11] for _, row in lent}}  # pushed together, due together
    return tuple(
        ClaimedJob(
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
            available_at=moments[due],
            reserved_at=lent_at,
            crashes=crashes,
            returns=returns,
            reclaims=reclaims,
            meta=meta,
            is_cancel_requested=cancel is not None,
        )
        for (queue, priority), (_, id_, seq, name, class_, data, attempts, retries, delay, policy, timeout, due,
                                crashes, returns, reclaims, meta, cancel, _) in lent
    )  # fmt: skip


def next_due(raw: sqlite3.Connection, queues: Sequence[str]) -> int | None:
    """When the next job of these queues is due, in microseconds since 1970; None when none waits."""
    moments = [raw.execute(_NEXT_DUE, lane).fetchone()[0] for lane in _lanes(raw.cursor(), queues)]
    return min((moment for moment in moments if moment is not None), default=None)


def _lanes(cursor: sqlite3.Cursor, queues: Sequence[str]) -> list[Lane]:
    return cursor.execute(_LANES, (json.dumps(list(dict.fromkeys(queues))),)).fetchall()
