"""How many jobs are where: live ones counted up to a bound, finished ones read from the counters."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, case, func, literal, select, union_all

from protojobs.port.records import COUNTED_MAX, QueueInfo, Stats
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.inspecting.live import Live, pending_by_queue

__all__ = ["list_queues", "of_queue", "pending_of", "processing_by_queue"]

_BUSY_MAX = 10_000  # jobs that are processing, or moving, of which a list of queues looks at least at so many
_QUEUES_MAX = 10_000  # in one list
_GUESSED_FROM = 1_000  # who counts up to less wants to know whether there are any, not how many
_GUESSED_MAX = 200  # queues whose number of pending jobs one call asks PostgreSQL's planner for
_FINISHED = ("completed", "failed", "cancelled")


def of_queue(conn: Connection, dialect: Dialect, queue: str | None, now: datetime, counted_max: int) -> Stats:
    """The counts of one queue, or of all."""
    counted_max = min(counted_max, COUNTED_MAX)
    counted, scheduled, processing = _live(conn, dialect, queue, now, counted_max)
    guess = dialect.guess_pending(conn, [queue])[0] if counted > counted_max else 0
    pending, scheduled = _scaled(counted, scheduled, guess)
    return Stats(
        pending=pending,
        scheduled=scheduled,
        processing=processing,
        is_estimate=counted > counted_max or processing > counted_max,
        **_finished(conn, dialect, queue),
    )


def list_queues(
    conn: Connection, dialect: Dialect, now: datetime, *, after: str, limit: int, counted_max: int
) -> list[QueueInfo]:
    """The queues behind `after` that have jobs, or are paused, by name.

    In three statements, however many queues and jobs there are. (MySQL takes a few for each queue.)
    """
    limit, counted_max = min(limit, _QUEUES_MAX), min(counted_max, COUNTED_MAX)
    live = pending_by_queue(conn, dialect, now, after=after, most=limit, counted_max=counted_max)
    others = _others(conn, dialect, after, limit, busy_max := max(counted_max, _BUSY_MAX))
    is_busy = sum(others["processing"].values()) > busy_max
    names = sorted({*live, *(name for by_queue in others.values() for name in by_queue)})[:limit]
    wants_numbers = counted_max >= _GUESSED_FROM
    capped = [name for name in names if name in live and live[name].is_capped][: _GUESSED_MAX if wants_numbers else 0]
    guesses = dict(zip(capped, dialect.guess_pending(conn, capped), strict=True))
    infos: list[QueueInfo] = []
    for name in names:
        line = live.get(name, Live())
        pending, scheduled = _scaled(line.pending, line.scheduled, guesses.get(name, 0))
        processing = others["processing"].get(name, 0)
        stats = Stats(
            pending=pending,
            scheduled=scheduled,
            processing=processing,
            is_estimate=line.is_capped or is_busy or processing > counted_max,
            **{status: others[status].get(name, 0) for status in _FINISHED},
        )
        waited_s = (now - line.oldest_at).total_seconds() if line.oldest_at else None
        infos.append(QueueInfo(name=name, is_paused=name in others["paused"], stats=stats, oldest_ready_s=waited_s))
    return infos


def pending_of(
    conn: Connection, dialect: Dialect, queue: str | None, now: datetime, counted_max: int
) -> tuple[int, int]:
    """How many were counted, at most one more than the bound; of these scheduled."""
    counted, scheduled = conn.execute(_pending(dialect, queue, now, counted_max)).one()
    return counted, int(scheduled)


def processing_by_queue(conn: Connection, dialect: Dialect, most: int) -> dict[str, int]:
    """How many of the first `most` processing jobs each queue has."""
    return {
        queue: number
        for queue, number in conn.execute(_by_queue(dialect, dialect.conditions.is_processing(), "", most))
    }


def _live(
    conn: Connection, dialect: Dialect, queue: str | None, now: datetime, counted_max: int
) -> tuple[int, int, int]:
    """As `pending_of`, and how many are processing, in the same statement."""
    jobs, is_processing = dialect.tables.jobs, dialect.conditions.is_processing()
    busy = select(jobs.c.id).where(is_processing, *([] if queue is None else [jobs.c.queue == queue]))
    processing = select(func.count()).select_from(busy.limit(counted_max + 1).subquery()).scalar_subquery()
    pending = _pending(dialect, queue, now, counted_max)
    counted, scheduled, running = conn.execute(pending.add_columns(processing)).one()
    return counted, int(scheduled), running


def _pending(dialect: Dialect, queue: str | None, now: datetime, counted_max: int) -> Select[int, int]:
    due = select(dialect.tables.jobs.c.available_at).where(*dialect.conditions.is_pending(queue))
    first = due.limit(counted_max + 1).subquery()
    later = func.coalesce(func.sum(case((first.c.available_at > now, 1), else_=0)), 0)
    return select(func.count(), later).select_from(first)


def _scaled(counted: int, scheduled: int, guess: int) -> tuple[int, int]:
    """The counts in the proportion of a guess at their sum, where that is more than was counted."""
    return (guess, round(scheduled / counted * guess)) if guess > counted else (counted, scheduled)


def _finished(conn: Connection, dialect: Dialect, queue: str | None) -> dict[str, int]:
    counters = dialect.tables.counters
    query = select(counters.c.status, func.sum(counters.c.count)).group_by(counters.c.status)
    if queue is not None:
        query = query.where(counters.c.queue == queue)
    return {status: max(int(number), 0) for status, number in conn.execute(query)}


def _others(
    conn: Connection, dialect: Dialect, after: str, limit: int, busy_max: int
) -> defaultdict[str, dict[str, int]]:
    """What there is besides pending jobs, of the first queues behind `after`: kind -> queue -> how many."""
    jobs, queues, counters = dialect.tables.jobs, dialect.tables.queues, dialect.tables.counters
    finished = (
        select(counters.c.status, counters.c.queue, func.sum(counters.c.count).label("number"))
        .where(counters.c.queue > after)
        .group_by(counters.c.queue, counters.c.status)
        .having(func.sum(counters.c.count) > 0)
        .order_by(counters.c.queue)
        .limit(len(_FINISHED) * limit)
    )
    paused = (
        select(literal("paused").label("kind"), queues.c.name, literal(1).label("number"))
        .where(queues.c.paused_at.is_not(None), queues.c.name > after)
        .order_by(queues.c.name)
        .limit(limit)
    )
    conditions = {"processing": dialect.conditions.is_processing(), "moving": jobs.c.moving_token.is_not(None)}
    busy = [
        select(literal(kind).label("kind"), part.c.queue, part.c.number)
        for kind, condition in conditions.items()
        for part in [_by_queue(dialect, condition, after, busy_max + 1).subquery()]
    ]
    numbers: defaultdict[str, dict[str, int]] = defaultdict(dict)
    union = union_all(*[select(part.subquery()) for part in (finished, paused)], *busy)
    for kind, name, number in conn.execute(union):
        numbers[kind][name] = int(number)
    return numbers


def _by_queue(dialect: Dialect, condition: ColumnElement[bool], after: str, most: int) -> Select[str, int]:
    few = select(dialect.tables.jobs.c.queue).where(condition).limit(most).subquery()
    grouped = select(few.c.queue, func.count().label("number")).group_by(few.c.queue)
    return grouped.where(few.c.queue > after)
