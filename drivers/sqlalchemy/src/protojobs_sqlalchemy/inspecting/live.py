"""The pending jobs of each queue, counted up to a bound: jobs_ready is walked from name to name, from lane to lane.

A lane is a (queue, priority) that has pending jobs. Two probes lead to the next one, however many jobs wait in it, and
of each no more is read than the bound asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Integer, TextualSelect, bindparam, text

from protojobs_sqlalchemy.dialect import Dialect, LiveLane
from protojobs_sqlalchemy.tables.naming import Names
from protojobs_sqlalchemy.tables.tables import STORES_MAX
from protojobs_sqlalchemy.tables.types import Name, StoredTime

__all__ = ["Live", "pending_by_queue", "walked_lanes"]


class Live(Struct):
    """A queue's pending jobs. Where `is_capped` there are more than were counted."""

    ready: int = 0
    scheduled: int = 0
    oldest_at: datetime | None = None  # when the first one of those that are due became so
    is_capped: bool = False

    @property
    def pending(self) -> int:
        """All that were counted."""
        return self.ready + self.scheduled


_IN_LANE = "FROM @jobs WHERE status = 'pending' AND @jobs.queue = lanes.queue AND @jobs.priority = lanes.priority"


_FIRST_AT = f"(SELECT min(available_at) {_IN_LANE})"


@lru_cache(maxsize=STORES_MAX)
def _walk(names: Names, first_at: str) -> TextualSelect:
    # `place` ends the recursion: SQLite would not stop at an outer LIMIT.
    statement = names.sql(f"""
WITH RECURSIVE names (name, place) AS (
    SELECT min(queue), 1 FROM @jobs WHERE status = 'pending' AND queue > :after
    UNION ALL
    SELECT (SELECT min(queue) FROM @jobs WHERE status = 'pending' AND queue > names.name), place + 1
    FROM names WHERE name IS NOT NULL AND place < :most
), lanes (queue, priority) AS (
    SELECT name, (SELECT max(priority) FROM @jobs WHERE status = 'pending' AND queue = name)
    FROM names WHERE name IS NOT NULL
    UNION ALL
    SELECT queue, (SELECT max(priority) FROM @jobs
                   WHERE status = 'pending' AND @jobs.queue = lanes.queue AND @jobs.priority < lanes.priority)
    FROM lanes WHERE priority IS NOT NULL
)
SELECT queue, priority, {first_at} AS first_at,
       (SELECT count(*) FROM (SELECT 1 {_IN_LANE} AND available_at <= :now LIMIT :counted) AS due) AS ready,
       (SELECT count(*) FROM (SELECT 1 {_IN_LANE} AND available_at > :now LIMIT :counted) AS later) AS scheduled
FROM lanes WHERE priority IS NOT NULL
""")
    walk = text(statement).bindparams(bindparam("now", type_=StoredTime))
    return walk.columns(queue=Name, priority=Integer, first_at=StoredTime, ready=Integer, scheduled=Integer)


def walked_lanes(conn: Connection, dialect: Dialect, values: Mapping[str, Any]) -> Iterable[LiveLane]:
    """The lanes of `Dialect.live_lanes` by one recursive statement, for databases that look values up in it."""
    return conn.execute(_walk(dialect.names, dialect.readable_time(_FIRST_AT)), values)


def pending_by_queue(
    conn: Connection, dialect: Dialect, now: datetime, *, after: str, most: int, counted_max: int
) -> dict[str, Live]:
    """The queues behind `after` that have pending jobs, at most so many, by name; one statement (but for MySQL)."""
    values = {"after": after, "most": most, "now": now, "counted": counted_max + 1}
    return _by_queue(dialect.live_lanes(conn, values), now, counted_max)


def _by_queue(lanes: Iterable[LiveLane], now: datetime, counted_max: int) -> dict[str, Live]:
    queues: dict[str, Live] = {}
    for queue, _, first_at, ready, scheduled in lanes:
        live = queues.setdefault(queue, Live())
        live.ready += ready
        live.scheduled += scheduled
        live.is_capped = live.is_capped or live.pending > counted_max
        if first_at <= now and (live.oldest_at is None or first_at < live.oldest_at):
            live.oldest_at = first_at
    return dict(sorted(queues.items()))
