"""How long the queues are, minute by minute."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from heapq import nlargest

from msgspec.structs import asdict
from sqlalchemy import Connection, insert, select

from protojobs.port.observing import DepthSample
from protojobs.port.records import COUNTED_MAX
from protojobs_sqlalchemy.inspecting.live import Live, pending_by_queue
from protojobs_sqlalchemy.inspecting.stats import pending_of, processing_by_queue
from protojobs_sqlalchemy.tables.tables import depths as table
from protojobs_sqlalchemy.verbs.inserting import inserts

__all__ = ["begin", "depths", "measure", "store"]

_QUEUES_MAX = 1_000  # with pending jobs, by name, among which the longest are looked for
_COMPARED_MAX = 1_000  # jobs of each that are counted for that
_SAMPLES_MAX = 10_000  # in one answer
_NOBODY = ""  # the queue of the row that says that the minute is taken


def begin(conn: Connection, now: datetime) -> bool:
    """Take this minute's sample upon us. False: somebody has."""
    marker = {"at": _minute(now), "queue": _NOBODY, "ready": 0, "scheduled": 0, "processing": 0, "is_capped": 0}
    return inserts(conn, table, marker)


def measure(conn: Connection, now: datetime, limit: int, counted_max: int) -> list[DepthSample]:
    """The `limit` longest queues; only their jobs are counted up to `counted_max`."""
    compared_max = min(counted_max, _COMPARED_MAX)
    live = pending_by_queue(conn, now, after="", most=_QUEUES_MAX, counted_max=compared_max)
    busy = processing_by_queue(conn, COUNTED_MAX)
    sizes = {name: live.get(name, Live()).pending + busy.get(name, 0) for name in sorted({*live, *busy})}
    samples: list[DepthSample] = []
    for name in nlargest(limit, sizes, key=sizes.__getitem__):
        line = live.get(name, Live())
        pending, scheduled = line.pending, line.scheduled
        if line.is_capped and counted_max > compared_max:
            pending, scheduled = pending_of(conn, name, now, counted_max)
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


def store(conn: Connection, samples: Sequence[DepthSample]) -> None:
    """Keep the samples of a minute that was begun."""
    if samples:
        conn.execute(insert(table), [asdict(sample) | {"is_capped": int(sample.is_capped)} for sample in samples])


def depths(conn: Connection, since: datetime, until: datetime, queue: str | None) -> list[DepthSample]:
    """The latest samples of the span, oldest first."""
    query = select(table).where(table.c.at >= since, table.c.at < until)
    query = query.where(table.c.queue != _NOBODY if queue is None else table.c.queue == queue)
    query = query.order_by(table.c.at.desc(), table.c.queue.desc()).limit(_SAMPLES_MAX)
    return [
        DepthSample(
            at=row.at,
            queue=row.queue,
            ready=row.ready,
            scheduled=row.scheduled,
            processing=row.processing,
            is_capped=bool(row.is_capped),
        )
        for row in reversed(conn.execute(query).fetchall())
    ]


def _minute(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0)
