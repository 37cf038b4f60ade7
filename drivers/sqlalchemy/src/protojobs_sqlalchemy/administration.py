"""What people do to jobs: cancel, retry, forget, clear, pause, prune. Bulk verbs work in bounded rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from protojobs.lifecycle import FINISHED, JobState
from protojobs.records import CancelAnswer, Cleared, Pruned, RetryAnswer
from protojobs_sqlalchemy.conditions import is_finished, is_pending
from protojobs_sqlalchemy.counting import count
from protojobs_sqlalchemy.ids import known
from protojobs_sqlalchemy.rows import Found
from protojobs_sqlalchemy.settling import storable
from protojobs_sqlalchemy.tables import counters, failed_jobs, jobs, queues

__all__ = ["cancel", "clear", "forget_failed", "pause", "prune", "resume", "retry_failed"]

_lock = select(jobs.c.id, jobs.c.queue, jobs.c.status).order_by(jobs.c.id).with_for_update()


def cancel(conn: Connection, ids: Sequence[str], reason: str, now: datetime) -> list[CancelAnswer]:
    """Cancel pending jobs, mark processing ones; answers in order."""
    rows = _locked(conn, ids)
    pending = [row.id for row in rows.values() if row.status == JobState.PENDING]
    processing = [row.id for row in rows.values() if row.status == JobState.PROCESSING]
    mark = {"cancel_requested_at": now, "reason": storable(reason) or None}
    if pending:
        conn.execute(
            update(jobs).where(jobs.c.id.in_(pending)).values(status="cancelled", processed_at=now, **mark)
        )
        count(conn, Counter((rows[job_id].queue, "cancelled") for job_id in pending))
    if processing:
        unmarked = jobs.c.cancel_requested_at.is_(None)  # the first reason stands
        conn.execute(update(jobs).where(jobs.c.id.in_(processing), unmarked).values(**mark))
    answers = dict.fromkeys(pending, CancelAnswer.CANCELLED) | dict.fromkeys(processing, CancelAnswer.REQUESTED)
    missing = {JobState.MOVING.value}  # it belongs to another store already
    seen: set[str] = set()
    out: list[CancelAnswer] = []
    for job_id in ids:
        row = rows.get(job_id)
        if row is None or row.status in missing:
            out.append(CancelAnswer.MISSING)
        elif job_id in seen and row.status == JobState.PENDING:
            out.append(CancelAnswer.FINISHED)
        else:
            out.append(answers.get(job_id, CancelAnswer.FINISHED))
        seen.add(job_id)
    return out


def retry_failed(conn: Connection, ids: Sequence[str], now: datetime) -> tuple[list[RetryAnswer], set[str]]:
    """Requeue by failed_jobs id; answers in order, and the queues that got a job."""
    found = known(ids)
    present = set(conn.execute(select(failed_jobs.c.id).where(failed_jobs.c.id.in_(found))).scalars()) if found else set()
    rows = _locked(conn, list(present))
    ready = [row for row in rows.values() if row.status == JobState.FAILED]
    if ready:
        chosen = [row.id for row in ready]
        # Read again under the jobs' locks: another may have retried them since.
        still = conn.execute(select(failed_jobs.c.id).where(failed_jobs.c.id.in_(chosen)).with_for_update()).scalars()
        present, chosen = present - set(chosen), list(still)
        present |= set(chosen)
        ready = [row for row in ready if row.id in present]
        conn.execute(delete(failed_jobs).where(failed_jobs.c.id.in_(chosen)))
        conn.execute(
            update(jobs)
            .where(jobs.c.id.in_(chosen))
            .values(
                status="pending",
                available_at=now,
                processed_at=None,
                reserved_at=None,
                claim_seq=jobs.c.claim_seq + 1,
                attempts=0,
                crashes=0,
                returns=0,
                reclaims=0,
                cancel_requested_at=None,
                reason=None,
                progress=None,
            )
        )
        count(conn, {key: -n for key, n in Counter((row.queue, "failed") for row in ready).items()})
    left = {row.id for row in ready}
    answers: list[RetryAnswer] = []
    for job_id in ids:
        if job_id in left:
            left.discard(job_id)  # asked twice in one call: the second time its row is gone
            present.discard(job_id)
            answers.append(RetryAnswer.REQUEUED)
        else:
            answers.append(RetryAnswer.CONFLICT if job_id in present else RetryAnswer.MISSING)
    return answers, {row.queue for row in ready}


def forget_failed(conn: Connection, ids: Sequence[str]) -> int:
    """Delete failed jobs and their failed_jobs rows."""
    rows = [row for row in _locked(conn, ids).values() if row.status == JobState.FAILED]
    _delete(conn, rows)
    return len(rows)


def clear(conn: Connection, queue: str, limit: int) -> Cleared:
    """Delete pending and finished jobs of the queue."""
    rows: list[Found] = []
    for condition in _removable(conn, queue):  # one index range each; an OR of them would scan the table
        if len(rows) < limit:
            query = _lock.where(*condition).limit(limit - len(rows))
            rows += conn.execute(query.order_by(None).with_for_update(skip_locked=True))
    _delete(conn, rows)
    removed = Counter(str(row.status) for row in rows)
    return Cleared(has_more=len(rows) >= limit, **removed)


def _removable(conn: Connection, queue: str) -> list[list[ColumnElement[bool]]]:
    conditions = [is_pending(conn, queue)]
    totals = select(counters.c.status).where(counters.c.queue == queue).group_by(counters.c.status)
    for status in conn.execute(totals.having(func.sum(counters.c.count) > 0)).scalars():
        conditions.append([*is_finished(conn, JobState(status)), jobs.c.queue == queue])
    return conditions


def pause(conn: Connection, queue: str, now: datetime) -> bool:
    """False: it was paused already."""
    row = conn.execute(select(queues.c.paused_at).where(queues.c.name == queue).with_for_update()).one_or_none()
    if row is None:
        conn.execute(insert(queues).values(name=queue, paused_at=now))
    elif row.paused_at is None:
        conn.execute(update(queues).where(queues.c.name == queue).values(paused_at=now))
    return row is None or row.paused_at is None


def resume(conn: Connection, queue: str) -> bool:
    """False: it was not paused."""
    return conn.execute(delete(queues).where(queues.c.name == queue)).rowcount > 0


def prune(
    conn: Connection,
    ages: Sequence[tuple[Sequence[JobState], float | None]],
    *,
    arrived_before: float,
    limit: int,
    now: datetime,
) -> Pruned:
    """Delete finished jobs; `ages` says for which states and from which age in seconds on (None: not these)."""
    arrived = jobs.c.created_at < now - timedelta(seconds=arrived_before) if arrived_before else None
    rows: list[Found] = []
    for states, age in ages:
        for state in states if age is not None else ():
            if len(rows) >= limit:
                break
            old = jobs.c.processed_at < now - timedelta(seconds=age or 0.0)
            query = _lock.where(*is_finished(conn, state), old).limit(limit - len(rows))
            query = query if arrived is None else query.where(arrived)
            query = query.order_by(None).order_by(jobs.c.processed_at).with_for_update(skip_locked=True)
            rows += conn.execute(query)
    _delete(conn, rows)
    removed = Counter(str(row.status) for row in rows)
    return Pruned(has_more=len(rows) >= limit, **removed)


def _locked(conn: Connection, ids: Sequence[str]) -> dict[str, Found]:
    wanted = known(ids)
    return {row.id: row for row in conn.execute(_lock.where(jobs.c.id.in_(wanted)))} if wanted else {}


def _delete(conn: Connection, rows: Sequence[Found]) -> None:
    """Delete these locked jobs, their failed_jobs rows, and their share of the counters."""
    if not rows:
        return
    failed = [row.id for row in rows if row.status == JobState.FAILED]
    if failed:
        conn.execute(delete(failed_jobs).where(failed_jobs.c.id.in_(failed)))
    conn.execute(delete(jobs).where(jobs.c.id.in_([row.id for row in rows])))
    finished = Counter((row.queue, row.status) for row in rows if row.status in FINISHED)
    count(conn, {key: -number for key, number in finished.items()})
