"""Pruning on PostgreSQL: one statement a state, so that no row travels to the client.

A batch of a thousand took 25 ms of the worker's own time, which its jobs then lacked, and 10 ms of the server's. Like
this it takes 2.5 and 4.

While a transaction stays open, what was deleted stays in jobs_finished, and each batch would walk all of it. So where
that takes long a batch begins where the last one ended, and the front is walked a twentieth of the time, as for claims
(lanes.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from protojobs.clock import SYSTEM_CLOCK
from protojobs.port.lifecycle import FINISHED, JobState
from protojobs.port.records import Pruned
from protojobs_sqlalchemy.dialect import Age, Dialect
from protojobs_sqlalchemy.verbs.counting import count

__all__ = ["Floors", "prune"]


def _statement(state: JobState) -> str:
    """Deletes up to `room` jobs; answers how many of up to `room + 1` there were, and how many went from each queue."""
    forgotten = ", forgotten AS (DELETE FROM @failed_jobs WHERE job_id = ANY (ARRAY (SELECT id FROM gone)))"
    return f"""
        WITH old AS MATERIALIZED (
            SELECT ctid AS tid, processed_at FROM @jobs
            WHERE status = '{state.value}' AND processed_at >= :floor AND processed_at < :finished_before
            ORDER BY processed_at LIMIT :room + 1 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM @jobs WHERE ctid = ANY (ARRAY (SELECT tid FROM old LIMIT :room)) RETURNING id, queue
        ){forgotten if state is JobState.FAILED else ""}
        SELECT (SELECT count(*) FROM old) AS found, (SELECT max(processed_at) FROM old) AS last_at, queue,
               count(gone.id) AS gone
        FROM (SELECT 1) AS once LEFT JOIN gone ON true GROUP BY queue
    """


_FRONT = datetime(1, 1, 2, tzinfo=UTC)
_SLOW_S = 0.1
_WALK_SHARE = 20  # walking the front may take a twentieth of the time ...
_WALK_EVERY_MAX_S = 600.0  # ... but is never put off for longer

_STATEMENTS = {state: _statement(state) for state in sorted(FINISHED)}


class Floors:
    """Where the next batch of each state begins."""

    def __init__(self) -> None:
        self._last: dict[JobState, datetime] = {}
        self._walk_at: dict[JobState, float] = {}  # when to begin at the front again
        self._walking: set[JobState] = set()
        self._began_at = 0.0

    def begin(self, state: JobState) -> datetime:
        """From when on a batch looks."""
        self._began_at = SYSTEM_CLOCK.monotonic()
        if self._began_at < self._walk_at.get(state, 0.0):
            return self._last.get(state, _FRONT)
        self._walk_at[state] = self._began_at + _WALK_EVERY_MAX_S  # also if this walk takes too long to end
        self._walking.add(state)
        return _FRONT

    def end(self, state: JobState, last_at: datetime | None) -> None:
        """A batch has come so far."""
        if last_at is not None:
            self._last[state] = last_at
        if state in self._walking:
            self._walking.discard(state)
            took_s = SYSTEM_CLOCK.monotonic() - self._began_at
            every_s = _WALK_SHARE * took_s if took_s > _SLOW_S else 0.0
            self._walk_at[state] = self._began_at + min(every_s, _WALK_EVERY_MAX_S)


def prune(
    conn: Connection, dialect: Dialect, ages: Sequence[Age], *, limit: int, now: datetime, floors: Floors
) -> Pruned:
    """Delete up to `limit` finished jobs."""
    gone: Counter[tuple[str, str]] = Counter()
    has_more = False
    for state, age in [(state, age) for states, age in ages if age is not None for state in states]:
        room = limit - gone.total()
        values = {"floor": floors.begin(state), "finished_before": now - timedelta(seconds=age), "room": room}
        rows = conn.execute(text(dialect.names.sql(_STATEMENTS[state])), values).fetchall()
        floors.end(state, rows[0].last_at)
        gone.update({(row.queue, state.value): row.gone for row in rows if row.gone})
        has_more = rows[0].found > room
        if has_more:
            break
    count(conn, dialect, {key: -number for key, number in gone.items()})
    totals: Counter[str] = Counter()
    for (_, status), number in gone.items():
        totals[status] += number
    return Pruned(has_more=has_more, **totals)
