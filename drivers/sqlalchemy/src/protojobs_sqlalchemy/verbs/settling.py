"""What each settlement does to a job's row. The rules stand here once; the dialects have a short cut for `complete`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, FromClause, Select, bindparam, insert, select, update

from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import FINISHED, RETURNS_FREE, JobState, Verb
from protojobs.port.records import Settled, Settlement, SettleStatus
from protojobs_sqlalchemy.postgresql.archive import day_shard, move, whole
from protojobs_sqlalchemy.tables.ids import fits
from protojobs_sqlalchemy.tables.rows import Found, state_of
from protojobs_sqlalchemy.tables.tables import COUNT_MAX, FINGERPRINT_MAX, failed_jobs, jobs
from protojobs_sqlalchemy.verbs.counting import count

__all__ = ["answer_unmatched", "apply", "in_rounds", "split", "storable"]

_NEXT_STATE = {
    Verb.COMPLETE: JobState.COMPLETED,
    Verb.RETRY: JobState.PENDING,
    Verb.FAIL: JobState.FAILED,
    Verb.SNOOZE: JobState.PENDING,
    Verb.RELEASE: JobState.PENDING,
    Verb.CANCEL: JobState.CANCELLED,
}
_COMPLETE = Verb.COMPLETE  # an enum's members are slow to find
_COLUMNS = ("status", "attempts", "returns", "crashes", "available_at", "processed_at", "reserved_at", "reason")

_READ = (
    *("id", "queue", "status", "claim_seq", "reserved_by", "reserved_at", "attempts", "returns", "crashes"),
    *("available_at", "cancel_requested_at", "reason"),
)


def _read(table: FromClause) -> Select[*tuple[Any, ...]]:
    return select(*[table.c[name] for name in _READ])


_lock = _read(jobs).order_by(jobs.c.id).with_for_update()
_write = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values({name: bindparam(f"b_{name}", type_=jobs.c[name].type) for name in _COLUMNS} | {"reserved_by": None})
)
_give_up = insert(failed_jobs).from_select(
    ["id", "job_id", "queue", "job_class", "job_name", "data", "attempts", "exception", "fingerprint", "failed_at"],
    select(
        bindparam("b_failed_id", type_=failed_jobs.c.id.type),
        jobs.c.id,
        jobs.c.queue,
        jobs.c.job_class,
        jobs.c.job_name,
        jobs.c.data,
        jobs.c.attempts,
        bindparam("b_exception", type_=failed_jobs.c.exception.type),
        bindparam("b_fingerprint", type_=failed_jobs.c.fingerprint.type),
        bindparam("b_failed_at", type_=failed_jobs.c.failed_at.type),
    ).where(jobs.c.id == bindparam("b_id")),
)


def split(settlements: Sequence[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
    """The plain completions, which are many and alike, and the others."""
    plain = [s for s in settlements if s.verb is _COMPLETE]
    return plain, [s for s in settlements if s.verb is not _COMPLETE] if len(plain) < len(settlements) else []


def in_rounds(
    settlements: Sequence[Settlement], settle: Callable[[Sequence[Settlement]], list[Settled]]
) -> list[Settled]:
    """Settle so that no round holds one job twice, and answer in the order that was asked.

    The second settlement of a job is judged by what the first one left.
    """
    if not settlements:
        return []
    if len({s.id for s in settlements}) == len(settlements):
        return settle(settlements)
    answers: list[Settled | None] = [None] * len(settlements)
    waiting = list(enumerate(settlements))
    while waiting:
        seen: set[str] = set()
        now: list[tuple[int, Settlement]] = []
        later: list[tuple[int, Settlement]] = []
        for place, settlement in waiting:
            (later if settlement.id in seen else now).append((place, settlement))
            seen.add(settlement.id)
        for (place, _), answer in zip(now, settle([s for _, s in now]), strict=True):
            answers[place] = answer
        waiting = later
    return [answer for answer in answers if answer is not None]


def apply(
    conn: Connection, settlements: Sequence[Settlement], now: datetime, shard: int, *, archives: bool = False
) -> list[Settled]:
    """Settle jobs of one round, of any verb, inside the step's transaction."""
    ids = [s.id for s in settlements if fits(conn, s.id)]
    rows = {row.id: row for row in conn.execute(_lock.where(jobs.c.id.in_(ids)))} if ids else {}
    current = [s for s in settlements if (row := rows.get(s.id)) and _is_current(row, s)]
    if current:
        after = {s.id: decided(rows[s.id], s, now) for s in current}
        conn.execute(_write, [{f"b_{name}": value for name, value in values.items()} for values in after.values()])
        failures = [_failure(s, now) for s in current if after[s.id]["status"] == JobState.FAILED]
        if failures:
            conn.execute(_give_up, failures)
        completed = {i for i, values in after.items() if archives and values["status"] == JobState.COMPLETED}
        if completed:
            move(conn, completed)
            count(conn, Counter((rows[i].queue, "completed") for i in completed), day_shard(now) + shard)
        finished = [i for i, values in after.items() if values["status"] in FINISHED and i not in completed]
        count(conn, Counter((rows[i].queue, str(after[i]["status"])) for i in finished), shard)
        applied = {
            i: Settled(id=i, status=SettleStatus.APPLIED, state=JobState(str(v["status"])), available_at=_moment(v))
            for i, v in after.items()
        }
    else:
        applied = {}
    gone = answer_unmatched(conn, [s for s in settlements if s.id not in rows])
    return [applied.get(s.id) or gone.get(s.id) or _unmatched(rows.get(s.id), s) for s in settlements]


def decided(job: Found, s: Settlement, now: datetime) -> dict[str, object]:
    """The row's new values. `now` is the store's, so that delays count from its clock."""
    state = _NEXT_STATE[s.verb]
    if job.cancel_requested_at is not None and s.verb is not Verb.COMPLETE:
        state = JobState.CANCELLED  # the person's wish outlives the run
    counts_return = s.verb is Verb.RELEASE and s.counts_return
    is_given_back = s.verb is Verb.SNOOZE or (
        s.verb is Verb.RELEASE and not (counts_return and job.returns >= RETURNS_FREE)
    )
    due = s.available_at or now + timedelta(seconds=s.delay)
    return {
        "id": s.id,
        "status": state.value,
        "attempts": job.attempts - is_given_back,
        "returns": min(job.returns + counts_return, COUNT_MAX),
        "crashes": min(job.crashes + s.counts_crash, COUNT_MAX),
        "available_at": due if state is JobState.PENDING else job.available_at,
        "processed_at": None if state is JobState.PENDING else now,
        "reserved_at": None if state is JobState.PENDING else job.reserved_at,
        "reason": _reason(job, s),
    }


def answer_unmatched(conn: Connection, settlements: Sequence[Settlement]) -> dict[str, Settled]:
    """Read the jobs of settlements that did not match, in a statement of its own, and say `repeated` or `stale`."""
    ids = [s.id for s in settlements if fits(conn, s.id)]
    table = whole(conn)
    rows = {row.id: row for row in conn.execute(_read(table).where(table.c.id.in_(ids)))} if ids else {}
    return {s.id: _unmatched(rows.get(s.id), s) for s in settlements}


def _failure(s: Settlement, now: datetime) -> dict[str, object]:
    return {
        "b_id": s.id,
        "b_failed_id": fresh_id(),
        "b_exception": storable(s.error),
        "b_fingerprint": storable(s.fingerprint)[:FINGERPRINT_MAX],
        "b_failed_at": now,
    }


def storable(text: str) -> str:
    """`text` without what some database cannot keep: NUL characters and halves of surrogate pairs."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _is_current(job: Found, s: Settlement) -> bool:
    return bool(job.status == JobState.PROCESSING and job.claim_seq == s.claim_seq and job.reserved_by == s.reserved_by)


def _unmatched(job: Found | None, s: Settlement) -> Settled:
    if job is None:
        return Settled(id=s.id, status=SettleStatus.STALE)
    is_repeated = job.claim_seq == s.claim_seq and not job.reserved_by
    return Settled(
        id=s.id,
        status=SettleStatus.REPEATED if is_repeated else SettleStatus.STALE,
        state=state_of(job.status),
        available_at=job.available_at,
    )


def _reason(job: Found, s: Settlement) -> str | None:
    """A person's reason stays; else the settlement's, where it has one."""
    return job.reason if job.cancel_requested_at is not None or not s.reason else storable(s.reason)


def _moment(values: dict[str, object]) -> datetime | None:
    moment = values["available_at"]
    return moment.astimezone(UTC) if isinstance(moment, datetime) else None
