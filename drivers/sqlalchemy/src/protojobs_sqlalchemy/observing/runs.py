"""What workers note of the runs of jobs: counts (rollups), and each attempt.

Notes are written as claims are (`Mode.WORK`): after a power cut the last of them may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from heapq import nlargest
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import ColumnElement, Connection, func, select

from protojobs.errors import OptionInvalid, shown
from protojobs.port.observing import (
    ATTEMPTS_MAX,
    HOUR,
    MINUTE,
    AttemptNote,
    Result,
    Rollup,
    RollupTotal,
    check_notes,
    merged,
)
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.dialect import Dialect, Mode, Use
from protojobs_sqlalchemy.tables.rows import AnyRow, values_of
from protojobs_sqlalchemy.tables.tables import FINGERPRINT_MAX
from protojobs_sqlalchemy.tables.types import is_job_id
from protojobs_sqlalchemy.verbs.settling import storable

__all__ = ["Span", "attempts_of", "record", "rollups", "totals"]

_AT_ONCE = 250  # notes that one step stores: SQLite has one write lock, and claims wait for it

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

    def conditions(self, dialect: Dialect) -> list[ColumnElement[bool]]:
        """In SQL."""
        columns = dialect.tables.rollups.c
        return [columns.period_s == self.period_s, columns.began_at >= self.since, columns.began_at < self.until]


def record(connections: Connections, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
    """Store the worker's rollups in place of those that it sent before, and its attempts."""
    check_notes(rollups, attempts)
    counts, runs = _rollup_rows(worker, rollups), _attempt_rows(attempts)
    for first in range(0, max(len(counts), len(runs)), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        step = partial(_record, dialect=connections.dialect, counts=counts[part], runs=runs[part])
        # It may be done twice: a key that is there is stored over, or left alone.
        connections.run(step, Mode.WORK, use=Use.WORK, is_repeatable=True)


def _rollup_rows(worker: str, rollups: Sequence[Rollup]) -> Rows:
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


def _attempt_rows(notes: Sequence[AttemptNote]) -> Rows:
    for note in notes:
        if not is_job_id(note.job_id):
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


def _record(conn: Connection, dialect: Dialect, counts: Rows, runs: Rows) -> None:
    """Store rollups in place of those of the same keys, and attempts whose keys are not there."""
    if counts:
        replacing = dialect.insert_or_change(dialect.tables.rollups, lambda new: {name: new[name] for name in _COUNTED})
        conn.execute(replacing, counts)
    if runs:
        conn.execute(dialect.insert_unless_there(dialect.tables.attempts), runs)


def rollups(conn: Connection, dialect: Dialect, span: Span, queue: str, job_name: str) -> list[Rollup]:
    """The rows of all workers, queues and jobs together, under the names that were asked for."""
    columns = dialect.tables.rollups.c
    names = [columns.job_name == job_name] if job_name else []
    if queue or not job_name:  # with neither name: what the workers counted of all jobs, under the queue ""
        names.append(columns.queue == queue)
    shown = (columns.began_at, columns.result, columns.count.label("number"), *(columns[name] for name in _COUNTED[1:]))
    query = select(*shown)
    query = query.where(*span.conditions(dialect), *names).order_by(columns.began_at.desc()).limit(_READ_MAX)
    rows = [_rollup(span, row) for row in conn.execute(query) if row.result in _RESULTS]
    return merged(rows, queue=queue, job_name=job_name)


def totals(
    conn: Connection, dialect: Dialect, span: Span, by: Literal["queue", "job_name"], limit: int
) -> list[RollupTotal]:
    """The sums over the span, the name with the most runs first; added up in the database."""
    columns = dialect.tables.rollups.c
    few = select(
        columns[by].label("name"), columns.result, columns.count.label("number"), columns.wait_s, columns.run_s
    )
    few = few.where(*span.conditions(dialect), columns[by] != "").order_by(columns.began_at.desc()).limit(_SUMMED_MAX)
    part = few.subquery()
    sums = [func.sum(part.c[name]).label(name) for name in ("number", "wait_s", "run_s")]
    by_name: dict[str, dict[Result, RollupTotal]] = {}
    for row in conn.execute(select(part.c.name, part.c.result, *sums).group_by(part.c.name, part.c.result)):
        if row.result in _RESULTS:
            by_name.setdefault(row.name, {})[_RESULTS[row.result]] = _total(row)
    most = nlargest(limit, by_name, key=lambda name: sum(total.count for total in by_name[name].values()))
    return [by_name[name][result] for name in most for result in Result if result in by_name[name]]


def attempts_of(conn: Connection, dialect: Dialect, job_id: str) -> list[AttemptNote]:
    """The latest attempts of the job, by claim_seq."""
    if not is_job_id(job_id):
        return []
    attempts = dialect.tables.attempts
    query = select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.claim_seq.desc())
    rows = conn.execute(query.limit(ATTEMPTS_MAX)).fetchall()
    return [_attempt(row) for row in reversed(rows) if row.result in _RESULTS]


def _rollup(span: Span, row: AnyRow) -> Rollup:
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


def _total(row: AnyRow) -> RollupTotal:
    return RollupTotal(
        name=row.name, result=_RESULTS[row.result], count=int(row.number), wait_s=row.wait_s, run_s=row.run_s
    )


def _attempt(row: AnyRow) -> AttemptNote:
    return AttemptNote(**dict(values_of(row), result=_RESULTS[row.result]))
