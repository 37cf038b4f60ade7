"""The optional part of the port for charts, error pages and the audit log: counts and notes that a store keeps.

Nothing here decides about a job. Workers note what they did beside their work, every ten seconds in one call; a note
that is lost with a killed worker costs a chart a point, never a job a run. A driver that keeps notes says so by
`Capabilities.observing`.

Rollups are counted twice, by the minute (kept for MINUTES_KEPT_S) and by the hour (HOURS_KEPT_S), each worker in rows
of its own: it sends the whole of its count of the period again and again, so a call that is repeated counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from protojobs.errors import OptionInvalid
from protojobs.port.records import FailedJob, FailedPage

__all__ = [
    "ACTIONS_KEPT_S",
    "ATTEMPTS_KEPT_MAX",
    "ATTEMPTS_KEPT_S",
    "ATTEMPTS_MAX",
    "HOUR",
    "HOURS_KEPT_S",
    "MINUTE",
    "MINUTES_KEPT_S",
    "NOTES_MAX",
    "ActionNote",
    "ActionPage",
    "AttemptNote",
    "DepthSample",
    "FailureGroup",
    "Observes",
    "Result",
    "Rollup",
    "RollupTotal",
    "bucket_of",
    "bucket_s",
    "check_notes",
    "count_into",
    "kept_since",
    "merged",
    "percentile",
    "totalled",
]

MINUTE, HOUR = 60, 3600
MINUTES_KEPT_S = 3 * 3600.0  # rollups by the minute, and depths
HOURS_KEPT_S = 7 * 86_400.0
ATTEMPTS_KEPT_S = 7 * 86_400.0
ATTEMPTS_KEPT_MAX = 50_000  # of all jobs, the newest: where everything fails all the time, they must not fill the store
ACTIONS_KEPT_S = 90 * 86_400.0
ATTEMPTS_MAX = 100  # of one job that are shown, the latest
NOTES_MAX = 1_000  # rollups, and attempts, in one `record`
_STEPS = 4  # buckets for each doubling: what a percentile says is at most 9 % off


class Result(StrEnum):
    """How a run ended, for counts. Not a state of the job: one that is `retried` is pending again."""

    COMPLETED = "completed"
    RETRIED = "retried"  # the attempt failed, and another follows
    FAILED = "failed"  # for good
    CANCELLED = "cancelled"
    SNOOZED = "snoozed"
    LOST = "lost"  # taken back from a worker that was gone; counted by the one that took it


class Rollup(Struct, frozen=True, kw_only=True):
    """What happened in one period to one job name of one queue, with one result; both "": to all of them.

    `waits` and `runs` count by `bucket_of(seconds)`: from due to begun, and from begun to ended.
    """

    period_s: int  # MINUTE or HOUR
    began_at: datetime
    queue: str
    job_name: str
    result: Result
    count: int
    wait_s: float  # sums
    run_s: float
    waits: Mapping[int, int] = {}
    runs: Mapping[int, int] = {}


class RollupTotal(Struct, frozen=True, kw_only=True):
    """The count of one name (a queue's or a job's) and one result over a span of time."""

    name: str
    result: Result
    count: int
    wait_s: float
    run_s: float


class DepthSample(Struct, frozen=True, kw_only=True):
    """How many jobs a queue had at a minute. `is_capped`: at least so many."""

    at: datetime
    queue: str
    ready: int
    scheduled: int
    processing: int
    is_capped: bool = False


class AttemptNote(Struct, frozen=True, kw_only=True):
    """One run of a job that did not just succeed at once: those that failed, and the run that ended a job with such."""

    job_id: str
    attempt: int
    claim_seq: int
    worker: str
    result: Result
    started_at: datetime
    ended_at: datetime
    error: str = ""  # the end of the traceback, at most 16 KiB; a store keeps 2 KiB at least
    fingerprint: str = ""


class FailureGroup(Struct, frozen=True, kw_only=True):
    """Failed jobs with one cause. `count` stops at the bound that was given (`is_capped`)."""

    fingerprint: str
    count: int
    first_failed_at: datetime
    last: FailedJob  # the latest of them
    is_capped: bool = False


class ActionNote(Struct, frozen=True, kw_only=True):
    """Something that a person did to jobs, queues or schedules, for the audit log."""

    id: str  # UUIDv7
    at: datetime
    actor: str  # who, as the authentication named them; "cli" and the system user on the command line
    action: str  # `retry`, `cancel`, `forget`, `pause` ...
    target: str  # an id, a queue's name, a query
    count: int = 1  # how many things it met
    detail: str = ""
    address: str = ""  # where the request came from


class ActionPage(Struct, frozen=True, kw_only=True):
    """A page of the audit log, newest first. `cursor` is None on the last page."""

    actions: tuple[ActionNote, ...]
    cursor: str | None = None


@runtime_checkable
class Observes(Protocol):
    """Keeping notes beside the jobs. Every call is bounded, and none waits for a lock that a claim needs."""

    def record(self, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
        """Store the worker's rollups in place of those that it sent before for the same key, and its attempts.

        At most NOTES_MAX of each. The key of a rollup is (period_s, began_at, worker, queue, job_name, result), of an
        attempt (job_id, claim_seq): sending again changes nothing.

        Where everything fails all the time, notes must not fill the store: it keeps about ATTEMPTS_KEPT_MAX attempts,
        those of the jobs that ran last, and may keep of one job's failures with one fingerprint only the first ones and
        the latest.
        """
        ...

    def rollups(
        self, period_s: int, since: datetime, until: datetime, *, queue: str = "", job_name: str = ""
    ) -> list[Rollup]:
        """The counts of all workers together, by (began_at, result), oldest first; `since` <= began_at < `until`.

        With neither name those of all jobs, as the workers counted them; else of that queue, that job, or both. Each
        answer carries the names that were asked for. Of more rows than the store will read (50,000) the latest count.
        """
        ...

    def totals(
        self, period_s: int, since: datetime, until: datetime, *, by: Literal["queue", "job_name"], limit: int = 100
    ) -> list[RollupTotal]:
        """The counts over the whole span by name and result.

        At most `limit` names, those with the most runs.
        """
        ...

    def sample_depths(self, *, limit: int = 50, counted_max: int = 10_000) -> bool:
        """Store how many jobs each of the `limit` longest queues has now, unless that was done in this minute.

        True: this call has done it, and has deleted notes (of every kind) that have outlived their time, for about a
        second at most, a bounded step at a time. Of many callers at once one does it.
        """
        ...

    def depths(self, since: datetime, until: datetime, *, queue: str | None = None) -> list[DepthSample]:
        """The samples of one queue or of all (at most 10,000, the latest), oldest first."""
        ...

    def attempts(self, job_id: str) -> list[AttemptNote]:
        """What was noted of the job's runs, by claim_seq; at most ATTEMPTS_MAX, the latest."""
        ...

    def failure_groups(
        self, *, limit: int = 100, counted_max: int = 1_000, chars_max: int | None = None
    ) -> list[FailureGroup]:
        """The failed jobs by their settlement's `fingerprint`, the group that failed last first.

        Found by an index on (fingerprint, failed_at), not by reading all: at most `limit` groups, of the 1,000 that are
        looked at. Always agrees with failed_jobs. `chars_max` cuts `last` as `failed` does.
        """
        ...

    def failed_alike(
        self, fingerprint: str, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        """A page of one group, newest first; as `failed`."""
        ...

    def note_action(self, action: ActionNote) -> None:
        """Store a line of the audit log. An id that is there already changes nothing."""
        ...

    def actions(self, *, limit: int = 50, cursor: str | None = None) -> ActionPage:
        """A page of the audit log, newest id first."""
        ...


def bucket_of(seconds: float) -> int:
    """The histogram's bucket: 0 up to a microsecond, then four for each doubling."""
    micro = int(seconds * 1e6)
    return (micro**_STEPS).bit_length() if micro > 0 else 0


def count_into(counts: dict[int, int], seconds: Iterable[float]) -> None:
    """Count each by its `bucket_of`; that is written out, since a call for each costs more than the counting."""
    for one in seconds:
        micro = int(one * 1e6)
        bucket = (micro**_STEPS).bit_length() if micro > 0 else 0
        counts[bucket] = counts.get(bucket, 0) + 1


def bucket_s(bucket: int) -> float:
    """The seconds in the middle of a bucket, which is what a percentile shows."""
    return 2.0 ** ((bucket - 0.5) / _STEPS) / 1e6 if bucket > 0 else 0.0


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """The seconds that `share` (0..1) of the counted took at most, at most 10 % off; None of nothing."""
    rest = sum(counts.values()) * share
    for bucket in sorted(counts):
        rest -= counts[bucket]
        if rest <= 0:
            return bucket_s(bucket)
    return None


def check_notes(rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
    """Raise `OptionInvalid` for more of either than one `record` takes."""
    for notes in (rollups, attempts):
        if len(notes) > NOTES_MAX:
            raise OptionInvalid(f"{len(notes)} notes at once are too many.", mend=f"Send at most {NOTES_MAX}.")


def kept_since(period_s: int, now: datetime) -> datetime:
    """Rollups of the period that began before that have outlived their time."""
    return now - timedelta(seconds=MINUTES_KEPT_S if period_s == MINUTE else HOURS_KEPT_S)


def merged(rollups: Iterable[Rollup], *, queue: str = "", job_name: str = "") -> list[Rollup]:
    """The rows of several workers, queues or jobs as one for each moment and result, under the names given."""
    together: dict[tuple[datetime, Result], list[Rollup]] = {}
    for row in rollups:
        together.setdefault((row.began_at, row.result), []).append(row)
    return [
        Rollup(
            period_s=rows[0].period_s,
            began_at=began_at,
            queue=queue,
            job_name=job_name,
            result=result,
            count=sum(row.count for row in rows),
            wait_s=sum(row.wait_s for row in rows),
            run_s=sum(row.run_s for row in rows),
            waits=_added(row.waits for row in rows),
            runs=_added(row.runs for row in rows),
        )
        for (began_at, result), rows in sorted(together.items())
    ]


def totalled(rollups: Iterable[Rollup], *, by: Literal["queue", "job_name"], limit: int) -> list[RollupTotal]:
    """The same by name and result, for the `limit` names with the most runs; the first of them first."""
    runs = Counter[str]()
    rows: dict[tuple[str, Result], list[Rollup]] = {}
    for row in rollups:
        name = row.queue if by == "queue" else row.job_name
        runs[name] += row.count
        rows.setdefault((name, row.result), []).append(row)
    return [
        RollupTotal(
            name=name,
            result=result,
            count=sum(row.count for row in of_result),
            wait_s=sum(row.wait_s for row in of_result),
            run_s=sum(row.run_s for row in of_result),
        )
        for name, _ in runs.most_common(limit)
        for result in Result
        if (of_result := rows.get((name, result)))
    ]


def _added(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total
