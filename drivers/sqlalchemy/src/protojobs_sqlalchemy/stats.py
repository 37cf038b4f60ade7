"""How many jobs are where: live ones counted up to a bound, finished ones read from the counters."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from msgspec.structs import replace
from sqlalchemy import Connection, case, func, select

from protojobs.records import QueueInfo, Stats
from protojobs_sqlalchemy.conditions import is_pending, is_processing, ready
from protojobs_sqlalchemy.tables import counters, jobs, queues

__all__ = ["list_queues", "of_queue"]

COUNTED_MAX = 100_000  # live rows that are counted one by one; beyond that the answer is an estimate
_QUEUES_MAX = 10_000


def of_queue(conn: Connection, queue: str | None, now: datetime) -> Stats:
    """The counts of one queue, or of all."""
    pending, scheduled, is_capped = _pending(conn, queue, now)
    processing = _processing(conn, queue)
    finished = _finished(conn, queue)
    return Stats(
        pending=pending,
        scheduled=scheduled,
        processing=processing,
        is_estimate=is_capped or processing > COUNTED_MAX,
        **{status: sum(by_queue.values()) for status, by_queue in finished.items()},
    )


def list_queues(conn: Connection, now: datetime) -> list[QueueInfo]:
    """Every queue that has jobs, or is paused."""
    finished = _finished(conn, None)
    paused = set(
        conn.execute(select(queues.c.name).where(queues.c.paused_at.is_not(None)).limit(_QUEUES_MAX)).scalars()
    )
    live = _live_by_queue(conn, now)
    names = set(paused) | {name for by_queue in finished.values() for name, number in by_queue.items() if number}
    names |= set(live) if live is not None else set(_live_names(conn))
    moving = set(conn.execute(select(jobs.c.queue).where(jobs.c.moving_token.is_not(None)).distinct()).scalars())
    names |= moving
    found: list[QueueInfo] = []
    for name in sorted(names)[:_QUEUES_MAX]:
        if live is None:
            stats = of_queue(conn, name, now)
        else:
            stats = live.get(name, Stats())
            stats = replace(stats, **{status: by_queue.get(name, 0) for status, by_queue in finished.items()})
        if stats.total or name in paused or name in moving:
            found.append(QueueInfo(name=name, is_paused=name in paused, stats=stats))
    return found


def _pending(conn: Connection, queue: str | None, now: datetime) -> tuple[int, int, bool]:
    """(pending, of these scheduled, whether the bound was met)."""
    first = select(jobs.c.available_at).where(*is_pending(conn, queue)).limit(COUNTED_MAX + 1).subquery()
    later = func.coalesce(func.sum(case((first.c.available_at > now, 1), else_=0)), 0)
    total, scheduled = conn.execute(select(func.count(), later).select_from(first)).one()
    if total <= COUNTED_MAX:
        return total, int(scheduled), False
    estimate = max(total, _estimate(conn, queue))
    return estimate, round(int(scheduled) / total * estimate), True


def _processing(conn: Connection, queue: str | None) -> int:
    query = select(jobs.c.id).where(is_processing(conn))
    query = query if queue is None else query.where(jobs.c.queue == queue)
    return conn.execute(select(func.count()).select_from(query.limit(COUNTED_MAX + 1).subquery())).scalar_one()


def _estimate(conn: Connection, queue: str | None) -> int:
    """A cheap guess at the pending jobs: the planner's on PostgreSQL; elsewhere the bound itself stands."""
    if conn.dialect.name != "postgresql":
        return 0
    query = "EXPLAIN (FORMAT JSON) SELECT 1 FROM jobs WHERE status = 'pending'"
    if queue is None:
        plan = conn.exec_driver_sql(query).scalar_one()
    else:
        quoted = queue.replace("'", "''").replace("%", "%%")
        plan = conn.exec_driver_sql(f"{query} AND queue = '{quoted}'").scalar_one()
    return int(plan[0]["Plan"]["Plan Rows"])


def _finished(conn: Connection, queue: str | None) -> dict[str, dict[str, int]]:
    query = select(counters.c.status, counters.c.queue, func.sum(counters.c.count)).group_by(
        counters.c.status, counters.c.queue
    )
    if queue is not None:
        query = query.where(counters.c.queue == queue)
    found: dict[str, dict[str, int]] = {"completed": {}, "failed": {}, "cancelled": {}}
    for status, name, number in conn.execute(query):
        found[status][name] = max(int(number), 0)
    return found


def _live_by_queue(conn: Connection, now: datetime) -> dict[str, Stats] | None:
    """The live counts of every queue by bounded scans, or None when there are too many jobs for that."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    sources = (("pending", is_pending(conn), ready(conn)), ("processing", [is_processing(conn)], jobs.c.queue))
    for status, condition, name in sources:
        first = select(name.label("queue"), jobs.c.available_at).where(*condition).limit(COUNTED_MAX + 1).subquery()
        later = func.sum(case((first.c.available_at > now, 1), else_=0))
        rows = conn.execute(select(first.c.queue, func.count(), later).group_by(first.c.queue)).fetchall()
        if sum(number for _, number, _ in rows) > COUNTED_MAX:
            return None
        for queue, number, scheduled in rows:
            counts[queue][status] = number
            if status == "pending":
                counts[queue]["scheduled"] = int(scheduled)
    return {queue: replace(Stats(), **numbers) for queue, numbers in counts.items()}


def _live_names(conn: Connection) -> list[str]:
    """The queues with live jobs, found by jumping from name to name in jobs_ready; few are being processed."""
    processing = select(jobs.c.queue).where(is_processing(conn)).limit(COUNTED_MAX).subquery()
    names = set(conn.execute(select(processing.c.queue).distinct()).scalars())
    column = ready(conn)
    name: str | None = ""
    while name is not None and len(names) < _QUEUES_MAX:
        query = select(column).where(*is_pending(conn), column > name).order_by(column).limit(1)
        name = conn.execute(query).scalar()
        names |= {name} if name is not None else set()
    return sorted(names)
