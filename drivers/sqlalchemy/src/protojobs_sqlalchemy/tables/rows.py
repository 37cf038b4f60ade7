"""Rows become the records of the port here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from msgspec import Struct, convert
from sqlalchemy import Row

from protojobs.port.lifecycle import STORED, JobState
from protojobs.port.records import ClaimedJob, FailedJob, Fence, JobRecord, Settlement
from protojobs.port.unreadable_rows import read, set_aside, why_unreadable
from protojobs_sqlalchemy.tables.types import stored_value

__all__ = ["AnyRow", "claimed_job", "failed_job", "job_record", "state_of", "values_of"]

_STATES = frozenset(state.value for state in STORED)

AnyRow = Row[*tuple[Any, ...]]


def job_record(row: AnyRow) -> JobRecord:
    """A row of `jobs` as it stands."""
    return read(JobRecord, _values(row, JobRecord))


def claimed_job(row: AnyRow) -> ClaimedJob | Settlement:
    """A row of `jobs` that a worker holds; one that cannot be read, as the settlement that sets it aside."""
    values = _values(row, ClaimedJob)
    if why := why_unreadable(values):
        return set_aside(Fence(id=row.id, claim_seq=row.claim_seq, reserved_by=row.reserved_by), why)
    values["reserved_at"] = values["reserved_at"] or values["available_at"]  # nobody goes by it
    return convert(values | {"is_cancel_requested": row.cancel_requested_at is not None}, ClaimedJob)


def state_of(status: object) -> JobState:
    """The state that a row says it is in."""
    return JobState(status) if status in _STATES else JobState.UNREADABLE


def failed_job(row: AnyRow) -> FailedJob:
    """A row of `failed_jobs`."""
    return read(FailedJob, _values(row, FailedJob))


def values_of(row: AnyRow) -> Mapping[str, Any]:
    """The values of a row by the names of their columns."""
    return cast(Mapping[str, Any], row._mapping)  # pyright: ignore[reportPrivateUsage]  (it is documented)


def _values(row: AnyRow, kind: type[Struct]) -> dict[str, object]:
    """What is stored in the columns of these names. Nobody holds a job whose `reserved_by` is NULL."""
    there = values_of(row)
    values = {name: stored_value(there[name]) for name in kind.__struct_fields__ if name in there}
    if values.get("reserved_by", "") is None:
        values["reserved_by"] = ""
    return values
