"""The live jobs of each queue, counted up to a bound: jobs_ready is walked from name to name and from lane to lane.

A lane is a (queue, priority) that has pending jobs. Two probes lead to the next one, however many jobs wait in it, and
of each no more is read than the bound asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Integer, TextualSelect, bindparam, text

from protojobs_sqlalchemy.tables.types import Name, StoredTime, within_calendar
from protojobs_sqlalchemy.verbs.conditions import is_mysql

__all__ = ["Live", "pending_by_queue"]


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


_IN_LANE = "FROM jobs WHERE status = 'pending' AND jobs.queue = lanes.queue AND jobs.priority = lanes.priority"


# `place` ends the recursion: SQLite would not stop at an outer LIMIT.
def _lanes(first_at: str) -> TextualSelect:
    said = text(f"""
WITH RECURSIVE names (name, place) AS (
    SELECT min(queue), 1 FROM jobs WHERE status = 'pending' AND queue > :after
    UNION ALL
    SELECT (SELECT min(queue) FROM jobs WHERE status = 'pending' AND queue > names.name), place + 1
    FROM names WHERE name IS NOT NULL AND place < :most
), lanes (queue, priority) AS (
    SELECT name, (SELECT max(priority) FROM jobs WHERE status = 'pending' AND queue = name)
    FROM names WHERE name IS NOT NULL
    UNION ALL
    SELECT queue, (SELECT max(priority) FROM jobs
                   WHERE status = 'pending' AND jobs.queue = lanes.queue AND jobs.priority < lanes.priority)
    FROM lanes WHERE priority IS NOT NULL
)
SELECT queue, priority, {first_at} AS first_at,
       (SELECT count(*) FROM (SELECT 1 {_IN_LANE} AND available_at <= :now LIMIT :counted) AS due) AS ready,
       (SELECT count(*) FROM (SELECT 1 {_IN_LANE} AND available_at > :now LIMIT :counted) AS later) AS scheduled
FROM lanes WHERE priority IS NOT NULL
""").bindparams(bindparam("now", type_=StoredTime))
    return said.columns(queue=Name, priority=Integer, first_at=StoredTime, ready=Integer, scheduled=Integer)


_FIRST_AT = f"(SELECT min(available_at) {_IN_LANE})"
_LANES, _POSTGRESQL_LANES = _lanes(_FIRST_AT), _lanes(within_calendar(_FIRST_AT))


def pending_by_queue(conn: Connection, now: datetime, *, after: str, most: int, counted_max: int) -> dict[str, Live]:
    """The queues behind `after` that have pending jobs, at most so many, by name; one statement (but for MySQL)."""
    values = {"after": after, "most": most, "now": now, "counted": counted_max + 1}
    if is_mysql(conn):
        from protojobs_sqlalchemy.mariadb.live import walked  # its DBAPI is an extra

        return _together(walked(conn, values), now, counted_max)
    lanes = _POSTGRESQL_LANES if conn.dialect.name == "postgresql" else _LANES
    return _together(conn.execute(lanes, values), now, counted_max)


def _together(lanes: Iterable[Sequence[Any]], now: datetime, counted_max: int) -> dict[str, Live]:
    found: dict[str, Live] = {}
    for queue, _, first_at, ready, scheduled in lanes:
        live = found.setdefault(queue, Live())
        live.ready += ready
        live.scheduled += scheduled
        live.is_capped = live.is_capped or live.pending > counted_max
        if first_at <= now and (live.oldest_at is None or first_at < live.oldest_at):
            live.oldest_at = first_at
    return dict(sorted(found.items()))
