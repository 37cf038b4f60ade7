"""How many jobs the longest queues have, sampled once a minute by one of the workers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from heapq import nlargest

from msgspec.structs import asdict
from sqlalchemy import Connection, insert, select

from protojobs.clock import SYSTEM_CLOCK, time_left
from protojobs.port.observing import DepthSample
from protojobs.port.records import COUNTED_MAX
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.dialect import Dialect, Mode, Use
from protojobs_sqlalchemy.inspecting.live import Live, pending_by_queue
from protojobs_sqlalchemy.inspecting.stats import pending_of, processing_by_queue
from protojobs_sqlalchemy.observing.expiry import KINDS, expire
from protojobs_sqlalchemy.tables.rows import values_of

__all__ = ["depths", "sample_depths"]

TIME_S = 1.0  # for deleting in one call, so that more go in a minute than come; a worker waits for two seconds at most

_QUEUES_MAX = 1_000  # with pending jobs, by name, among which the longest are looked for
_COMPARED_MAX = 1_000  # jobs of each that are counted for that
_SAMPLES_MAX = 10_000  # in one answer
_NOBODY = ""  # the queue of the row that says that the minute is taken


def sample_depths(connections: Connections, limit: int, counted_max: int) -> bool:
    """Delete what has outlived its time, and store how many jobs the longest queues have, once a minute.

    In steps, so that none holds a lock while jobs are counted: a process that dies between them costs the minute's
    sample. Deleting comes first: where counting outlasts the caller's patience, minute by minute, notes would pile up
    without end.
    """
    dialect = connections.dialect
    note = partial(connections.run, mode=Mode.WORK, use=Use.WORK, is_repeatable=True)
    now = connections.run(dialect.now, Mode.SINGLE, use=Use.WORK)
    if not note(lambda conn: begin(conn, dialect, now)):
        return False
    ends_at = SYSTEM_CLOCK.monotonic() + time_left(TIME_S)
    steps = [partial(expire, dialect=dialect, kind=kind, before=now - timedelta(seconds=kind.kept_s)) for kind in KINDS]
    while steps := [step for step in steps if note(step)]:  # a step for each kind, for as long as it has more
        if SYSTEM_CLOCK.monotonic() >= ends_at:
            break
    samples = connections.run(lambda conn: measure(conn, dialect, now, limit, counted_max), Mode.READ, use=Use.WORK)
    note(lambda conn: store(conn, dialect, samples))
    return True


def begin(conn: Connection, dialect: Dialect, now: datetime) -> bool:
    """Take this minute's sample upon us. False: somebody has."""
    marker = {"at": _minute(now), "queue": _NOBODY, "ready": 0, "scheduled": 0, "processing": 0, "is_capped": 0}
    return dialect.inserts(conn, dialect.tables.depths, marker)


def measure(conn: Connection, dialect: Dialect, now: datetime, limit: int, counted_max: int) -> list[DepthSample]:
    """The `limit` longest queues; only their jobs are counted up to `counted_max`."""
    compared_max = min(counted_max, _COMPARED_MAX)
    live = pending_by_queue(conn, dialect, now, after="", most=_QUEUES_MAX, counted_max=compared_max)
    busy = processing_by_queue(conn, dialect, COUNTED_MAX)
    sizes = {name: live.get(name, Live()).pending + busy.get(name, 0) for name in sorted({*live, *busy})}
    samples: list[DepthSample] = []
    for name in nlargest(limit, sizes, key=sizes.__getitem__):
        line = live.get(name, Live())
        pending, scheduled = line.pending, line.scheduled
        if line.is_capped and counted_max > compared_max:
            pending, scheduled = pending_of(conn, dialect, name, now, counted_max)
        samples.append(
            DepthSample(
                at=_minute(now),
                queue=name,
                ready=pending - scheduled,
                scheduled=scheduled,
                processing=busy.get(name, 0),
                is_capped=pending > counted_max,
            )
        )
    return samples


def store(conn: Connection, dialect: Dialect, samples: Sequence[DepthSample]) -> None:
    """Keep the samples of a minute that was begun."""
    if samples:
        rows = [asdict(sample) | {"is_capped": int(sample.is_capped)} for sample in samples]
        conn.execute(insert(dialect.tables.depths), rows)


def depths(
    conn: Connection, dialect: Dialect, since: datetime, until: datetime, queue: str | None
) -> list[DepthSample]:
    """The latest samples of the span, oldest first."""
    table = dialect.tables.depths
    query = select(table).where(table.c.at >= since, table.c.at < until)
    query = query.where(table.c.queue != _NOBODY if queue is None else table.c.queue == queue)
    query = query.order_by(table.c.at.desc(), table.c.queue.desc()).limit(_SAMPLES_MAX)
    rows = reversed(conn.execute(query).fetchall())
    return [DepthSample(**dict(values_of(row), is_capped=bool(row.is_capped))) for row in rows]


def _minute(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0)
