"""What each settlement does to a job's row, by the port's rules. The databases have a shorter way for completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Connection, FromClause, Select, bindparam, insert, select, update

from protojobs.entropy import fresh_id
from protojobs.port import rules
from protojobs.port.lifecycle import FINISHED, JobState, Verb
from protojobs.port.records import Settled, Settlement, SettleStatus
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.tables.rows import AnyRow, state_of
from protojobs_sqlalchemy.tables.tables import COUNT_MAX, FINGERPRINT_MAX, STORES_MAX, Tables
from protojobs_sqlalchemy.verbs.counting import count

__all__ = ["are_plain", "in_rounds", "settle", "settle_unmatched", "split", "storable", "write_each"]

_COMPLETE = Verb.COMPLETE  # an enum's members are slow to find
_COLUMNS = ("status", "attempts", "returns", "crashes", "available_at", "processed_at", "reserved_at", "reason")

_COPIED = ("queue", "job_class", "job_name", "data", "attempts")
_READ = (
    *("id", "queue", "status", "claim_seq", "reserved_by", "reserved_at", "attempts", "returns", "crashes"),
    *("available_at", "cancel_requested_at", "reason"),
)


def _read(table: FromClause) -> Select[*tuple[Any, ...]]:
    return select(*[table.c[name] for name in _READ])


class _Statements:
    """For the tables of one store."""

    def __init__(self, tables: Tables) -> None:
        jobs, failed_jobs = tables.jobs, tables.failed_jobs
        self.lock = _read(jobs).order_by(jobs.c.id).with_for_update()
        self.write = (
            update(jobs)
            .where(jobs.c.id == bindparam("b_id"))
            .values({name: bindparam(f"b_{name}", type_=jobs.c[name].type) for name in _COLUMNS})
            .values(reserved_by=None)
        )
        self.keep_result = (
            update(jobs)
            .where(jobs.c.id == bindparam("b_id"))
            .values(result=bindparam("b_result", type_=jobs.c.result.type))
        )
        own = {
            "id": "b_failed_id",
            "exception": "b_exception",
            "fingerprint": "b_fingerprint",
            "failed_at": "b_failed_at",
        }
        copied = {"job_id": jobs.c.id} | {name: jobs.c[name] for name in _COPIED}
        values = {name: bindparam(key, type_=failed_jobs.c[name].type) for name, key in own.items()} | copied
        found = select(*values.values()).where(jobs.c.id == bindparam("b_id"))
        self.give_up = insert(failed_jobs).from_select(list(values), found)


_statements = lru_cache(maxsize=STORES_MAX)(_Statements)


def are_plain(settlements: Sequence[Settlement]) -> bool:
    """Whether all of them are completions of different jobs that carry nothing: the usual case."""
    ids = {s.id for s in settlements if s.verb is _COMPLETE and s.result is None and not s.then}
    return len(ids) == len(settlements)


def split(settlements: Sequence[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
    """The completions that carry nothing, which are many and alike, and the others."""
    plain = [s for s in settlements if s.verb is _COMPLETE and s.result is None and not s.then]
    return plain, [s for s in settlements if s.verb is not _COMPLETE or rules.carries(s)]


def in_rounds(
    settlements: Sequence[Settlement], settle_round: Callable[[Sequence[Settlement]], list[Settled]]
) -> list[Settled]:
    """Settle so that no round holds one job twice, and reply in the order that was asked.

    The second settlement of a job is judged by what the first one left.
    """
    if len({s.id for s in settlements}) == len(settlements):
        return settle_round(settlements) if settlements else []
    replies: list[Settled | None] = [None] * len(settlements)
    waiting = list(enumerate(settlements))
    while waiting:
        seen: set[str] = set()
        now: list[tuple[int, Settlement]] = []
        later: list[tuple[int, Settlement]] = []
        for position, settlement in waiting:
            (later if settlement.id in seen else now).append((position, settlement))
            seen.add(settlement.id)
        for (position, _), reply in zip(now, settle_round([s for _, s in now]), strict=True):
            replies[position] = reply
        waiting = later
    return [reply for reply in replies if reply is not None]


def settle(
    conn: Connection, dialect: Dialect, settlements: Sequence[Settlement], now: datetime, shard: int
) -> list[Settled]:
    """Settle jobs of one round, of any verb, inside the step's transaction."""
    ids = [s.id for s in settlements if dialect.holds_id(s.id)]
    lock, jobs = _statements(dialect.tables).lock, dialect.tables.jobs
    rows = {row.id: row for row in conn.execute(lock.where(jobs.c.id.in_(ids)))} if ids else {}
    current = [s for s in settlements if (row := rows.get(s.id)) and _is_current(row, s)]
    applied: dict[str, Settled] = {}
    if current:
        after = {s.id: _values_after(rows[s.id], s, now) for s in current}
        failures = [_failure(s, now) for s in current if after[s.id]["status"] == JobState.FAILED]
        dialect.write_settled(conn, list(after.values()), failures)
        _keep_carried(conn, dialect, [s for s in current if rules.carries(s)])
        states = {i: JobState(str(values["status"])) for i, values in after.items()}
        if archived := _to_be_archived(dialect, rows, states):
            dialect.archive.move(conn, archived, now, shard)
        counted = [i for i, state in states.items() if state in FINISHED and i not in archived]
        count(conn, dialect, Counter((rows[i].queue, states[i].value) for i in counted), shard)
        applied = {
            i: Settled(id=i, status=SettleStatus.APPLIED, state=state, available_at=_due_at(after[i]))
            for i, state in states.items()
        }
    unmatched = settle_unmatched(conn, dialect, [s for s in settlements if s.id not in rows])
    return [applied.get(s.id) or unmatched.get(s.id) or _unmatched(rows.get(s.id), s) for s in settlements]


def _keep_carried(conn: Connection, dialect: Dialect, carrying: Sequence[Settlement]) -> None:
    """Store the results of completed jobs that this step holds, and what comes next. The driver wakes who waits."""
    if results := [{"b_id": s.id, "b_result": s.result} for s in carrying if s.result is not None]:
        conn.execute(_statements(dialect.tables).keep_result, results)
    if jobs := [job for s in carrying for job in s.then]:
        dialect.enqueue(conn, jobs)


def _to_be_archived(dialect: Dialect, rows: dict[str, AnyRow], states: dict[str, JobState]) -> dict[str, str]:
    """The completed jobs that go into the archive, each with its queue."""
    if not dialect.archive.takes_completed:
        return {}
    return {i: rows[i].queue for i, state in states.items() if state is JobState.COMPLETED}


def _values_after(job: AnyRow, s: Settlement, now: datetime) -> dict[str, object]:
    """The row's new values. `now` is the store's, so that delays count from its clock."""
    state, counts, reason = rules.after_settling(cast(rules.Counted, job), s)
    is_pending = state is JobState.PENDING
    return {
        **{name: min(number, COUNT_MAX) for name, number in counts.items()},
        "id": s.id,
        "status": state.value,
        "available_at": (s.available_at or now + timedelta(seconds=s.delay)) if is_pending else job.available_at,
        "processed_at": None if is_pending else now,
        "reserved_at": None if is_pending else job.reserved_at,
        "reason": reason if reason is job.reason or reason is None else storable(reason),
    }


def settle_unmatched(conn: Connection, dialect: Dialect, settlements: Sequence[Settlement]) -> dict[str, Settled]:
    """Read the jobs of settlements that did not match, in a statement of its own, and say `repeated` or `stale`."""
    ids = [s.id for s in settlements if dialect.holds_id(s.id)]
    table = dialect.archive.all_jobs
    rows = {row.id: row for row in conn.execute(_read(table).where(table.c.id.in_(ids)))} if ids else {}
    return {s.id: _unmatched(rows.get(s.id), s) for s in settlements}


def write_each(
    conn: Connection,
    dialect: Dialect,
    settled: Sequence[Mapping[str, object]],
    failures: Sequence[Mapping[str, object]],
) -> None:
    """Write the new values of locked jobs, and a failure beside each that has failed for good; row by row."""
    sql = _statements(dialect.tables)
    conn.execute(sql.write, [{f"b_{name}": value for name, value in values.items()} for values in settled])
    if failures:
        conn.execute(sql.give_up, [{f"b_{name}": value for name, value in values.items()} for values in failures])


def _failure(s: Settlement, now: datetime) -> dict[str, object]:
    return {
        "id": s.id,
        "failed_id": fresh_id(),
        "exception": storable(s.error),
        "fingerprint": storable(s.fingerprint)[:FINGERPRINT_MAX],
        "failed_at": now,
    }


def storable(text: str) -> str:
    """`text` without what some database cannot keep: NUL characters and halves of surrogate pairs."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _is_current(job: AnyRow, s: Settlement) -> bool:
    return bool(job.status == JobState.PROCESSING and job.claim_seq == s.claim_seq and job.reserved_by == s.reserved_by)


def _unmatched(job: AnyRow | None, s: Settlement) -> Settled:
    if job is None:
        return Settled(id=s.id, status=SettleStatus.STALE)
    is_repeated = job.claim_seq == s.claim_seq and not job.reserved_by
    return Settled(
        id=s.id,
        status=SettleStatus.REPEATED if is_repeated else SettleStatus.STALE,
        state=state_of(job.status),
        available_at=job.available_at,
    )


def _due_at(values: dict[str, object]) -> datetime | None:
    moment = values["available_at"]
    return moment.astimezone(UTC) if isinstance(moment, datetime) else None
