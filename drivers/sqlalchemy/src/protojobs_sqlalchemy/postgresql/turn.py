"""One turn on PostgreSQL: completions and the next claim in one statement, and what to look at again after it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Annotated, Any, LiteralString

import psycopg
from msgspec import Meta, ValidationError, convert
from sqlalchemy import Connection

from protojobs.clock import SYSTEM_CLOCK
from protojobs.port.lifecycle import JobState
from protojobs.port.records import (
    BATCH_BYTES_MAX,
    ClaimedJob,
    ClaimReply,
    Fence,
    Settled,
    Settlement,
    SettleStatus,
    payload_bytes,
)
from protojobs.port.rules import DELAY_MAX_S, PASSED_OVER_MAX
from protojobs.port.unreadable_rows import set_aside, why_unreadable
from protojobs_sqlalchemy.dialect import Dialect, TurnReply, TurnRequest
from protojobs_sqlalchemy.postgresql import statements as sql
from protojobs_sqlalchemy.postgresql.values import completions_of
from protojobs_sqlalchemy.tables.types import TIMES_FROM, TIMES_UNTIL
from protojobs_sqlalchemy.verbs import settling
from protojobs_sqlalchemy.verbs.counting import fresh_shard, shard_of
from protojobs_sqlalchemy.verbs.lanes import Lane, LaneMemory, Lanes, firsts_of

__all__ = ["Row", "Turn", "claim_values", "fetched", "is_plain", "raw_of", "run"]

Row = tuple[Any, ...]

_NAMES = (
    *("id", "claim_seq", "queue", "job_name", "job_class", "data", "priority", "attempts", "max_retries"),
    *("retry_delay", "retry_policy", "timeout", "available_at", "crashes", "returns", "reclaims", "meta"),
)
_DUE_FROM, _DUE_UNTIL = TIMES_FROM / 1e6, TIMES_UNTIL / 1e6
_Count = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0, le=DELAY_MAX_S)]
_Time = Annotated[float, Meta(ge=_DUE_FROM, le=_DUE_UNTIL)]
_Sound = tuple[  # a row of a claim as drivers write it; its types the server has checked
    Any, Any, Any, Any, str, _Count, str, str, str, str, int, _Count, _Count, _Seconds, str | None, _Seconds, _Time,
    _Count, _Count, _Count, str | None, bool,
]  # fmt: skip

_place_in_lane = itemgetter(16, 4)  # available_at, id


class Turn:
    """What a worker asks in one turn, on one connection: `run` for completions only, `claim` where others were settled
    in the same transaction.
    """

    def __init__(self, conn: Connection, dialect: Dialect, request: TurnRequest, memory: LaneMemory) -> None:
        self._conn = conn
        self._dialect = dialect
        self._settling = sql.INTO_ARCHIVE if dialect.archive.takes_completed else sql.IN_PLACE
        self._request = request
        self._memory = memory
        self._queues = tuple(dict.fromkeys(request.queues))
        self._unreadable: list[Settlement] = []

    def run(self) -> ClaimReply:
        """The hot path: one statement that is its own transaction."""
        if self._request.limit:
            return self.claim(self._request.settlements)
        values = completions_of(self._request.settlements, shard_of(self._conn, self._request.worker))
        rows = self._rows(self._settling.alone, values)
        return ClaimReply(settled=self._replies(self._request.settlements, rows[0][0]))

    def claim(self, done: Sequence[Settlement] = ()) -> ClaimReply:
        """Settle `done`, and claim; once more where that claim is not full and may have overlooked something."""
        lanes = self._known_lanes()
        has_floors = lanes is not None and lanes.has_floors
        started = SYSTEM_CLOCK.monotonic()
        rows = self._claim(lanes, done)
        took_s = SYSTEM_CLOCK.monotonic() - started
        applied, stands, looked_at, *_ = rows[0]
        settled = self._replies(done, applied) if done else ()
        if not stands:
            return ClaimReply(settled=settled, lease_lost=True)
        claimed = self._jobs(rows)
        is_full = len(claimed) >= self._request.limit
        if lanes is not None:
            lanes.note_claim(firsts_of(claimed), is_full=is_full)
            if is_full:
                lanes.note_time(took_s, has_walked=not has_floors)
        elif is_full:
            self._memory.note_full(self._queues)
        # What was found and not lent stood before others: jobs on their last attempt, or more bytes than fit.
        if not is_full and (lanes is not None or looked_at > len(claimed)):
            passes_over = PASSED_OVER_MAX if self._request.slots < self._request.limit else 0
            claimed += self._jobs(self._rows(sql.CLAIM_ANEW, claim_values(self._request, None, claimed, passes_over)))
        if self._unreadable:
            return TurnReply(settled=settled, claimed=tuple(claimed), unreadable=tuple(self._unreadable))
        return ClaimReply(settled=settled, claimed=tuple(claimed))

    def _known_lanes(self) -> Lanes | None:
        """The lanes of the asked queues; None where the claim shall read them itself, since little lies there."""
        known = self._memory.fresh(self._queues, self._dialect.time_offset)
        if known is not None or not self._memory.is_busy(self._queues):
            return known

        def look() -> list[Lane]:
            rows = self._rows(sql.LANES, {"queues": list(self._queues)})
            return [(str(row[0]), int(str(row[1]))) for row in rows]

        return self._memory.read(self._queues, self._dialect.time_offset, look)

    def _claim(self, lanes: Lanes | None, done: Sequence[Settlement]) -> list[Row]:
        values = claim_values(self._request, lanes)
        if not done:
            return self._rows(sql.CLAIM if lanes else sql.CLAIM_ANEW, values)
        shard = fresh_shard if lanes is not None and lanes.is_put_off else shard_of
        values |= completions_of(done, shard(self._conn, self._request.worker))
        return self._rows(self._settling.and_claim if lanes else self._settling.and_claim_anew, values)

    def _jobs(self, rows: list[Row]) -> list[ClaimedJob]:
        """The lent jobs in the order in which they were asked for: UPDATE ... RETURNING has none."""
        if rows[0][4] is None:
            return []
        lent_at = rows[0][3]
        try:
            convert(rows, list[_Sound])
        except ValidationError:
            rows = self._readable(rows)
        rows.sort(key=_place_in_lane)
        if len({(row[6], row[10]) for row in rows}) > 1:
            place = {queue: place for place, queue in enumerate(self._queues)}
            rows.sort(key=lambda row: (place[row[6]], -row[10]))
        worker = self._request.worker
        reserved_at = datetime.fromtimestamp(lent_at, UTC)
        jobs: list[ClaimedJob] = []
        last, due_at = lent_at, reserved_at
        for (_, _, _, _, id_, seq, queue, name, class_, data, priority, attempts, retries, delay, policy, timeout,
             due, crashes, returns, reclaims, meta, is_cancelled) in rows:  # fmt: skip
            if due != last:  # what was pushed together is due together
                last, due_at = due, datetime.fromtimestamp(due, UTC)
            jobs.append(
                ClaimedJob(
                    id_, seq, worker, queue, name, class_, data, priority, attempts, retries, delay, policy, timeout,
                    due_at, reserved_at, crashes, returns, reclaims, meta, is_cancelled,
                )
            )  # fmt: skip
        return jobs

    def _readable(self, rows: list[Row]) -> list[Row]:
        """Those rows that drivers write; the others are noted."""
        readable: list[Row] = []
        for row in rows:
            due = row[16] if _DUE_FROM <= row[16] <= _DUE_UNTIL else None
            values = dict(zip(_NAMES, row[4:], strict=False)) | {
                "available_at": due and datetime.fromtimestamp(due, UTC)
            }
            if why := why_unreadable(values):
                fence = Fence(id=row[4], claim_seq=row[5], reserved_by=self._request.worker)
                self._unreadable.append(set_aside(fence, why))
            else:
                readable.append(row)
        return readable

    def _replies(self, done: Sequence[Settlement], applied: list[str] | None) -> tuple[Settled, ...]:
        """Each completion's fate. `applied` are the ids that did; None when all of them did."""
        status, state = SettleStatus.APPLIED, JobState.COMPLETED  # an enum's members are slow to find
        if applied is None:
            return tuple([Settled(s.id, status, state) for s in done])
        ids = set(applied)
        others = settling.settle_unmatched(self._conn, self._dialect, [s for s in done if s.id not in ids])
        return tuple([Settled(s.id, status, state) if s.id in ids else others[s.id] for s in done])

    def _rows(self, statement: LiteralString, values: dict[str, object]) -> list[Row]:
        return fetched(self._conn, self._dialect, statement, values)


def is_plain(settlements: Sequence[Settlement]) -> bool:
    """Whether one statement can settle them: completions of different jobs, all lent to one worker."""
    is_plain = settling.are_plain(settlements)
    return is_plain and len({s.reserved_by for s in settlements}) <= 1


def claim_values(
    request: TurnRequest, lanes: Lanes | None, claimed: Sequence[ClaimedJob] = (), passes_over: int = 0
) -> dict[str, object]:
    """What the claiming statements are given; `claimed` are the jobs that the turn has already."""
    limit, queues = request.limit - len(claimed), list(dict.fromkeys(request.queues))
    values: dict[str, object] = {
        "worker": request.worker,
        "queues": queues,
        "limit": limit,
        "looks_at": limit + passes_over,
        "slots": max(0, request.slots - len(claimed)),
        "always": 0 if claimed else 1,  # the place that is lent whatever its size
        "bytes": BATCH_BYTES_MAX - sum([payload_bytes(job.data) for job in claimed]),
    }
    if lanes is not None:
        places = lanes.places(queues)
        floors = [lanes.floors[place] for place in places]
        values |= {
            "queues": [lanes.order[place][0] for place in places],
            "priorities": [lanes.order[place][1] for place in places],
            "floors": [floor.isoformat() if floor else "-infinity" for floor in floors],
            "firsts": [lanes.firsts[place] for place in places],
        }
    return values


def fetched(conn: Connection, dialect: Dialect, statement: LiteralString, values: dict[str, object]) -> list[Row]:
    """Run one of the hot statements on psycopg's own cursor."""
    return run(conn, dialect, statement, values).fetchall()


def run(conn: Connection, dialect: Dialect, statement: LiteralString, values: dict[str, object]) -> psycopg.Cursor[Row]:
    """The same for a statement that returns no rows."""
    values["offset"] = timedelta(seconds=dialect.time_offset)
    return raw_of(conn).execute(dialect.names.sql(statement), values, binary=True)


def raw_of(conn: Connection) -> psycopg.Connection[Row]:
    """The connection beneath SQLAlchemy's."""
    raw: psycopg.Connection[Row] | None = conn.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw
