"""Workers' leases: their rows, their heartbeats, and taking back what the dead held."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from protojobs.errors import LeaseLost, StoreUnavailable
from protojobs.port.lifecycle import RETURNS_FREE, SUSPECT_RECLAIMS, JobState
from protojobs.port.records import ClaimedJob, Fence, Heartbeat, LostJob, Reclaimed, Settlement, WorkerInfo
from protojobs_sqlalchemy.dialect import Mode, Use
from protojobs_sqlalchemy.tables.ids import known
from protojobs_sqlalchemy.tables.rows import Found, claimed_job
from protojobs_sqlalchemy.tables.tables import COUNT_MAX, jobs, next_claim_seq, workers
from protojobs_sqlalchemy.verbs import settling
from protojobs_sqlalchemy.verbs.conditions import is_mysql, is_without_holder
from protojobs_sqlalchemy.verbs.counting import count, shard_of
from protojobs_sqlalchemy.verbs.steps import Steps

__all__ = ["Leases", "lease_lost"]

_RECLAIMED = ("status", "attempts", "returns", "reclaims", "crashes", "processed_at")

_prolong = (
    update(workers)
    .where(workers.c.id == bindparam("b_id"))
    .values(heartbeat_at=bindparam("b_now"), lease_ends_at=bindparam("b_end"))
)
_report = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .where(jobs.c.claim_seq == bindparam("b_claim_seq"), jobs.c.reserved_by == bindparam("b_reserved_by"))
    .values(progress=bindparam("b_progress"))
)
# Without the status, which the holder implies, this can only walk jobs_marked. With it PostgreSQL may take
# jobs_processing, and pass all that this worker ever claimed for as long as a transaction keeps vacuum away.
_marked_alone = select(jobs.c.id, jobs.c.claim_seq, jobs.c.reserved_by).where(
    jobs.c.reserved_by == bindparam("b_worker"), jobs.c.cancel_requested_at.is_not(None)
)
_marked = _marked_alone.where(jobs.c.status == literal_column("'processing'"))
_held_by = select(
    jobs.c.id,
    jobs.c.queue,
    jobs.c.job_name,
    jobs.c.job_class,
    jobs.c.attempts,
    jobs.c.returns,
    jobs.c.reclaims,
    jobs.c.crashes,
    jobs.c.reserved_by,
    jobs.c.cancel_requested_at,
).where(jobs.c.status == literal_column("'processing'"))
_take_back = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values({name: bindparam(f"b_{name}", type_=jobs.c[name].type) for name in _RECLAIMED})
    .values(claim_seq=next_claim_seq, reserved_by=None, reserved_at=None)
)


class Leases(Steps):
    """The port's verbs on a worker's lease."""

    def register(self, worker: WorkerInfo) -> None:
        """Store the worker's row; its lease ends `lease_s` seconds from the store's now."""
        self._connections.warn_of_few(worker.concurrency)
        self._run_at(lambda conn, now: register(conn, worker, now), Mode.WORK, use=Use.WORK, is_repeatable=True)

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
        """Prolong the lease, store progress; LeaseLost when the row is gone."""
        beat = self._run_at(lambda conn, now: heartbeat(conn, worker, now), Mode.WORK, use=Use.BEAT, is_repeatable=True)
        if progress:
            with suppress(StoreUnavailable):  # a note, and the lease has been prolonged
                self._run(lambda conn: note_progress(conn, progress), Mode.WORK, use=Use.BEAT, is_repeatable=True)
        return beat

    def leave(self, worker: str) -> None:
        """Delete the worker's row."""
        self._run(lambda conn: leave(conn, worker), Mode.WORK, use=Use.WORK)

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        """Take back up to `limit` jobs of the dead."""
        round_ = self._run_at(lambda conn, now: reclaim(conn, limit, now, until), Mode.WORK, use=Use.WORK)
        self._dialect.ring({job.queue for job in round_.jobs}, takes_none=True, came_back=True)
        return round_

    def held(self, worker: str) -> list[ClaimedJob]:
        """The jobs that the store thinks this worker has."""
        found = self._run(lambda conn: held(conn, worker), Mode.READ, use=Use.WORK)
        self._set_aside([one for one in found if isinstance(one, Settlement)])
        return [one for one in found if isinstance(one, ClaimedJob)]

    def _set_aside(self, unreadable: Sequence[Settlement]) -> None:
        """Fail jobs that were lent and cannot be read. Where that does not come about, the next `held` finds them."""
        if unreadable:
            shard = shard_of(unreadable[0].reserved_by)
            with suppress(StoreUnavailable):
                self._run_at(
                    lambda conn, now: settling.apply(conn, unreadable, now, shard),
                    Mode.WORK,
                    is_repeatable=True,
                    use=Use.WORK,
                )


def lease_lost(worker: str) -> LeaseLost:
    """The error for a worker whose row is gone."""
    return LeaseLost(
        f"The lease of worker {worker} no longer stands.", mend="Others may have its jobs; register under a new id."
    )


def register(conn: Connection, worker: WorkerInfo, now: datetime) -> None:
    """Store the worker's row; once, however often an answer was lost on the way."""
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


def heartbeat(conn: Connection, worker: str, now: datetime) -> Heartbeat:
    """Prolong the lease; LeaseLost when the row is gone."""
    # Locked against reclaims. A claim of the same worker, which only wants the row to stay, need not wait.
    mine = select(workers.c.lease_s).where(workers.c.id == worker).with_for_update(key_share=True)
    lease_s = conn.execute(mine).scalar()
    if lease_s is None:
        raise lease_lost(worker)
    conn.execute(_prolong, {"b_id": worker, "b_now": now, "b_end": now + timedelta(seconds=lease_s)})
    marks = conn.execute(_marked_alone if conn.dialect.name == "postgresql" else _marked, {"b_worker": worker})
    cancels = tuple(Fence(id=row.id, claim_seq=row.claim_seq, reserved_by=row.reserved_by) for row in marks)
    return Heartbeat(cancels=cancels, others_end_in=_others_end_in(conn, now, apart_from=worker), at=now)


def note_progress(conn: Connection, progress: Mapping[Fence, float]) -> None:
    """Store how far these claims are. A job whose row somebody holds, such as its own transaction, is passed over."""
    wanted = select(jobs.c.id).where(jobs.c.id.in_(known(fence.id for fence in progress))).order_by(jobs.c.id)
    free = set(conn.execute(wanted.with_for_update(key_share=True, skip_locked=True)).scalars())
    reports = [
        {"b_id": f.id, "b_claim_seq": f.claim_seq, "b_reserved_by": f.reserved_by, "b_progress": min(max(p, 0.0), 1.0)}
        for f, p in progress.items()
        if f.id in free
    ]
    if reports:
        conn.execute(_report, reports)


def leave(conn: Connection, worker: str) -> None:
    """Delete the worker's row."""
    conn.execute(delete(workers).where(workers.c.id == worker))


def held(conn: Connection, worker: str) -> list[ClaimedJob | Settlement]:
    """The jobs that this worker holds, by id: sorted here, for PostgreSQL would walk all ids rather than sort a few.

    Those that cannot be read come as the settlements that set them aside.
    """
    query = select(jobs).where(jobs.c.status == literal_column("'processing'"), jobs.c.reserved_by == worker)
    return sorted((claimed_job(row) for row in conn.execute(query)), key=lambda job: job.id)


def reclaim(conn: Connection, limit: int, now: datetime, until: datetime | None) -> Reclaimed:
    """Delete lapsed workers' rows, then take their jobs and the orphans back."""
    if until is not None and now > until:
        return Reclaimed(has_more=True)
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
    rows = _orphans(conn, limit + 1, list(gone))
    has_more = len(rows) > limit or len(gone) >= max(limit, 1)
    if rows := rows[:limit]:
        after = [_taken_back(row, now, counts_crash=not gone.get(row.reserved_by, True)) for row in rows]
        conn.execute(_take_back, after)
        cancelled = Counter(
            (row.queue, "cancelled") for row, new in zip(rows, after, strict=True) if new["b_status"] == "cancelled"
        )
        count(conn, cancelled)
        lost = tuple(_lost(row, new) for row, new in zip(rows, after, strict=True))
    else:
        lost = ()
    return Reclaimed(
        jobs=lost,
        workers=tuple(gone),
        has_more=has_more,
        others_end_in=_others_end_in(conn, now),
    )


def _orphans(conn: Connection, limit: int, first: list[str]) -> list[Found]:
    """Up to `limit` locked jobs whose holder has no row, those of the workers in `first` before all others."""
    found: list[Found] = []
    if first:
        query = _held_by.where(jobs.c.reserved_by.in_(first)).limit(limit).with_for_update(skip_locked=True)
        found += conn.execute(query)
    if len(found) < limit:
        for condition in _without_worker(conn, first):
            query = _held_by.where(*condition).limit(limit - len(found))
            found += conn.execute(query.with_for_update(of=jobs, skip_locked=True))
    if not found:
        return []
    # Between that statement's snapshot and its locks a job may have been taken back by another and lent to a worker
    # that registered only then. Its row is locked now, so a new statement tells for sure.
    holders = {row.reserved_by for row in found if row.reserved_by is not None}
    standing_now = set(conn.execute(select(workers.c.id).where(workers.c.id.in_(holders))).scalars())
    return [row for row in found if row.reserved_by not in standing_now]


def _without_worker(conn: Connection, first: list[str]) -> list[list[ColumnElement[bool]]]:
    """Where the others are whose holder has no row; those without any holder too, though no driver writes that."""
    standing = exists().where(workers.c.id == jobs.c.reserved_by)
    others = jobs.c.reserved_by.not_in(first)
    if is_mysql(conn):  # whose jobs_processing has all that nobody holds
        return [[~standing, jobs.c.reserved_by.is_not(None), others], [is_without_holder()]]
    return [[~standing, or_(jobs.c.reserved_by.is_(None), others)] if first else [~standing]]


def _taken_back(job: Found, now: datetime, *, counts_crash: bool) -> dict[str, object]:
    is_crash = counts_crash and job.reclaims >= SUSPECT_RECLAIMS
    keeps_attempt = is_crash or job.returns >= RETURNS_FREE
    is_cancelled = job.cancel_requested_at is not None
    return {
        "b_id": job.id,
        "b_status": (JobState.CANCELLED if is_cancelled else JobState.PENDING).value,
        "b_attempts": job.attempts if keeps_attempt else job.attempts - 1,
        "b_returns": min(job.returns + 1, COUNT_MAX),
        "b_reclaims": min(job.reclaims + 1, COUNT_MAX),
        "b_crashes": min(job.crashes + is_crash, COUNT_MAX),
        "b_processed_at": now if is_cancelled else None,
    }


def _lost(job: Found, after: dict[str, object]) -> LostJob:
    return LostJob(
        id=job.id,
        queue=job.queue,
        job_name=job.job_name,
        job_class=job.job_class,
        attempts=int(str(after["b_attempts"])),
        state=JobState(str(after["b_status"])),
        reserved_by=job.reserved_by or "",
    )


def _others_end_in(conn: Connection, now: datetime, apart_from: str = "") -> float | None:
    end = conn.execute(select(func.min(workers.c.lease_ends_at)).where(workers.c.id != apart_from)).scalar()
    return None if end is None else (end - now).total_seconds()
