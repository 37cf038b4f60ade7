"""Rollups and attempts: what workers note of the runs of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from heapq import nlargest
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import ColumnElement, Connection, Insert, func, select

from protojobs.errors import OptionInvalid, shown
from protojobs.observing import ATTEMPTS_MAX, HOUR, MINUTE, AttemptNote, Result, Rollup, RollupTotal, merged
from protojobs_sqlalchemy.conditions import is_mysql
from protojobs_sqlalchemy.ids import canonical
from protojobs_sqlalchemy.rows import Found
from protojobs_sqlalchemy.settling import storable
from protojobs_sqlalchemy.tables import FINGERPRINT_MAX, attempts
from protojobs_sqlalchemy.tables import rollups as rollups_table
from protojobs_sqlalchemy.upserts import insert_or_change, insert_unless_there

__all__ = ["Span", "attempt_rows", "attempts_of", "record", "rollup_rows", "rollups", "totals"]

_READ_MAX = 50_000  # rows whose histograms are added up
_SUMMED_MAX = 500_000  # rows whose counts the database adds up

_RESULTS = {result.value: result for result in Result}
_COUNTED = ("count", "wait_s", "run_s", "waits", "runs")
_histogram = msgspec.json.Decoder(dict[int, int])

Rows = Sequence[Mapping[str, object]]


class Span(Struct, frozen=True):
    """Which rollups: those of the period that began in [since, until)."""

    period_s: int
    since: datetime
    until: datetime

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """In SQL."""
        columns = rollups_table.c
        return [columns.period_s == self.period_s, columns.began_at >= self.since, columns.began_at < self.until]


def rollup_rows(worker: str, rollups: Sequence[Rollup]) -> Rows:
    """The rows of a worker's rollups."""
    for rollup in rollups:
        if rollup.period_s not in (MINUTE, HOUR):
            raise OptionInvalid(f"A rollup of {rollup.period_s} s cannot be kept.", mend="Count by MINUTE or by HOUR.")
    return [
        asdict(rollup)
        | {
            "worker": worker,
            "result": rollup.result.value,
            "waits": msgspec.json.encode(rollup.waits).decode(),
            "runs": msgspec.json.encode(rollup.runs).decode(),
        }
        for rollup in rollups
    ]


def attempt_rows(notes: Sequence[AttemptNote]) -> Rows:
    """The rows of attempts."""
    for note in notes:
        if not canonical(note.job_id):
            raise OptionInvalid(f"{shown(note.job_id, 60)} is not the id of a job.", mend="Give the one of the claim.")
    return [
        asdict(note)
        | {
            "result": note.result.value,
            "error": storable(note.error),
            "fingerprint": storable(note.fingerprint)[:FINGERPRINT_MAX],
        }
        for note in notes
    ]


def record(conn: Connection, counts: Rows, runs: Rows) -> None:
    """Store rollups in place of those of the same keys, and attempts whose keys are not there."""
    if counts:
        conn.execute(_replacing(conn), counts)
    if runs:
        conn.execute(_keeping(conn), runs)


def rollups(conn: Connection, span: Span, queue: str, job_name: str) -> list[Rollup]:
    """The rows of all workers, queues and jobs together, under the names that were asked for."""
    columns = rollups_table.c
    names = [columns.job_name == job_name] if job_name else []
    if queue or not job_name:  # with neither name: what the workers counted of all jobs, under the queue ""
        names.append(columns.queue == queue)
    shown = (columns.began_at, columns.result, columns.count.label("number"), *(columns[name] for name in _COUNTED[1:]))
    query = select(*shown)
    query = query.where(*span.conditions, *names).order_by(columns.began_at.desc()).limit(_READ_MAX)
    rows = [_rollup(span, row) for row in conn.execute(query) if row.result in _RESULTS]
    return merged(rows, queue=queue, job_name=job_name)


def totals(conn: Connection, span: Span, by: Literal["queue", "job_name"], limit: int) -> list[RollupTotal]:
    """The sums over the span, the name with the most runs first; added up in the database."""
    columns = rollups_table.c
    few = select(
        columns[by].label("name"), columns.result, columns.count.label("number"), columns.wait_s, columns.run_s
    )
    few = few.where(*span.conditions, columns[by] != "").order_by(columns.began_at.desc()).limit(_SUMMED_MAX)
    part = few.subquery()
    sums = [func.sum(part.c[name]).label(name) for name in ("number", "wait_s", "run_s")]
    found: dict[str, dict[Result, RollupTotal]] = {}
    for row in conn.execute(select(part.c.name, part.c.result, *sums).group_by(part.c.name, part.c.result)):
        if row.result in _RESULTS:
            found.setdefault(row.name, {})[_RESULTS[row.result]] = _total(row)
    most = nlargest(limit, found, key=lambda name: sum(total.count for total in found[name].values()))
    return [found[name][result] for name in most for result in Result if result in found[name]]


def attempts_of(conn: Connection, job_id: str) -> list[AttemptNote]:
    """The latest attempts of the job, by claim_seq."""
    if not canonical(job_id):
        return []
    query = select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.claim_seq.desc())
    rows = conn.execute(query.limit(ATTEMPTS_MAX)).fetchall()
    return [_attempt(row) for row in reversed(rows) if row.result in _RESULTS]


def _replacing(conn: Connection) -> Insert:
    return insert_or_change(conn, rollups_table, lambda new: {name: new[name] for name in _COUNTED})


def _keeping(conn: Connection) -> Insert:
    if is_mysql(conn):  # not IGNORE, which would cut what is too long
        return insert_or_change(conn, attempts, lambda _new: {"attempt": attempts.c.attempt})
    return insert_unless_there(conn, attempts)


def _rollup(span: Span, row: Found) -> Rollup:
    return Rollup(
        period_s=span.period_s,
        began_at=row.began_at,
        queue="",
        job_name="",
        result=_RESULTS[row.result],
        count=row.number,
        wait_s=row.wait_s,
        run_s=row.run_s,
        waits=_counts(row.waits),
        runs=_counts(row.runs),
    )


def _counts(text: str) -> dict[int, int]:
    """A histogram; an empty one where the store's is damaged: a chart lacks a point then, and shows the others."""
    try:
        return _histogram.decode(text)
    except msgspec.MsgspecError:
        return {}


def _total(row: Found) -> RollupTotal:
    return RollupTotal(
        name=row.name, result=_RESULTS[row.result], count=int(row.number), wait_s=row.wait_s, run_s=row.run_s
    )


def _attempt(row: Found) -> AttemptNote:
    values: dict[str, Any] = {name: getattr(row, name) for name in attempts.c.keys()}
    values["result"] = _RESULTS[row.result]
    return AttemptNote(**values)
