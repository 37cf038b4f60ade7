"""Keeping notes beside the jobs: what charts, error pages and the audit log are made of.

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
from protojobs_redis.inspection import FailedEntry, Inspection, chars
from protojobs_redis.packing import encode, failed_job, micros, moment, moment_text

__all__ = ["Observing"]

READ_MAX = 50_000  # rollups that one call reads
DEPTHS_MAX = 10_000  # samples in one answer
STEP_MAX = 5_000  # rollups or samples that one script reads
EXPIRY_S = 1.0  # for which one call deletes old notes, a short script at a time
ERROR_BYTES_MAX = 2_048  # of the traceback in the note of a run
GROUPS_MAX = 1_000
ACTIONS_MAX = 1_000  # in one page

ALL, EACH = "all", "each"


class _Counted(Struct, array_like=True, gc=False):
    """What a rollup says; the rest of it is in its key."""

    count: int
    wait_s: float
    run_s: float
    waits: dict[int, int]
    runs: dict[int, int]


class _Counts(Struct, array_like=True):
    go_on_at: str
    place: str
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


class Observing(Inspection):
    """The verbs of `protojobs.port.observing.Observes`; their promises are written there."""

    def record(self, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
        """See Observes.record."""
        check_notes(rollups, attempts)
        said: list[tuple[int, str, str, int]] = []
        values: list[str | bytes] = []
        for place, rows in groupby(sorted(rollups, key=_place), key=_place):
            pairs = [value for row in rows for value in (_field(worker, row), _value(row))]
            said.append((*place, len(pairs) // 2))
            values += pairs
        runs = [(note.job_id, note.claim_seq, moment_text(note.ended_at), note.fingerprint) for note in attempts]
        self._run("record", encode(said), encode(runs), ATTEMPTS_KEPT_MAX, *values, *map(_short, attempts))

    def rollups(
        self, period_s: int, since: datetime, until: datetime, *, queue: str = "", job_name: str = ""
    ) -> list[Rollup]:
        """See Observes.rollups."""
        kind = EACH if queue or job_name else ALL
        rows = self._rows(period_s, since, until, kind, queue, job_name)
        return merged(rows, queue=queue, job_name=job_name)

    def totals(
        self, period_s: int, since: datetime, until: datetime, *, by: Literal["queue", "job_name"], limit: int = 100
    ) -> list[RollupTotal]:
        """See Observes.totals."""
        return totalled(self._rows(period_s, since, until, EACH), by=by, limit=limit)

    def _rows(
        self, period_s: int, since: datetime, until: datetime, kind: str, queue: str = "", job_name: str = ""
    ) -> Iterator[Rollup]:
        """Each worker's rows of a span, those of the latest beginning first; a few thousand in one script."""
        span = (moment_text(since), moment_text(until))
        at, place, read = "", "0", 0
        known: set[tuple[str, str]] = set()
        while read < READ_MAX:
            step = self._packed(
                _counts, "rollups", period_s, kind, *span, queue, job_name, at, place, min(STEP_MAX, READ_MAX - read)
            )
            for began_at, field, counted in step.rows:
                if (began_at, field) not in known:  # a hash that changes while it is read may show one twice
                    known.add((began_at, field))
                    yield _rollup(period_s, began_at, field, counted)
            at, place, read = step.go_on_at, step.place, read + step.read
            if not at:
                return

    def sample_depths(self, *, limit: int = 50, counted_max: int = 10_000) -> bool:
        """See Observes.sample_depths. Always exact; a queue without live jobs has no sample.

        The minute is taken first and filled then: should we die in between, it stays empty.
        """
        kept = [micros(seconds) for seconds in (MINUTES_KEPT_S, HOURS_KEPT_S, ATTEMPTS_KEPT_S, ACTIONS_KEPT_S)]
        minute, has_more = self._packed(_begun, "begin_sample", *kept, "")
        if not minute:
            return False
        values: list[str | bytes] = []
        for queue in nlargest(limit, filter(_live, self.queues()), key=_live):
            values += (queue.name, encode(_sample(queue, moment(int(minute)))))
        if values:
            self._run("keep_sample", minute, *values)
        ends_at = SYSTEM_CLOCK.monotonic() + time_left(2 * EXPIRY_S) / 2
        while has_more and SYSTEM_CLOCK.monotonic() < ends_at:
            _, has_more = self._packed(_begun, "begin_sample", *kept, "on")
        return True

    def depths(self, since: datetime, until: datetime, *, queue: str | None = None) -> list[DepthSample]:
        """See Observes.depths."""
        samples: list[DepthSample] = []
        if queue == "":  # no queue has that name, and to the script it means all
            return samples
        before = moment_text(until)
        while before and len(samples) < DEPTHS_MAX:
            before, found = self._packed(_depths, "depths", moment_text(since), before, queue or "", STEP_MAX)
            samples += found
        return sorted(samples[:DEPTHS_MAX], key=lambda sample: (sample.at, sample.queue))

    def attempts(self, job_id: str) -> list[AttemptNote]:
        """See Observes.attempts."""
        return self._packed(_attempts, "attempts", job_id, ATTEMPTS_MAX)

    def failure_groups(
        self, *, limit: int = 100, counted_max: int = 1_000, chars_max: int | None = None
    ) -> list[FailureGroup]:
        """See Observes.failure_groups. What does not fit in one answer comes in several, each of its own moment."""
        groups: list[FailureGroup] = []
        limit = min(limit, GROUPS_MAX)
        while len(groups) < limit:
            found = self._packed(
                _groups, "failure_groups", len(groups), limit - len(groups), counted_max, chars(chars_max)
            )
            groups += [_group(each, counted_max) for each in found]
            if not found:
                break
        return groups

    def failed_alike(
        self, fingerprint: str, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        """See Observes.failed_alike."""
        return self._failed_page("", limit, cursor, chars(chars_max), fingerprint)

    def note_action(self, action: ActionNote) -> None:
        """See Observes.note_action."""
        self._run("note_action", action.id, moment_text(action.at), encode(action))

    def actions(self, *, limit: int = 50, cursor: str | None = None) -> ActionPage:
        """See Observes.actions. The cursor is the last id that was shown."""
        limit = max(1, min(limit, ACTIONS_MAX))
        found = self._packed(_actions, "actions", check_cursor(cursor) or "", limit + 1)
        return ActionPage(actions=tuple(found[:limit]), cursor=found[limit - 1].id if len(found) > limit else None)


def _place(row: Rollup) -> tuple[int, str, str]:
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


def _group(found: _Group, counted_max: int) -> FailureGroup:
    return FailureGroup(
        fingerprint=found.fingerprint,
        count=min(found.count, counted_max),
        first_failed_at=moment(found.first_failed_at),
        last=failed_job(*found.last),
        is_capped=found.count > counted_max,
    )
