"""Moving jobs to another store, in three steps that can each be repeated: export, import there, drop here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from msgspec import convert
from msgspec.structs import asdict, replace

from protojobs.errors import OptionInvalid, shown
from protojobs.port import rules
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import Enqueued, ExportedJob, NewJob
from protojobs_memory.sorted_keys import SortedKeys
from protojobs_memory.state import Row, State
from protojobs_memory.views import exported

__all__ = ["check_cursor", "check_imported", "drop_exported", "export_jobs", "import_jobs"]

_CURSOR = re.compile(r"[0-9a-f]{16}/")  # a number, and the id of a job


def check_cursor(cursor: str | None) -> None:
    """Raise OptionInvalid for what no export has given."""
    if cursor is not None and not _CURSOR.match(cursor):
        raise OptionInvalid(f"{shown(cursor)} is no cursor of an export.", mend="Pass one that `export_jobs` gave.")


def export_jobs(state: State, token: str, cursor: str | None, limit: int) -> tuple[list[ExportedJob], str | None]:
    """A page of the jobs that move under the token; others begin to move while it has room.

    The store numbers jobs as they begin to move. A cursor is a position in that order, so that the same cursor shows
    the same jobs for as long as they are here.
    """
    moving = state.exports.setdefault(token, SortedKeys())
    keys = list(islice(moving.above(cursor or ""), limit + 1))
    for row in list(islice(_exportable(state), max(0, limit - len(keys)))):
        _begin(state, row, moving)
        keys.append(row.export_key)
    has_more = len(keys) > limit or any(True for _ in _exportable(state))
    if not moving:
        del state.exports[token]
    page = [_as_it_was(state, state.rows[key.partition("/")[2]]) for key in keys[:limit]]
    return page, keys[:limit][-1] if page and has_more else None


def _exportable(state: State) -> Iterator[Row]:
    """The jobs that may begin to move."""
    pending = (key for queue in state.queues.values() for lane in queue.lanes.values() for key in lane)
    for _, job_id in chain(pending, state.ended[JobState.FAILED]):
        yield state.rows[job_id]


def _begin(state: State, row: Row, moving: SortedKeys[str]) -> None:
    state.exports_begun += 1
    row.export_key = f"{state.exports_begun:016x}/{row.job.id}"
    row.moving_from = row.state
    state.replace(row, rules.export(exported(state, row)))
    moving.add(row.export_key)


def _as_it_was(state: State, row: Row) -> ExportedJob:
    assert row.moving_from is not None
    return replace(exported(state, row), status=row.moving_from)


def check_imported(jobs: Sequence[ExportedJob]) -> None:
    """Raise OptionInvalid for too many, or for jobs that no store exports."""
    rules.check_batch(jobs)
    if strange := [job.id for job in jobs if job.status not in (JobState.PENDING, JobState.FAILED)]:
        raise OptionInvalid(f"job {strange[0]} is neither pending nor failed.", mend="Import what was exported.")


def import_jobs(state: State, jobs: Sequence[ExportedJob]) -> list[Enqueued]:
    """Store the jobs as they were where they came from, unless their ids are known."""
    results: list[Enqueued] = []
    for job in jobs:
        is_known = job.id in state.rows
        results.append(Enqueued(id=job.id, duplicate_of=job.id if is_known else None))
        if not is_known:
            row = _row_of(job)
            state.add(row)
            if job.failed is not None:
                state.add_failure(row, job.failed)
    state.wake()
    return results


def _row_of(job: ExportedJob) -> Row:
    values = asdict(job)
    return convert(values | {"job": convert(values, NewJob), "state": job.status, "reserved_by": ""}, Row)


def drop_exported(state: State, token: str, ids: Sequence[str]) -> int:
    """Delete jobs that move under the token; how many there were."""
    moving = state.exports.get(token, SortedKeys())
    rows = [row for job_id in dict.fromkeys(ids) if (row := state.rows.get(job_id))]
    rows = [row for row in rows if row.state is JobState.MOVING and row.export_key in moving]
    for row in rows:
        moving.remove(row.export_key)
        state.remove(row, Verb.DROP_EXPORTED)
    if not moving:
        state.exports.pop(token, None)
    return len(rows)
