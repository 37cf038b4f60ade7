"""What people do to jobs: cancel, retry, forget, clear, pause, prune. Bulk verbs work in bounded rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, Select, delete, func, literal, select, update

from protojobs.port.lifecycle import FINISHED, JobState
from protojobs.port.records import CancelAnswer, Cleared, Pruned, RetryAnswer
from protojobs_sqlalchemy.archive import TurnedOver
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.dialect import Age, Dialect, Mode, Use
from protojobs_sqlalchemy.tables.rows import AnyRow, state_of
from protojobs_sqlalchemy.tables.types import job_ids
from protojobs_sqlalchemy.verbs.counting import DAY_SHARDS, count, gather
from protojobs_sqlalchemy.verbs.settling import storable

__all__ = ["Clearing", "cancel", "forget_failed", "pause", "prune", "prune_rows", "resume", "retry_failed", "turn_over"]

_RETRIED = {
    "status": "pending",
    "attempts": 0,
    "crashes": 0,
    "returns": 0,
    "reclaims": 0,
    "reserved_at": None,
    "processed_at": None,
    "cancel_requested_at": None,
    "reason": None,
    "progress": None,
}

WALKED_MAX = 20_000  # finished jobs of all queues that one call looks at
_WALKS_MAX = 1_000

Walks = dict[tuple[str, JobState], datetime]
"""How far the clearing of a queue has come: when the last job ended that was looked at."""


def cancel(conn: Connection, dialect: Dialect, ids: Sequence[str], reason: str, now: datetime) -> list[CancelAnswer]:
    """Cancel pending jobs at once, mark processing ones: one reply for each id, in order."""
    jobs = dialect.tables.jobs
    rows = _locked(conn, dialect, ids)
    pending = [row.id for row in rows.values() if state_of(row.status) in (JobState.PENDING, JobState.UNREADABLE)]
    processing = [row.id for row in rows.values() if row.status == JobState.PROCESSING]
    why = {"reason": storable(reason)} if reason else {}
    if pending:
        conn.execute(update(jobs).where(jobs.c.id.in_(pending)).values(status="cancelled", processed_at=now, **why))
        count(conn, dialect, Counter((rows[job_id].queue, "cancelled") for job_id in pending))
    if processing:  # its worker decides; the mark outlives it
        first = func.coalesce(jobs.c.cancel_requested_at, literal(now, jobs.c.cancel_requested_at.type))
        conn.execute(update(jobs).where(jobs.c.id.in_(processing)).values(cancel_requested_at=first, **why))
    archived = dialect.archive.holds(conn, [job_id for job_id in ids if job_id not in rows])
    by_id = dict.fromkeys([*rows, *archived], CancelAnswer.FINISHED)
    by_id |= dict.fromkeys(pending, CancelAnswer.CANCELLED) | dict.fromkeys(processing, CancelAnswer.REQUESTED)
    replies: list[CancelAnswer] = []
    for job_id in ids:
        replies.append(by_id.get(job_id, CancelAnswer.MISSING))
        if replies[-1] is CancelAnswer.CANCELLED:
            by_id[job_id] = CancelAnswer.FINISHED  # asked twice in one call
    return replies


def retry_failed(
    conn: Connection, dialect: Dialect, ids: Sequence[str], now: datetime
) -> tuple[list[RetryAnswer], set[str]]:
    """Requeue by failed_jobs id: one reply for each, in order, and the queues that got a job."""
    jobs, failed_jobs = dialect.tables.jobs, dialect.tables.failed_jobs
    failures = _failures(conn, dialect, ids)
    rows = {failed_id: row for failed_id, row in failures.items() if row.status == JobState.FAILED}
    if rows:
        chosen = [row.id for row in rows.values()]
        conn.execute(delete(failed_jobs).where(failed_jobs.c.id.in_(rows)))
        again = update(jobs).where(jobs.c.id.in_(chosen)).values(_RETRIED)
        conn.execute(again.values(claim_seq=dialect.tables.next_claim_seq, available_at=now))
        count(conn, dialect, {key: -n for key, n in Counter((row.queue, "failed") for row in rows.values()).items()})
    replies: list[RetryAnswer] = []
    for position, failed_id in enumerate(ids):
        if failed_id not in failures or (failed_id in rows and failed_id in ids[:position]):
            replies.append(RetryAnswer.MISSING)  # asked twice in one call: the second time its row is gone
        else:
            replies.append(RetryAnswer.REQUEUED if failed_id in rows else RetryAnswer.CONFLICT)
    return replies, {row.queue for row in rows.values()}


def forget_failed(conn: Connection, dialect: Dialect, ids: Sequence[str]) -> int:
    """Delete failed jobs and their failed_jobs rows, by failed_jobs id; how many there were."""
    rows = [row for row in _failures(conn, dialect, ids).values() if row.status == JobState.FAILED]
    _delete(conn, dialect, rows)
    return len(rows)


def _failures(conn: Connection, dialect: Dialect, ids: Sequence[str]) -> dict[str, AnyRow]:
    """The jobs of these failures, locked, by failed_jobs id."""
    wanted = job_ids(ids)
    if not wanted:
        return {}
    failed_jobs = dialect.tables.failed_jobs
    query = select(failed_jobs.c.id, failed_jobs.c.job_id).where(failed_jobs.c.id.in_(wanted))
    jobs_of = {row.id: row.job_id for row in conn.execute(query)}
    locked = _locked(conn, dialect, list(jobs_of.values()))
    # Read again under the jobs' locks: another may have retried one of them since.
    still = set(conn.execute(query.with_for_update()).scalars()) if locked else set[str]()
    return {
        failed_id: locked[job_id] for failed_id, job_id in jobs_of.items() if failed_id in still and job_id in locked
    }


class Clearing:
    """Removes a queue's pending and finished jobs, call by call, and remembers how far each queue's was walked.

    Where that is lost, the walk begins anew.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._walks: Walks = {}

    def clear(self, queue: str, limit: int) -> Cleared:
        """Remove up to `limit` pending and finished jobs of the queue."""
        walks = dict(self._walks)  # a step may run more than once, and only the last one counts
        dialect = self._connections.dialect
        cleared = self._connections.run(lambda conn: _clear(conn, dialect, queue, limit, walks), Mode.STORE)
        self._walks = walks if len(walks) <= _WALKS_MAX else {}
        return cleared


def _clear(conn: Connection, dialect: Dialect, queue: str, limit: int, walks: Walks) -> Cleared:
    pending = _lock(dialect).where(*dialect.conditions.is_pending(queue)).order_by(None).limit(limit + 1)
    rows = list(conn.execute(pending.with_for_update(skip_locked=True)))
    has_more = len(rows) > limit
    rows = rows[:limit]
    for state, number in _finished(conn, dialect, queue).items():
        span = dialect.conditions.is_finished(state)
        more, is_over = _removable(conn, dialect, (queue, state), span, limit - len(rows), number, walks)
        rows += more
        has_more |= not is_over
    _delete(conn, dialect, rows)
    totals = Counter(str(row.status) for row in rows)
    if not has_more:
        archived, has_more = dialect.archive.clear(conn, queue, limit - len(rows))
        totals["completed"] += archived
    return Cleared(has_more=has_more, **totals)


def _finished(conn: Connection, dialect: Dialect, queue: str) -> dict[JobState, int]:
    """How many finished jobs of each kind the queue has, by the counters, apart from archived ones."""
    counters = dialect.tables.counters
    total = func.sum(counters.c.count)
    query = select(counters.c.status, total).where(
        counters.c.queue == queue, counters.c.status.in_(sorted(FINISHED)), counters.c.shard < DAY_SHARDS
    )
    rows = conn.execute(query.group_by(counters.c.status).having(total > 0))
    return {JobState(status): int(number) for status, number in rows}


def _removable(  # noqa: PLR0913 (where a walk begins and how far it may go)
    conn: Connection,
    dialect: Dialect,
    key: tuple[str, JobState],
    span: list[ColumnElement[bool]],
    room: int,
    number: int,
    walks: Walks,
) -> tuple[list[AnyRow], bool]:
    """Up to `room` locked jobs of the queue in that finished state, and whether that were all."""
    if room <= 0:
        return [], False
    jobs, failed_jobs = dialect.tables.jobs, dialect.tables.failed_jobs
    (queue, state), end = key, None
    if state is JobState.FAILED:
        of_queue = select(failed_jobs.c.job_id).where(failed_jobs.c.queue == queue)
    else:
        # jobs_finished knows no queues, so those of all queues are looked at, span by span, each call from where the
        # last one has ended: the whole at once took minutes where another queue has ten millions.
        if key in walks:
            span = [*span, jobs.c.processed_at > walks[key]]
        of_all = select(jobs.c.processed_at).where(*span).order_by(jobs.c.processed_at)
        end = conn.execute(of_all.offset(WALKED_MAX - 1).limit(1)).scalar()
        if end is not None:
            span = [*span, jobs.c.processed_at <= end]
        of_queue = select(jobs.c.id).where(*span, jobs.c.queue == queue).order_by(jobs.c.processed_at)
    ids = conn.execute(of_queue.limit(room + 1)).scalars().all()
    still = _lock(dialect).where(jobs.c.id.in_(ids[:room]), jobs.c.queue == queue, jobs.c.status == state.value)
    rows = list(conn.execute(still.with_for_update(skip_locked=True)))
    if len(ids) > room:
        return rows, False
    is_over = end is None or len(rows) >= number
    if is_over or end is None:
        walks.pop(key, None)
    else:
        walks[key] = end
    return rows, is_over


def pause(conn: Connection, dialect: Dialect, queue: str, now: datetime) -> bool:
    """From the next claim on the queue lends nothing. False: it was paused already."""
    queues = dialect.tables.queues
    if dialect.inserts(conn, queues, {"name": queue, "paused_at": now}):
        return True
    stopped = update(queues).where(queues.c.name == queue, queues.c.paused_at.is_(None)).values(paused_at=now)
    return conn.execute(stopped).rowcount > 0


def resume(conn: Connection, dialect: Dialect, queue: str) -> bool:
    """Undo `pause`. False: it was not paused."""
    queues = dialect.tables.queues
    return conn.execute(delete(queues).where(queues.c.name == queue)).rowcount > 0


def prune(connections: Connections, completed_age: float | None, failed_age: float | None, limit: int) -> Pruned:
    """Delete up to `limit` finished jobs older than so many seconds; and whole days of an archive at once."""
    dialect = connections.dialect
    ages: list[Age] = [((JobState.COMPLETED, JobState.CANCELLED), completed_age), ((JobState.FAILED,), failed_age)]
    has_archive = connections.run(dialect.archive.has_jobs, Mode.SINGLE, use=Use.WORK)
    days = turn_over(connections, completed_age) if has_archive else TurnedOver()
    pruned = connections.run_at(
        lambda conn, now: _prune_and_gather(conn, dialect, ages, limit, now), Mode.STORE, use=Use.WORK
    )
    if not has_archive or completed_age is None or pruned.has_more:
        return replace(pruned, completed=pruned.completed + days.dropped)
    archived, has_more = connections.run_at(
        lambda conn, now: dialect.archive.prune(
            conn, completed_age, now, limit - pruned.total, goes_by_days=not days.denied
        ),
        Mode.STORE,
        use=Use.WORK,
    )
    return replace(pruned, completed=pruned.completed + days.dropped + archived, has_more=has_more)


def turn_over(connections: Connections, age: float | None) -> TurnedOver:
    """Make the archive's days that come, and drop those of jobs older than so many seconds (None: drop none)."""

    def step(conn: Connection, now: datetime) -> TurnedOver:
        ended_by = None if age is None else now - timedelta(seconds=age)
        return connections.dialect.archive.turn_over(conn, now, ended_by=ended_by)

    return connections.run_at(step, Mode.STORE, use=Use.WORK)


def _prune_and_gather(conn: Connection, dialect: Dialect, ages: Sequence[Age], limit: int, now: datetime) -> Pruned:
    pruned = dialect.prune(conn, ages, limit=limit, now=now)
    if not pruned.has_more:
        gather(conn, dialect)
    return pruned


def prune_rows(conn: Connection, dialect: Dialect, ages: Sequence[Age], *, limit: int, now: datetime) -> Pruned:
    """Delete up to `limit` finished jobs, which are locked and read first."""
    jobs = dialect.tables.jobs
    rows: list[AnyRow] = []
    for states, age in ages:
        for state in states if age is not None else ():
            if len(rows) > limit:
                break
            old = jobs.c.processed_at < now - timedelta(seconds=age or 0.0)
            query = _lock(dialect).where(*dialect.conditions.is_finished(state), old).limit(limit + 1 - len(rows))
            query = query.order_by(None).order_by(jobs.c.processed_at).with_for_update(skip_locked=True)
            rows += conn.execute(query)
    _delete(conn, dialect, rows[:limit])
    return Pruned(has_more=len(rows) > limit, **Counter(str(row.status) for row in rows[:limit]))


def _lock(dialect: Dialect) -> Select[*tuple[Any, ...]]:
    jobs = dialect.tables.jobs
    return select(jobs.c.id, jobs.c.queue, jobs.c.status).order_by(jobs.c.id).with_for_update()


def _locked(conn: Connection, dialect: Dialect, ids: Sequence[str]) -> dict[str, AnyRow]:
    wanted = job_ids(ids)
    if not wanted:
        return {}
    return {row.id: row for row in conn.execute(_lock(dialect).where(dialect.tables.jobs.c.id.in_(wanted)))}


def _delete(conn: Connection, dialect: Dialect, rows: Sequence[AnyRow]) -> None:
    """Delete these locked jobs, their failed_jobs rows, and their share of the counters."""
    if not rows:
        return
    jobs, failed_jobs = dialect.tables.jobs, dialect.tables.failed_jobs
    failed = [row.id for row in rows if row.status == JobState.FAILED]
    if failed:
        conn.execute(delete(failed_jobs).where(failed_jobs.c.job_id.in_(failed)))
    conn.execute(delete(jobs).where(jobs.c.id.in_([row.id for row in rows])))
    finished = Counter((row.queue, row.status) for row in rows if row.status in FINISHED)
    count(conn, dialect, {key: -number for key, number in finished.items()})
