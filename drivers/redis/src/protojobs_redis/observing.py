"""Notes of workers and people, beside the jobs: what charts, error pages and the audit log are made of.

A note is one value to the scripts: packed here, handed through there. Rows of several workers are added up here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from heapq import nlargest
from itertools import groupby
from typing import Literal

from msgspec import Struct
from msgspec.msgpack import Decoder
from msgspec.structs import replace

from protojobs.clock import SYSTEM_CLOCK, time_left
from protojobs.port.observing import (
    ACTIONS_KEPT_S,
    ATTEMPTS_KEPT_MAX,
    ATTEMPTS_KEPT_S,
    ATTEMPTS_MAX,
    HOURS_KEPT_S,
    MINUTES_KEPT_S,
    ActionNote,
    ActionPage,
    AttemptNote,
    DepthSample,
    FailureGroup,
    Result,
    Rollup,
    RollupTotal,
    check_notes,
    merged,
    totalled,
)
from protojobs.port.records import FailedPage, QueueInfo
from protojobs.port.rules import check_cursor
from protojobs_redis.inspection import FailedEntry, chars, failed_page, queues
from protojobs_redis.packing import encode, failed_job, micros, moment, moment_text
from protojobs_redis.runner import ScriptRunner

__all__ = [
    "actions",
    "attempts",
    "depths",
    "failed_alike",
    "failure_groups",
    "note_action",
    "record",
    "rollups",
    "sample_depths",
    "totals",
]

READ_MAX = 50_000  # rollups that one call reads
DEPTHS_MAX = 10_000  # samples in one list
STEP_MAX = 5_000  # rollups or samples that one script reads
EXPIRY_S = 1.0  # for which one call deletes old notes, a short script at a time
ERROR_BYTES_MAX = 2_048  # of the traceback in the note of a run
GROUPS_MAX = 1_000
ACTIONS_MAX = 1_000  # in one page

ALL, EACH = "all", "each"


class _Counted(Struct, array_like=True, gc=False):
    """The counts of a rollup; the rest of it is in its key."""

    count: int
    wait_s: float
    run_s: float
    waits: dict[int, int]
    runs: dict[int, int]


class _Counts(Struct, array_like=True):
    go_on_at: str
    position: str
    read: int
    rows: list[tuple[str, str, _Counted]]


class _Group(Struct, array_like=True):
    fingerprint: str
    count: int  # up to one more than was asked for
    first_failed_at: str
    last: FailedEntry


_counts, _groups = Decoder(_Counts), Decoder(list[_Group])
_begun = Decoder(tuple[str, bool])
_depths = Decoder(tuple[str, list[DepthSample]])
_attempts, _actions = Decoder(list[AttemptNote]), Decoder(list[ActionNote])


def record(scripts: ScriptRunner, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
    """Store a worker's counts and the notes of its runs."""
    check_notes(rollups, attempts)
    hashes: list[tuple[int, str, str, int]] = []
    values: list[str | bytes] = []
    for key, rows in groupby(sorted(rollups, key=_hash_of), key=_hash_of):
        pairs = [value for row in rows for value in (_field(worker, row), _value(row))]
        hashes.append((*key, len(pairs) // 2))
        values += pairs
    runs = [(note.job_id, note.claim_seq, moment_text(note.ended_at), note.fingerprint) for note in attempts]
    scripts.run("record", encode(hashes), encode(runs), ATTEMPTS_KEPT_MAX, *values, *map(_short, attempts))


def rollups(
    scripts: ScriptRunner, period_s: int, since: datetime, until: datetime, queue: str, job_name: str
) -> list[Rollup]:
    """The counts of a span: of all jobs, or of one queue or job name."""
    kind = EACH if queue or job_name else ALL
    rows = _rows(scripts, period_s, (since, until), kind, queue, job_name)
    return merged(rows, queue=queue, job_name=job_name)


def totals(
    scripts: ScriptRunner, period_s: int, since: datetime, until: datetime, by: Literal["queue", "job_name"], limit: int
) -> list[RollupTotal]:
    """The counts of a span by queue or by job name."""
    return totalled(_rows(scripts, period_s, (since, until), EACH), by=by, limit=limit)


def _rows(
    scripts: ScriptRunner,
    period_s: int,
    span: tuple[datetime, datetime],
    kind: str,
    queue: str = "",
    job_name: str = "",
) -> Iterator[Rollup]:
    """Each worker's rows of a span, those of the latest beginning first; a few thousand in one script."""
    since, until = map(moment_text, span)
    at, position, read = "", "0", 0
    seen: set[tuple[str, str]] = set()
    while read < READ_MAX:
        left = min(STEP_MAX, READ_MAX - read)
        step = scripts.decoded(_counts, "rollups", period_s, kind, since, until, queue, job_name, at, position, left)
        for began_at, field, counted in step.rows:
            if (began_at, field) not in seen:  # a hash that changes while it is read may show one twice
                seen.add((began_at, field))
                yield _rollup(period_s, began_at, field, counted)
        at, position, read = step.go_on_at, step.position, read + step.read
        if not at:
            return


def sample_depths(scripts: ScriptRunner, limit: int) -> bool:
    """Store this minute's depths, and delete notes that have outlived their time; False if the minute has them.

    A queue without live jobs has no sample. The minute is taken first and filled then: should we die in between, it
    stays empty.
    """
    kept = [micros(seconds) for seconds in (MINUTES_KEPT_S, HOURS_KEPT_S, ATTEMPTS_KEPT_S, ACTIONS_KEPT_S)]
    minute, has_more = scripts.decoded(_begun, "begin_sample", *kept, "")
    if not minute:
        return False
    values: list[str | bytes] = []
    for queue in nlargest(limit, filter(_live, queues(scripts)), key=_live):
        values += (queue.name, encode(_sample(queue, moment(int(minute)))))
    if values:
        scripts.run("keep_sample", minute, *values)
    ends_at = SYSTEM_CLOCK.monotonic() + time_left(2 * EXPIRY_S) / 2
    while has_more and SYSTEM_CLOCK.monotonic() < ends_at:
        _, has_more = scripts.decoded(_begun, "begin_sample", *kept, "on")
    return True


def depths(scripts: ScriptRunner, since: datetime, until: datetime, queue: str | None) -> list[DepthSample]:
    """The samples of a span, earliest first."""
    samples: list[DepthSample] = []
    if queue == "":  # no queue has that name, and to the script it means all
        return samples
    before = moment_text(until)
    while before and len(samples) < DEPTHS_MAX:
        before, page = scripts.decoded(_depths, "depths", moment_text(since), before, queue or "", STEP_MAX)
        samples += page
    return sorted(samples[:DEPTHS_MAX], key=lambda sample: (sample.at, sample.queue))


def attempts(scripts: ScriptRunner, job_id: str) -> list[AttemptNote]:
    """The notes of the job's latest runs."""
    return scripts.decoded(_attempts, "attempts", job_id, ATTEMPTS_MAX)


def failure_groups(scripts: ScriptRunner, limit: int, counted_max: int, chars_max: int | None) -> list[FailureGroup]:
    """Failed jobs by fingerprint. What does not fit in one reply comes in several, each of its own moment."""
    groups: list[FailureGroup] = []
    limit = min(limit, GROUPS_MAX)
    while len(groups) < limit:
        page = scripts.decoded(
            _groups, "failure_groups", len(groups), limit - len(groups), counted_max, chars(chars_max)
        )
        groups += [_failure_group(group, counted_max) for group in page]
        if not page:
            break
    return groups


def failed_alike(
    scripts: ScriptRunner, fingerprint: str, limit: int, cursor: str | None, chars_max: int | None
) -> FailedPage:
    """A page of the failed jobs of one fingerprint."""
    return failed_page(scripts, "", limit, cursor, chars(chars_max), fingerprint)


def note_action(scripts: ScriptRunner, action: ActionNote) -> None:
    """Store a line of the audit log."""
    scripts.run("note_action", action.id, moment_text(action.at), encode(action))


def actions(scripts: ScriptRunner, limit: int, cursor: str | None) -> ActionPage:
    """A page of the audit log, newest first. The cursor is the last id that was shown."""
    limit = max(1, min(limit, ACTIONS_MAX))
    page = scripts.decoded(_actions, "actions", check_cursor(cursor) or "", limit + 1)
    return ActionPage(actions=tuple(page[:limit]), cursor=page[limit - 1].id if len(page) > limit else None)


def _hash_of(row: Rollup) -> tuple[int, str, str]:
    """The hash that the row is in."""
    return row.period_s, moment_text(row.began_at), EACH if row.queue else ALL


def _field(worker: str, row: Rollup) -> str:
    return "\0".join((row.queue, row.job_name, row.result.value, worker))


def _value(row: Rollup) -> bytes:
    return encode(_Counted(row.count, row.wait_s, row.run_s, dict(row.waits), dict(row.runs)))


def _rollup(period_s: int, began_at: str, field: str, counted: _Counted) -> Rollup:
    queue, job_name, result, _ = field.split("\0", 3)
    return Rollup(
        period_s=period_s,
        began_at=moment(began_at),
        queue=queue,
        job_name=job_name,
        result=Result(result),
        count=counted.count,
        wait_s=counted.wait_s,
        run_s=counted.run_s,
        waits=counted.waits,
        runs=counted.runs,
    )


def _short(note: AttemptNote) -> bytes:
    """The note, with the end of its traceback: the whole one of the last failure is in failed_jobs."""
    if len(note.error) > ERROR_BYTES_MAX // 4:
        note = replace(note, error=note.error.encode()[-ERROR_BYTES_MAX:].decode(errors="ignore"))
    return encode(note)


def _live(queue: QueueInfo) -> int:
    return queue.stats.pending + queue.stats.processing


def _sample(queue: QueueInfo, at: datetime) -> DepthSample:
    stats = queue.stats
    return DepthSample(
        at=at,
        queue=queue.name,
        ready=stats.pending - stats.scheduled,
        scheduled=stats.scheduled,
        processing=stats.processing,
    )


def _failure_group(group: _Group, counted_max: int) -> FailureGroup:
    return FailureGroup(
        fingerprint=group.fingerprint,
        count=min(group.count, counted_max),
        first_failed_at=moment(group.first_failed_at),
        last=failed_job(*group.last),
        is_capped=group.count > counted_max,
    )
