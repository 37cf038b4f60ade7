"""What people do to jobs: cancel, retry, forget, clear, pause, prune. Bulk verbs work in bounded rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace
from sqlalchemy import Connection, delete, func, literal, select, update

from protojobs.port.lifecycle import FINISHED, JobState
from protojobs.port.records import CancelAnswer, Cleared, Pruned, RetryAnswer
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.dialect import Dialect, Mode, Use
from protojobs_sqlalchemy.postgresql import archive, pruning
from protojobs_sqlalchemy.postgresql.archive import DAY_SHARDS, Old, Place, TurnedOver
from protojobs_sqlalchemy.tables.ids import known
from protojobs_sqlalchemy.tables.rows import Found, state_of
from protojobs_sqlalchemy.tables.tables import counters, failed_jobs, jobs, next_claim_seq, queues
from protojobs_sqlalchemy.verbs.bounds import check_count
from protojobs_sqlalchemy.verbs.conditions import is_finished, is_pending
from protojobs_sqlalchemy.verbs.counting import count, gather
from protojobs_sqlalchemy.verbs.inserting import inserts
from protojobs_sqlalchemy.verbs.settling import storable
from protojobs_sqlalchemy.verbs.steps import Steps

__all__ = ["Administration"]

_RETRIED = {
    "status": "pending",
    "claim_seq": next_claim_seq,
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
_DONE = (JobState.COMPLETED, JobState.CANCELLED)
_lock = select(jobs.c.id, jobs.c.queue, jobs.c.status).order_by(jobs.c.id).with_for_update()


WALKED_MAX = 20_000  # finished jobs of all queues that one call looks at
_WALKS_MAX = 1_000

Walks = dict[tuple[str, JobState], datetime]
"""How far the clearing of a queue has come: when the last job ended that was looked at. Where it is lost, it begins
anew."""


class Administration(Steps):
    """The verbs of `protojobs.port.administration.Administers`, apart from the transfer's."""

    def __init__(self, connections: Connections, dialect: Dialect) -> None:
        super().__init__(connections, dialect)
        self._walks: Walks = {}
        self._floors = pruning.Floors()

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        """Cancel pending jobs at once, mark processing ones; answers in order."""
        check_count(ids)
        return self._run_at(lambda conn, now: cancel(conn, ids, reason, now), Mode.STORE)

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        """Requeue by failed_jobs id; answers in order."""
        check_count(ids)
        answers, woken = self._run_at(lambda conn, now: retry_failed(conn, ids, now), Mode.STORE)
        self._dialect.ring(woken)
        return answers

    def forget_failed(self, ids: Sequence[str]) -> int:
        """Delete failed jobs by failed_jobs id; answers how many there were."""
        check_count(ids)
        return self._run(lambda conn: forget_failed(conn, ids), Mode.STORE)

    def clear(self, queue: str, *, limit: int = 1_000) -> Cleared:
        """Remove up to `limit` pending and finished jobs of the queue."""
        walks = dict(self._walks)
        cleared = self._run(lambda conn: clear(conn, queue, limit, walks), Mode.STORE)
        self._walks = walks if len(walks) <= _WALKS_MAX else {}
        return cleared

    def pause(self, queue: str) -> bool:
        """From the next claim on the queue lends nothing. False: it was paused already."""
        return self._run_at(lambda conn, now: pause(conn, queue, now), Mode.STORE)

    def resume(self, queue: str) -> bool:
        """Undo `pause`. False: it was not paused."""
        was_paused = self._run(lambda conn: resume(conn, queue), Mode.STORE)
        self._dialect.ring([queue])
        return was_paused

    def prune(
        self,
        *,
        completed_older_than: float | None = None,
        failed_older_than: float | None = None,
        limit: int = 1_000,
    ) -> Pruned:
        """Delete up to `limit` finished jobs older than so many seconds; and whole days of an archive at once."""
        ages = [(_DONE, completed_older_than), ((JobState.FAILED,), failed_older_than)]
        has_archive = self._run(self._dialect.has_archive, Mode.SINGLE, use=Use.WORK)
        days = self._turn_over(completed_older_than) if has_archive else TurnedOver()
        pruned = self._run_at(
            lambda conn, now: prune(conn, ages, limit=limit, now=now, floors=self._floors), Mode.STORE, use=Use.WORK
        )
        if not has_archive or completed_older_than is None or pruned.has_more:
            return replace(pruned, completed=pruned.completed + days.dropped)
        old = Old(completed_older_than, is_denied=bool(days.denied))
        gone, has_more = self._run_at(
            lambda conn, now: archive.prune(conn, old, now, limit - pruned.total), Mode.STORE, use=Use.WORK
        )
        return replace(pruned, completed=pruned.completed + days.dropped + gone, has_more=has_more)

    def _turn_over(self, age: float | None) -> TurnedOver:
        def step(conn: Connection, now: datetime) -> TurnedOver:
            ended_by = None if age is None else now - timedelta(seconds=age)
            return archive.turn_over(conn, now, ended_by=ended_by, makes=self._dialect.archives)

        return self._run_at(step, Mode.STORE, use=Use.WORK)


def cancel(conn: Connection, ids: Sequence[str], reason: str, now: datetime) -> list[CancelAnswer]:
    """Cancel pending jobs, mark processing ones; answers in order."""
    rows = _locked(conn, ids)
    pending = [row.id for row in rows.values() if state_of(row.status) in (JobState.PENDING, JobState.UNREADABLE)]
    processing = [row.id for row in rows.values() if row.status == JobState.PROCESSING]
    why = {"reason": storable(reason)} if reason else {}
    if pending:
        conn.execute(update(jobs).where(jobs.c.id.in_(pending)).values(status="cancelled", processed_at=now, **why))
        count(conn, Counter((rows[job_id].queue, "cancelled") for job_id in pending))
    if processing:  # its worker decides; the mark outlives it
        first = func.coalesce(jobs.c.cancel_requested_at, literal(now, jobs.c.cancel_requested_at.type))
        conn.execute(update(jobs).where(jobs.c.id.in_(processing)).values(cancel_requested_at=first, **why))
    archived = archive.archived(conn, [job_id for job_id in ids if job_id not in rows])
    answers = dict.fromkeys([*rows, *archived], CancelAnswer.FINISHED)
    answers |= dict.fromkeys(pending, CancelAnswer.CANCELLED) | dict.fromkeys(processing, CancelAnswer.REQUESTED)
    given: list[CancelAnswer] = []
    for job_id in ids:
        given.append(answers.get(job_id, CancelAnswer.MISSING))
        if given[-1] is CancelAnswer.CANCELLED:
            answers[job_id] = CancelAnswer.FINISHED  # asked twice in one call
    return given


def retry_failed(conn: Connection, ids: Sequence[str], now: datetime) -> tuple[list[RetryAnswer], set[str]]:
    """Requeue by failed_jobs id; answers in order, and the queues that got a job."""
    failures = _failures(conn, ids)
    rows = {failed_id: row for failed_id, row in failures.items() if row.status == JobState.FAILED}
    if rows:
        chosen = [row.id for row in rows.values()]
        conn.execute(delete(failed_jobs).where(failed_jobs.c.id.in_(rows)))
        conn.execute(update(jobs).where(jobs.c.id.in_(chosen)).values(_RETRIED).values(available_at=now))
        count(conn, {key: -n for key, n in Counter((row.queue, "failed") for row in rows.values()).items()})
    answers: list[RetryAnswer] = []
    for place, failed_id in enumerate(ids):
        if failed_id not in failures or (failed_id in rows and failed_id in ids[:place]):
            answers.append(RetryAnswer.MISSING)  # asked twice in one call: the second time its row is gone
        else:
            answers.append(RetryAnswer.REQUEUED if failed_id in rows else RetryAnswer.CONFLICT)
    return answers, {row.queue for row in rows.values()}


def forget_failed(conn: Connection, ids: Sequence[str]) -> int:
    """Delete failed jobs and their failed_jobs rows, by failed_jobs id."""
    rows = [row for row in _failures(conn, ids).values() if row.status == JobState.FAILED]
    _delete(conn, rows)
    return len(rows)


def _failures(conn: Connection, ids: Sequence[str]) -> dict[str, Found]:
    """The jobs of these failures, locked, by failed_jobs id."""
    wanted = known(ids)
    if not wanted:
        return {}
    query = select(failed_jobs.c.id, failed_jobs.c.job_id).where(failed_jobs.c.id.in_(wanted))
    named = {row.id: row.job_id for row in conn.execute(query)}
    locked = _locked(conn, list(named.values()))
    # Read again under the jobs' locks: another may have retried one of them since.
    still = set(conn.execute(query.with_for_update()).scalars()) if locked else set[str]()
    return {failed_id: locked[job_id] for failed_id, job_id in named.items() if failed_id in still and job_id in locked}


def clear(conn: Connection, queue: str, limit: int, walks: Walks) -> Cleared:
    """Delete pending and finished jobs of the queue."""
    pending = _lock.where(*is_pending(conn, queue)).order_by(None).limit(limit + 1)
    rows = list(conn.execute(pending.with_for_update(skip_locked=True)))
    has_more = len(rows) > limit
    rows = rows[:limit]
    for state, number in _finished(conn, queue).items():
        more, is_over = _removable(conn, queue, state, limit - len(rows), number, walks)
        rows += more
        has_more |= not is_over
    _delete(conn, rows)
    totals = Counter(str(row.status) for row in rows)
    if not has_more and archive.holds(conn, queue):
        gone, has_more = archive.remove(conn, Place("queue = :queue"), {"queue": queue}, limit - len(rows))
        totals["completed"] += gone
    return Cleared(has_more=has_more, **totals)


def _finished(conn: Connection, queue: str) -> dict[JobState, int]:
    """How many finished jobs of each kind the queue has, by the counters, apart from archived ones."""
    total = func.sum(counters.c.count)
    query = select(counters.c.status, total).where(
        counters.c.queue == queue, counters.c.status.in_(sorted(FINISHED)), counters.c.shard < DAY_SHARDS
    )
    found = conn.execute(query.group_by(counters.c.status).having(total > 0))
    return {JobState(status): int(number) for status, number in found}


def _removable(
    conn: Connection, queue: str, state: JobState, room: int, number: int, walks: Walks
) -> tuple[list[Found], bool]:
    """Up to `room` locked jobs of the queue in that finished state, and whether that were all."""
    if room <= 0:
        return [], False
    key, end = (queue, state), None
    if state is JobState.FAILED:
        of_queue = select(failed_jobs.c.job_id).where(failed_jobs.c.queue == queue)
    else:
        # jobs_finished knows no queues, so those of all queues are looked at, span by span, each call from where the
        # last one has ended: the whole at once took minutes where another queue has ten millions.
        span = is_finished(conn, state)
        if key in walks:
            span.append(jobs.c.processed_at > walks[key])
        of_all = select(jobs.c.processed_at).where(*span).order_by(jobs.c.processed_at)
        end = conn.execute(of_all.offset(WALKED_MAX - 1).limit(1)).scalar()
        if end is not None:
            span.append(jobs.c.processed_at <= end)
        of_queue = select(jobs.c.id).where(*span, jobs.c.queue == queue).order_by(jobs.c.processed_at)
    ids = conn.execute(of_queue.limit(room + 1)).scalars().all()
    still = _lock.where(jobs.c.id.in_(ids[:room]), jobs.c.queue == queue, jobs.c.status == state.value)
    rows = list(conn.execute(still.with_for_update(skip_locked=True)))
    if len(ids) > room:
        return rows, False
    is_over = end is None or len(rows) >= number
    if is_over or end is None:
        walks.pop(key, None)
    else:
        walks[key] = end
    return rows, is_over


def pause(conn: Connection, queue: str, now: datetime) -> bool:
    """False: it was paused already."""
    if inserts(conn, queues, {"name": queue, "paused_at": now}):
        return True
    stopped = update(queues).where(queues.c.name == queue, queues.c.paused_at.is_(None)).values(paused_at=now)
    return conn.execute(stopped).rowcount > 0


def resume(conn: Connection, queue: str) -> bool:
    """False: it was not paused."""
    return conn.execute(delete(queues).where(queues.c.name == queue)).rowcount > 0


def prune(
    conn: Connection,
    ages: Sequence[tuple[Sequence[JobState], float | None]],
    *,
    limit: int,
    now: datetime,
    floors: pruning.Floors,
) -> Pruned:
    """Delete finished jobs; `ages` says for which states and from which age in seconds on (None: not these)."""
    is_postgresql = conn.dialect.name == "postgresql"
    if is_postgresql:
        pruned = pruning.prune(conn, ages, limit=limit, now=now, floors=floors)
    else:
        pruned = _prune(conn, ages, limit=limit, now=now)
    if not pruned.has_more:
        gather(conn)
    return pruned


def _prune(
    conn: Connection, ages: Sequence[tuple[Sequence[JobState], float | None]], *, limit: int, now: datetime
) -> Pruned:
    rows: list[Found] = []
    for states, age in ages:
        for state in states if age is not None else ():
            if len(rows) > limit:
                break
            old = jobs.c.processed_at < now - timedelta(seconds=age or 0.0)
            query = _lock.where(*is_finished(conn, state), old).limit(limit + 1 - len(rows))
            query = query.order_by(None).order_by(jobs.c.processed_at).with_for_update(skip_locked=True)
            rows += conn.execute(query)
    _delete(conn, rows[:limit])
    return Pruned(has_more=len(rows) > limit, **Counter(str(row.status) for row in rows[:limit]))


def _locked(conn: Connection, ids: Sequence[str]) -> dict[str, Found]:
    wanted = known(ids)
    return {row.id: row for row in conn.execute(_lock.where(jobs.c.id.in_(wanted)))} if wanted else {}


def _delete(conn: Connection, rows: Sequence[Found]) -> None:
    """Delete these locked jobs, their failed_jobs rows, and their share of the counters."""
    if not rows:
        return
    failed = [row.id for row in rows if row.status == JobState.FAILED]
    if failed:
        conn.execute(delete(failed_jobs).where(failed_jobs.c.job_id.in_(failed)))
    conn.execute(delete(jobs).where(jobs.c.id.in_([row.id for row in rows])))
    finished = Counter((row.queue, row.status) for row in rows if row.status in FINISHED)
    count(conn, {key: -number for key, number in finished.items()})
