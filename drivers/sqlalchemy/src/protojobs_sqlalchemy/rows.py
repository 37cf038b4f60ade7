"""From rows to the records of the port."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, convert
from sqlalchemy import ColumnElement, Connection, FromClause, Row, Text, cast, func

from protojobs.lifecycle import STORED, JobState
from protojobs.records import ClaimedJob, FailedJob, Fence, JobRecord, Settlement
from protojobs.unreadable import read, set_aside, why_unreadable
from protojobs_sqlalchemy.types import stored_value

__all__ = ["Found", "claimed_job", "failed_job", "job_record", "shown", "state_of"]

_STATES = frozenset(state.value for state in STORED)

Found = Row[*tuple[Any, ...]]


def shown(conn: Connection, table: FromClause, chars_max: int | None) -> list[ColumnElement[Any]]:
    """The table's columns; with a bound, no more than so many of its long texts' characters leave the database.

    Of `data` the first, of `exception` the last.
    """
    columns: dict[str, ColumnElement[Any]] = dict(table.c.items())
    if chars_max is not None:
        is_sqlite = conn.dialect.name == "sqlite"
        data = cast(table.c.data, Text) if is_sqlite else table.c.data  # of bytes not so many bytes, but characters
        columns["data"] = func.substr(data, 1, chars_max).label("data")
        if "exception" in columns:
            text = table.c.exception
            end = func.substr(text, -chars_max, chars_max) if is_sqlite else func.right(text, chars_max)
            columns["exception"] = end.label("exception")
    return list(columns.values())


def job_record(row: Found) -> JobRecord:
    """A row of `jobs` as it stands."""
    return read(JobRecord, _values(row, JobRecord))


def claimed_job(row: Found) -> ClaimedJob | Settlement:
    """A row of `jobs` that a worker holds; one that cannot be read, as the settlement that sets it aside."""
    values = _values(row, ClaimedJob)
    if why := why_unreadable(values):
        return set_aside(Fence(id=row.id, claim_seq=row.claim_seq, reserved_by=row.reserved_by), why)
    values["reserved_at"] = values["reserved_at"] or values["available_at"]  # nobody goes by it
    return convert(values | {"is_cancel_requested": row.cancel_requested_at is not None}, ClaimedJob)


def state_of(status: object) -> JobState:
    """The state that a row says it is in."""
    return JobState(status) if status in _STATES else JobState.UNREADABLE


def failed_job(row: Found) -> FailedJob:
    """A row of `failed_jobs`."""
    return read(FailedJob, _values(row, FailedJob))


def _values(row: Found, kind: type[Struct]) -> dict[str, object]:
    """What is stored in the columns of these names. Nobody holds a job whose `reserved_by` is NULL."""
    there = row._mapping  # pyright: ignore[reportPrivateUsage]  (documented)
    values = {name: stored_value(there[name]) for name in kind.__struct_fields__ if name in there}
    if values.get("reserved_by", "") is None:
        values["reserved_by"] = ""
    return values
