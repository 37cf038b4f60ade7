"""A worker's turn on MariaDB and MySQL: settle, then lend with SKIP LOCKED, in one READ COMMITTED transaction.

On MariaDB it is two round trips: one that settles, locks and reads, and one that writes and commits. MySQL has no
blocks outside of routines, so there each statement is a trip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace
from pymysql.connections import Connection as Raw
from sqlalchemy import Connection

from protojobs.port.lifecycle import JobState
from protojobs.port.records import BATCH_BYTES_MAX, ClaimedJob, ClaimReply, Fence, Settled, Settlement, SettleStatus
from protojobs.port.rules import DELAY_MAX_S, PASSED_OVER_MAX
from protojobs.port.unreadable_rows import set_aside, why_unreadable
from protojobs_sqlalchemy.dialect import Dialect, TurnReply, TurnRequest
from protojobs_sqlalchemy.mariadb.waiting import walk_lanes
from protojobs_sqlalchemy.tables.types import TIMES_FROM, TIMES_UNTIL, from_microseconds, is_job_id
from protojobs_sqlalchemy.verbs import settling
from protojobs_sqlalchemy.verbs.counting import count, shard_of
from protojobs_sqlalchemy.verbs.lanes import Lane, LaneMemory, Lanes, Place

__all__ = ["Turn", "raw_of", "send", "takes_blocks"]

Rows = Sequence[tuple[Any, ...]]

# The worker's row is locked against its deletion before any job is touched.
_STANDS = "SELECT id FROM @workers WHERE id = %s LOCK IN SHARE MODE"
_NOW = "SELECT UTC_TIMESTAMP(6)"

# The primary key is forced on the server: of a small table it would read, and lock, all rows; of a large one perhaps
# all that the worker holds.
_CURRENT = """
SELECT queue, COUNT(*) FROM @jobs FORCE INDEX (PRIMARY)
WHERE id IN %s AND claim_seq = %s AND reserved_by = %s GROUP BY queue FOR UPDATE
"""
_COMPLETE = """
UPDATE @jobs FORCE INDEX (PRIMARY)
SET status = 'completed', processed_at = UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND, reserved_by = NULL
WHERE id IN %s AND claim_seq = %s AND reserved_by = %s
"""
_COUNT = """
INSERT INTO @counters (queue, status, shard, count) VALUES (%s, 'completed', %s, %s)
ON DUPLICATE KEY UPDATE count = count + VALUES(count)
"""
_LOCK = """
SELECT id, queue, claim_seq, reserved_by FROM @jobs FORCE INDEX (PRIMARY) WHERE id IN %s ORDER BY id FOR UPDATE
"""

# `ready` is the queue of a pending job and NULL otherwise: MariaDB has no partial indexes. One column of JSON a job:
# PyMySQL takes a microsecond or two for each column of each row, and three times that for a DATETIME. All payloads
# together stay within what a claim may lend: a large one comes with the last packet, once its job is known to be lent.
_DUE = """
SELECT JSON_ARRAY(id, LEAST(claim_seq, 2147483646) + 1, job_name, job_class,
                  IF(OCTET_LENGTH(data) <= %s, data, NULL), LEAST(attempts, 2147483646) + 1, max_retries, retry_delay,
                  retry_policy, timeout, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', available_at), crashes, returns,
                  reclaims, meta, cancel_requested_at IS NOT NULL, OCTET_LENGTH(data))
FROM @jobs
WHERE ready = %s AND priority = %s AND available_at >= %s
  AND available_at <= UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND
  AND NOT EXISTS (SELECT 1 FROM @queues WHERE name = %s AND paused_at IS NOT NULL)
ORDER BY available_at, id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_DATA = "SELECT id, data FROM @jobs FORCE INDEX (PRIMARY) WHERE id IN %s"
_LEND = """
UPDATE @jobs FORCE INDEX (PRIMARY)
SET status = 'processing', attempts = LEAST(attempts, 2147483646) + 1, claim_seq = LEAST(claim_seq, 2147483646) + 1,
    reserved_at = %s, reserved_by = %s, progress = NULL
WHERE id IN %s
"""

_BEGINNING = datetime(1970, 1, 1)  # noqa: DTZ001 (DATETIME has no zone; ours hold UTC)

_NAMES = (
    *("id", "claim_seq", "job_name", "job_class", "data", "attempts", "max_retries", "retry_delay", "retry_policy"),
    *("timeout", "available_at", "crashes", "returns", "reclaims", "meta"),
)
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Seconds = Annotated[float, Meta(ge=0, le=DELAY_MAX_S)]
_Time = Annotated[int, Meta(ge=TIMES_FROM, le=TIMES_UNTIL)]
_Due = tuple[  # a row of _DUE as drivers write it
    str, _Count, str, str, str | None, _Count, _Count, _Seconds, str | None, _Seconds, _Time, _Count, _Count, _Count,
    str | None, bool | int, int,
]  # fmt: skip
_decoder, _any_decoder = msgspec.json.Decoder(_Due), msgspec.json.Decoder(list[Any])


class Turn:
    """One turn on one connection, which it leaves outside of any transaction. After an error its caller rolls back."""

    def __init__(
        self,
        conn: Connection,
        dialect: Dialect,
        request: TurnRequest,
        memory: LaneMemory,
        opening: Sequence[str],
        closing: Sequence[str],
    ) -> None:
        self._conn = conn
        self._dialect = dialect
        self._request = request
        self._opening, self._closing = opening, closing  # what begins the transaction, and what commits it
        self._memory = memory
        self._time_offset = dialect.time_offset
        self._shard = shard_of(conn, request.worker)
        self._queues = tuple(dict.fromkeys(request.queues))
        self._at_end: list[str] = []  # what the last packet writes before it commits
        self._batch = _Batch(request)
        self._now = _BEGINNING  # known after the first packet

    def run(self) -> ClaimReply:
        """Settle, then claim."""
        done = self._request.settlements
        if settling.are_plain(done) and all(is_job_id(s.id) for s in done):
            reply = self._plain()
            if reply is not None:
                return reply
            self._dialect.undo(self._conn)
        return self._mixed()

    def _plain(self) -> ClaimReply | None:
        """Completions, and the first lane, in one packet. None when one of them is not current: nothing is done yet."""
        request = self._request
        lanes, is_new = self._lanes() if request.limit else (Lanes((), 0.0), True)
        current: list[str] = []
        for (holder, seq), ids in _groups(request.settlements):
            current.append(self._filled(_CURRENT, ids, seq, holder))
            current.append(self._filled(_COMPLETE, self._offset, ids, seq, holder))
        due = [self._due(lanes, lanes.places(self._queues)[0], request.limit)] if lanes.order else []
        replies, stands = self._begin([*current, *due])
        rows = replies.pop() if due else None
        counts = Counter[str]()
        for queue, jobs in (row for reply in replies for row in reply):
            counts[queue] += jobs
        if counts.total() < len(request.settlements):
            return None
        self._at_end += [self._filled(_COUNT, queue, self._shard, jobs) for queue, jobs in sorted(counts.items())]
        if stands and request.limit:
            self._claim(lanes, rows, is_new=is_new)
        return self._finish([_applied(s.id) for s in request.settlements], stands=stands)

    def _begin(self, packet: Sequence[str]) -> tuple[list[Rows], bool]:
        """Open the transaction and send `packet`; its replies, and whether the worker still stands."""
        first = [self._filled(_STANDS, self._request.worker)] if self._request.limit else []
        # The time comes last: what was due in this packet is not lent before it was due.
        replies = self._send([*self._opening, *first, *packet, _NOW])
        ((now,),) = replies.pop()
        self._now = now + timedelta(seconds=self._time_offset)
        return replies[len(first) :], not first or bool(replies[0])

    def _finish(self, settled: Sequence[Settled], *, stands: bool) -> ClaimReply:
        jobs, unreadable = self._batch.jobs, self._batch.unreadable
        if jobs or unreadable:
            ids = [job.id for job in jobs] + [settlement.id for settlement in unreadable]
            self._at_end.append(self._filled(_LEND, self._now, self._request.worker, ids))
        large = [self._filled(_DATA, self._batch.large)] if self._batch.large else []
        replies = self._send([*large, *self._at_end, *self._closing])
        if large:
            data: dict[str, str] = dict(replies[0])
            jobs = [replace(job, data=data[job.id]) if job.id in data else job for job in jobs]
        if unreadable:
            return TurnReply(settled=tuple(settled), claimed=tuple(jobs), unreadable=tuple(unreadable))
        return ClaimReply(settled=tuple(settled), claimed=tuple(jobs), lease_lost=not stands)

    def _mixed(self) -> ClaimReply:
        """Settlements of any kind, job by job."""
        _, stands = self._begin([])
        settled = settling.in_rounds(self._request.settlements, self._settle)
        if stands and self._request.limit:
            self._memory.note_enqueue(self._queues)  # what goes back to pending may be claimed by this very turn
            lanes, _ = self._lanes()
            self._claim(lanes, None, is_new=True)
        return self._finish(settled, stands=stands)

    def _settle(self, round_: Sequence[Settlement]) -> list[Settled]:
        plain, others = settling.split(round_)
        replies = self._complete(plain) if plain else {}
        if others:
            applied = settling.settle(self._conn, self._dialect, others, self._now.replace(tzinfo=UTC), self._shard)
            replies |= {reply.id: reply for reply in applied}
        return [replies[s.id] for s in round_]

    def _complete(self, done: Sequence[Settlement]) -> dict[str, Settled]:
        claims = {s.id: (s.claim_seq, s.reserved_by) for s in done if is_job_id(s.id)}
        (rows,) = self._send([self._filled(_LOCK, list(claims))]) if claims else ((),)
        current = [row for row in rows if claims[row[0]] == (row[2], row[3])]
        replies = {row[0]: _applied(row[0]) for row in current}
        for (holder, seq), ids in _groups([s for s in done if s.id in replies]):
            self._send([self._filled(_COMPLETE, self._offset, ids, seq, holder)])
        count(self._conn, self._dialect, Counter((row[1], "completed") for row in current), self._shard)
        if len(replies) < len(done):
            replies |= settling.settle_unmatched(self._conn, self._dialect, [s for s in done if s.id not in replies])
        return replies

    def _lanes(self) -> tuple[Lanes, bool]:
        """The lanes of the asked queues, and whether they were read just now."""
        known = self._memory.fresh(self._queues, self._time_offset)
        if known is not None:
            return known, False
        return self._memory.read(self._queues, self._time_offset, self._look), True

    def _look(self) -> list[Lane]:
        with raw_of(self._conn).cursor() as cursor:
            return walk_lanes(cursor, self._dialect.names, self._queues)

    def _claim(self, lanes: Lanes, rows: Rows | None, *, is_new: bool) -> None:
        """Fill the batch; `rows` is what the first lane has given already."""
        self._fill(lanes, rows)
        if not self._batch.is_full and not is_new:  # what was remembered may have overlooked something
            lanes = self._memory.read(self._queues, self._time_offset, self._look)
            self._fill(lanes, None)
        lanes.note_claim(self._batch.firsts, is_full=len(self._batch.jobs) >= self._request.limit)

    def _fill(self, lanes: Lanes, rows: Rows | None) -> None:
        batch = self._batch
        for place in lanes.places(self._queues):
            if batch.is_full:
                return
            lane = lanes.order[place]
            looks_at = batch.room + len(batch.jobs)  # those taken already are still pending
            if rows is None:
                (rows,) = self._send([self._due(lanes, place, looks_at)])
            if batch.add(rows, lane, self._now) and len(rows) == looks_at:
                # Jobs on their last attempt stood before others: look past them.
                (rows,) = self._send([self._due(lanes, place, looks_at + PASSED_OVER_MAX)])
                batch.add(rows, lane, self._now)
            rows = None

    def _due(self, lanes: Lanes, place: int, limit: int) -> str:
        (queue, priority), floor = lanes.order[place], lanes.floors[place]
        start = floor.replace(tzinfo=None) if floor else _BEGINNING
        return self._filled(_DUE, BATCH_BYTES_MAX // limit, queue, priority, start, self._offset, queue, limit)

    @property
    def _offset(self) -> int:
        return round(self._time_offset * 1e6)

    def _filled(self, statement: str, *values: object) -> str:
        with raw_of(self._conn).cursor() as cursor:
            return str(cursor.mogrify(self._dialect.names.sql(statement), values))

    def _send(self, statements: Sequence[str]) -> list[Rows]:
        return send(self._conn, statements)


def send(conn: Connection, statements: Sequence[str]) -> list[Rows]:
    """Run them in order, in one packet where the server can; the rows of those that have rows."""
    if len(statements) > 1 and takes_blocks(conn):
        # Not by CLIENT.MULTI_STATEMENTS, which would open the application's own sessions to it too.
        statements = [f"BEGIN NOT ATOMIC {'; '.join(statements)}; END"]
    replies: list[Rows] = []
    with raw_of(conn).cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            while cursor.description is not None:
                replies.append(cursor.fetchall())
                if not cursor.nextset():
                    break
    return replies


class _Batch:
    """What a claim has gathered so far, and what it may still take."""

    def __init__(self, request: TurnRequest) -> None:
        self.jobs: list[ClaimedJob] = []
        self.large: list[str] = []  # those of them whose payload is still to be read
        self.unreadable: list[Settlement] = []  # they are lent too: it is by their claims that they are set aside
        self.firsts: dict[Lane, Place] = {}  # of each lane, what was taken or passed over first
        self._request = request
        self._bytes = BATCH_BYTES_MAX
        self._taken: set[str] = set()

    @property
    def room(self) -> int:
        """How many more jobs fit."""
        return self._request.limit - len(self.jobs)

    @property
    def is_full(self) -> bool:
        """No more jobs, or no more bytes."""
        return self.room <= 0 or self._bytes < 0

    def add(self, rows: Rows, lane: Lane, now: datetime) -> bool:
        """Take what may be taken, in order; True if some were passed over."""
        is_choosy = False
        lent_at, before = now.replace(tzinfo=UTC), len(self.jobs)
        for (text,) in rows:
            if self.is_full:
                break
            try:
                row = _decoder.decode(text)
            except msgspec.ValidationError:
                self._note_unreadable(text)
                continue
            if row[0] in self._taken:
                continue
            if len(self.jobs) >= self._request.slots and row[5] > row[6]:
                is_choosy = True  # it would wait in the worker's memory with its last attempt spent
                self._note_first(lane, (from_microseconds(row[10]), row[0]))
                continue
            self._bytes -= row[16]
            if self._bytes < 0 and self.jobs:
                break
            self._taken.add(row[0])
            if row[4] is None:
                self.large.append(row[0])
            self.jobs.append(_job(row, lane, self._request.worker, lent_at))
        if len(self.jobs) > before:
            self._note_first(lane, (self.jobs[before].available_at, self.jobs[before].id))
        return is_choosy

    def _note_first(self, lane: Lane, place: Place) -> None:
        self.firsts[lane] = min(self.firsts.get(lane, place), place)  # a second look may find an older one

    def _note_unreadable(self, text: str) -> None:
        id_, seq, *others = row = _any_decoder.decode(text)
        if id_ in self._taken:
            return
        self._taken.add(id_)
        due = others[8]
        moment = from_microseconds(due) if isinstance(due, int) and TIMES_FROM <= due <= TIMES_UNTIL else None
        values = dict(zip(_NAMES, row, strict=False)) | {"available_at": moment, "data": ""}
        self.unreadable.append(
            set_aside(Fence(id=id_, claim_seq=seq, reserved_by=self._request.worker), why_unreadable(values))
        )


def raw_of(conn: Connection) -> Raw[Any]:
    """PyMySQL's own connection."""
    raw: Raw[Any] | None = conn.connection.driver_connection
    assert isinstance(raw, Raw)
    return raw


def takes_blocks(conn: Connection) -> bool:
    """MariaDB, where many statements are one packet."""
    return bool(getattr(conn.dialect, "is_mariadb", False))


def _groups(done: Sequence[Settlement]) -> list[tuple[tuple[str, int], list[str]]]:
    """The ids of each (holder, claim_seq): most often there is one such group, and its ids need no fence each."""
    groups: dict[tuple[str, int], list[str]] = {}
    for s in done:
        groups.setdefault((s.reserved_by, s.claim_seq), []).append(s.id)
    return sorted(groups.items())


def _applied(job_id: str) -> Settled:
    return Settled(id=job_id, status=SettleStatus.APPLIED, state=JobState.COMPLETED)


def _job(row: _Due, lane: Lane, worker: str, lent_at: datetime) -> ClaimedJob:
    (id_, seq, name, class_, data, attempts, retries, delay, policy, timeout, due, crashes, returns, reclaims, meta,
     is_cancel_requested, _) = row  # fmt: skip
    return ClaimedJob(
        id=id_,
        claim_seq=seq,
        reserved_by=worker,
        queue=lane[0],
        job_name=name,
        job_class=class_,
        data=data or "",  # see _Batch.large
        priority=lane[1],
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
        is_cancel_requested=bool(is_cancel_requested),
    )
