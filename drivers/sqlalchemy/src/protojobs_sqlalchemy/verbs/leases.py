"""Workers' rows and leases: register, heartbeat, leave, and reclaim the jobs of workers that are gone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, literal_column, select, update

from protojobs.errors import LeaseLost, StoreUnavailable
from protojobs.port import rules
from protojobs.port.lifecycle import JobState
from protojobs.port.records import (
    ClaimedJob,
    Fence,
    Heartbeat,
    LostJob,
    Reclaimed,
    Settlement,
    WorkerInfo,
    WorkerRecord,
)
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.dialect import Dialect, Mode, Use
from protojobs_sqlalchemy.tables.rows import AnyRow, claimed_job, values_of
from protojobs_sqlalchemy.tables.tables import COUNT_MAX, STORES_MAX, Tables
from protojobs_sqlalchemy.tables.types import job_ids
from protojobs_sqlalchemy.verbs.counting import count, shard_of
from protojobs_sqlalchemy.verbs.settling import settle

__all__ = ["beat", "held", "lease_lost", "leave", "list_workers", "reclaim", "register", "set_aside"]

_WORKERS_MAX = 10_000  # in one list
_RECLAIMED = ("status", "attempts", "returns", "reclaims", "crashes", "processed_at")
_OF_HELD = (
    *("id", "queue", "job_name", "job_class", "attempts", "returns", "reclaims", "crashes", "reserved_by"),
    "cancel_requested_at",
)


class _Statements:
    """Those that are run often, for the tables of one store."""

    def __init__(self, tables: Tables) -> None:
        jobs, workers = tables.jobs, tables.workers
        self.prolong = (
            update(workers)
            .where(workers.c.id == bindparam("b_id"))
            .values(heartbeat_at=bindparam("b_now"), lease_ends_at=bindparam("b_end"))
        )
        self.report = (
            update(jobs)
            .where(jobs.c.id == bindparam("b_id"))
            .where(jobs.c.claim_seq == bindparam("b_claim_seq"), jobs.c.reserved_by == bindparam("b_reserved_by"))
            .values(progress=bindparam("b_progress"))
        )
        # Without the status, which the holder implies, this can only walk jobs_marked. With it PostgreSQL may take
        # jobs_processing, and pass all that this worker ever claimed for as long as a transaction keeps vacuum away.
        self.marked_alone = select(jobs.c.id, jobs.c.claim_seq, jobs.c.reserved_by).where(
            jobs.c.reserved_by == bindparam("b_worker"), jobs.c.cancel_requested_at.is_not(None)
        )
        self.marked = self.marked_alone.where(jobs.c.status == literal_column("'processing'"))
        self.held_by: Select[*tuple[Any, ...]] = select(*[jobs.c[name] for name in _OF_HELD]).where(
            jobs.c.status == literal_column("'processing'")
        )
        self.reclaim = (
            update(jobs)
            .where(jobs.c.id == bindparam("b_id"))
            .values({name: bindparam(f"b_{name}", type_=jobs.c[name].type) for name in _RECLAIMED})
            .values(claim_seq=tables.next_claim_seq, reserved_by=None, reserved_at=None)
        )


_statements = lru_cache(maxsize=STORES_MAX)(_Statements)


def beat(connections: Connections, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
    """Prolong the lease, then store progress; LeaseLost when the worker's row is gone."""
    reply = connections.run_at(
        lambda conn, now: prolong(conn, connections.dialect, worker, now), Mode.WORK, use=Use.BEAT, is_repeatable=True
    )
    if progress:
        with suppress(StoreUnavailable):  # a note, and the lease has been prolonged
            connections.run(
                lambda conn: note_progress(conn, connections.dialect, progress),
                Mode.WORK,
                use=Use.BEAT,
                is_repeatable=True,
            )
    return reply


def held(connections: Connections, worker: str) -> list[ClaimedJob]:
    """The jobs that the store thinks this worker has."""
    jobs_and_unreadable = connections.run(
        lambda conn: read_held(conn, connections.dialect, worker), Mode.READ, use=Use.WORK
    )
    set_aside(connections, [each for each in jobs_and_unreadable if isinstance(each, Settlement)])
    return [each for each in jobs_and_unreadable if isinstance(each, ClaimedJob)]


def set_aside(connections: Connections, unreadable: Sequence[Settlement]) -> None:
    """Fail jobs that were lent and cannot be read. Where that does not come about, the next `held` finds them."""
    if unreadable:
        holder = unreadable[0].reserved_by
        with suppress(StoreUnavailable):
            connections.run_at(
                lambda conn, now: settle(conn, connections.dialect, unreadable, now, shard_of(conn, holder)),
                Mode.WORK,
                is_repeatable=True,
                use=Use.WORK,
            )


def lease_lost(worker: str) -> LeaseLost:
    """The error for a worker whose row is gone."""
    return LeaseLost(
        f"The lease of worker {worker} no longer stands.", mend="Others may have its jobs; register under a new id."
    )


def register(conn: Connection, dialect: Dialect, worker: WorkerInfo, now: datetime) -> None:
    """Store the worker's row; once, however often an answer was lost on the way."""
    workers = dialect.tables.workers
    row = {
        "host": worker.host,
        "pid": worker.pid,
        "queues": json.dumps(worker.queues, ensure_ascii=False),
        "concurrency": worker.concurrency,
        "lease_s": worker.lease_s,
        "isolates": int(worker.isolates),
        "started_at": now,
        "heartbeat_at": now,
        "lease_ends_at": now + timedelta(seconds=worker.lease_s),
    }
    if not conn.execute(update(workers).where(workers.c.id == worker.id).values(row)).rowcount:
        conn.execute(insert(workers).values(id=worker.id, **row))


def prolong(conn: Connection, dialect: Dialect, worker: str, now: datetime) -> Heartbeat:
    """Prolong the lease; LeaseLost when the row is gone."""
    workers, sql = dialect.tables.workers, _statements(dialect.tables)
    # Locked against reclaims. A claim of the same worker, which only wants the row to stay, need not wait.
    mine = select(workers.c.lease_s).where(workers.c.id == worker).with_for_update(key_share=True)
    lease_s = conn.execute(mine).scalar()
    if lease_s is None:
        raise lease_lost(worker)
    conn.execute(sql.prolong, {"b_id": worker, "b_now": now, "b_end": now + timedelta(seconds=lease_s)})
    marks = conn.execute(sql.marked_alone if dialect.has_marked_index else sql.marked, {"b_worker": worker})
    cancels = tuple(Fence(id=row.id, claim_seq=row.claim_seq, reserved_by=row.reserved_by) for row in marks)
    return Heartbeat(cancels=cancels, others_end_in=_others_end_in(conn, dialect, now, apart_from=worker), at=now)


def note_progress(conn: Connection, dialect: Dialect, progress: Mapping[Fence, float]) -> None:
    """Store how far these claims are. A job whose row somebody holds, such as its own transaction, is passed over."""
    jobs = dialect.tables.jobs
    wanted = select(jobs.c.id).where(jobs.c.id.in_(job_ids(fence.id for fence in progress))).order_by(jobs.c.id)
    free = set(conn.execute(wanted.with_for_update(key_share=True, skip_locked=True)).scalars())
    reports = [
        {"b_id": f.id, "b_claim_seq": f.claim_seq, "b_reserved_by": f.reserved_by, "b_progress": min(max(p, 0.0), 1.0)}
        for f, p in progress.items()
        if f.id in free
    ]
    if reports:
        conn.execute(_statements(dialect.tables).report, reports)


def leave(conn: Connection, dialect: Dialect, worker: str) -> None:
    """Delete the worker's row."""
    workers = dialect.tables.workers
    conn.execute(delete(workers).where(workers.c.id == worker))


def read_held(conn: Connection, dialect: Dialect, worker: str) -> list[ClaimedJob | Settlement]:
    """The jobs that this worker holds, by id: sorted here, for PostgreSQL would walk all ids rather than sort a few.

    Those that cannot be read come as the settlements that set them aside.
    """
    jobs = dialect.tables.jobs
    query = select(jobs).where(jobs.c.status == literal_column("'processing'"), jobs.c.reserved_by == worker)
    return sorted((claimed_job(row) for row in conn.execute(query)), key=lambda job: job.id)


def list_workers(conn: Connection, dialect: Dialect) -> list[WorkerRecord]:
    """Every worker whose row stands, oldest first, with the number of jobs that it holds."""
    jobs, workers = dialect.tables.jobs, dialect.tables.workers
    is_held = dialect.conditions.is_processing()
    busy = select(jobs.c.reserved_by, func.count().label("held")).where(is_held).group_by(jobs.c.reserved_by).subquery()
    rows = conn.execute(
        select(workers, func.coalesce(busy.c.held, 0).label("processing"))
        .outerjoin(busy, busy.c.reserved_by == workers.c.id)
        .order_by(workers.c.started_at, workers.c.id)
        .limit(_WORKERS_MAX)
    )
    return [
        WorkerRecord(**dict(values_of(row), queues=tuple(json.loads(row.queues)), isolates=bool(row.isolates)))
        for row in rows
    ]


def reclaim(conn: Connection, dialect: Dialect, limit: int, now: datetime, until: datetime | None) -> Reclaimed:
    """Delete lapsed workers' rows, then reclaim their jobs and the orphans."""
    if until is not None and now > until:
        return Reclaimed(has_more=True)
    workers = dialect.tables.workers
    # A worker that is renewing or claiming right now has its row locked: it is passed over, since it lives.
    lapsed = conn.execute(
        select(workers.c.id, workers.c.isolates)
        .where(workers.c.lease_ends_at <= now)
        .order_by(workers.c.lease_ends_at)
        .limit(max(limit, 1))
        .with_for_update(skip_locked=True)
    ).fetchall()
    gone = {row.id: bool(row.isolates) for row in lapsed}
    if gone:
        conn.execute(delete(workers).where(workers.c.id.in_(gone)))
    rows = _orphans(conn, dialect, limit + 1, list(gone))
    has_more = len(rows) > limit or len(gone) >= max(limit, 1)
    rows = rows[:limit]
    after = [_values_after(row, now, dies_with_its_jobs=not gone.get(row.reserved_by, True)) for row in rows]
    if after:
        conn.execute(_statements(dialect.tables).reclaim, after)
        pairs = zip(rows, after, strict=True)
        count(conn, dialect, Counter((row.queue, "cancelled") for row, new in pairs if new["b_status"] == "cancelled"))
    return Reclaimed(
        jobs=tuple(_lost(row, new) for row, new in zip(rows, after, strict=True)),
        workers=tuple(gone),
        has_more=has_more,
        others_end_in=_others_end_in(conn, dialect, now),
    )


def _orphans(conn: Connection, dialect: Dialect, limit: int, first: list[str]) -> list[AnyRow]:
    """Up to `limit` locked jobs whose holder has no row, those of the workers in `first` before all others."""
    jobs, workers, held_by = dialect.tables.jobs, dialect.tables.workers, _statements(dialect.tables).held_by
    rows: list[AnyRow] = []
    if first:
        query = held_by.where(jobs.c.reserved_by.in_(first)).limit(limit).with_for_update(skip_locked=True)
        rows += conn.execute(query)
    if len(rows) < limit:
        for conditions in dialect.conditions.without_worker(first):
            query = held_by.where(*conditions).limit(limit - len(rows))
            rows += conn.execute(query.with_for_update(of=jobs, skip_locked=True))
    if not rows:
        return []
    # Between that statement's snapshot and its locks a job may have been reclaimed by another and lent to a worker that
    # registered only then. Its row is locked now, so a new statement tells for sure.
    holders = {row.reserved_by for row in rows if row.reserved_by is not None}
    standing_now = set(conn.execute(select(workers.c.id).where(workers.c.id.in_(holders))).scalars())
    return [row for row in rows if row.reserved_by not in standing_now]


def _values_after(job: AnyRow, now: datetime, *, dies_with_its_jobs: bool) -> dict[str, object]:
    state, counts = rules.after_reclaim(cast(rules.Counted, job), dies_with_its_jobs=dies_with_its_jobs)
    return {
        **{f"b_{name}": min(number, COUNT_MAX) for name, number in counts.items()},
        "b_id": job.id,
        "b_status": state.value,
        "b_processed_at": None if state is JobState.PENDING else now,
    }


def _lost(job: AnyRow, after: dict[str, object]) -> LostJob:
    return LostJob(
        id=job.id,
        queue=job.queue,
        job_name=job.job_name,
        job_class=job.job_class,
        attempts=int(str(after["b_attempts"])),
        state=JobState(str(after["b_status"])),
        reserved_by=job.reserved_by or "",
    )


def _others_end_in(conn: Connection, dialect: Dialect, now: datetime, apart_from: str = "") -> float | None:
    workers = dialect.tables.workers
    end = conn.execute(select(func.min(workers.c.lease_ends_at)).where(workers.c.id != apart_from)).scalar()
    return None if end is None else (end - now).total_seconds()
