"""The records that an Inspector returns: frozen, redacted, fit to be shown or sent as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from protojobs.port.observing import AttemptNote, Result
from protojobs.port.records import FailedJob, JobRecord, Stats, WorkerRecord

__all__ = [
    "Count",
    "ErrorGroup",
    "ErrorPage",
    "ForgetAnswer",
    "JobListing",
    "JobView",
    "Moment",
    "Operation",
    "OperationState",
    "Overview",
    "Point",
    "Preview",
    "Rate",
    "Series",
    "SystemView",
    "WorkerView",
]


class Count(Struct, frozen=True):
    """How many there are; `is_capped`: at least so many, counting stopped there."""

    number: int
    is_capped: bool = False


class Overview(Struct, frozen=True, kw_only=True):
    """The store at a glance."""

    at: datetime  # store time
    stats: Stats
    workers: int  # whose lease stands
    workers_late: int  # whose lease has lapsed
    slots: int  # of the workers whose lease stands
    busy: int  # how many of them have a job
    oldest_ready_queue: str = ""  # of the first 1,000 queues by name
    oldest_ready_s: float | None = None
    paused: tuple[str, ...] = ()  # likewise
    unserved: tuple[str, ...] = ()  # likewise: with due jobs, and no worker whose lease stands
    failed_24h: int | None = None  # runs that failed for good; None: the store keeps no notes
    running: tuple[JobRecord, ...] = ()  # the ten that have run longest


class JobListing(Struct, frozen=True, kw_only=True):
    """A page of jobs. With `has_ended_early` the search stopped at its bound, and `cursor` searches on.

    `failures` holds the failed_jobs rows, by job id, where the search has read them.
    """

    jobs: tuple[JobRecord, ...]
    cursor: str | None = None
    examined: int = 0
    has_ended_early: bool = False
    failures: Mapping[str, FailedJob] = {}


class Moment(Struct, frozen=True, kw_only=True):
    """Something in a job's life. `what` is `created`, `due`, `taken`, the Result of an attempt, or a finished state."""

    at: datetime
    what: str
    attempt: int = 0  # 0: of no attempt
    detail: str = ""


class JobView(Struct, frozen=True, kw_only=True):
    """All there is to know of one job. `is_known`: this process has imported the code of its name."""

    job: JobRecord
    failure: FailedJob | None = None
    attempts: tuple[AttemptNote, ...] = ()
    timeline: tuple[Moment, ...] = ()
    result: str | None = None  # as JSON; None: it has none, or it is not kept
    is_known: bool = False


class ErrorGroup(Struct, frozen=True, kw_only=True):
    """Failed jobs with one cause. `title` is the exception's class and its message without what varies."""

    fingerprint: str
    title: str
    job_name: str
    count: Count
    first_at: datetime
    last_at: datetime
    sample: FailedJob  # the latest


class ErrorPage(Struct, frozen=True, kw_only=True):
    """One group, and a page of its failed jobs, newest first. `group` is None when there is no such job (any more)."""

    group: ErrorGroup | None
    failures: tuple[FailedJob, ...] = ()
    cursor: str | None = None


class WorkerView(Struct, frozen=True, kw_only=True):
    """A worker; `is_late`: its lease has lapsed, it is dead or cut off. `jobs`: what it holds, where asked for."""

    worker: WorkerRecord
    is_late: bool
    jobs: tuple[JobRecord, ...] = ()


class Point(Struct, frozen=True, kw_only=True):
    """One period of a chart. Percentiles are seconds, at most 10 % off; None where nothing ran."""

    began_at: datetime
    counts: Mapping[Result, int] = {}
    wait_p50: float | None = None
    wait_p95: float | None = None
    wait_p99: float | None = None
    run_p50: float | None = None
    run_p95: float | None = None
    run_p99: float | None = None


class Series(Struct, frozen=True, kw_only=True):
    """Runs over time, a point for each period, oldest first, empty ones too; and all of them together as `total`."""

    period_s: int
    points: tuple[Point, ...]
    total: Point


class Rate(Struct, frozen=True, kw_only=True):
    """How the runs of one queue or job name went. `error_rate`: the share of failed attempts, from 0 to 1."""

    name: str
    runs: int
    errors: int
    error_rate: float
    wait_avg_s: float
    run_avg_s: float
    run_s: float  # in all


class SystemView(Struct, frozen=True, kw_only=True):
    """The store and this process. Secrets are hidden."""

    at: datetime  # store time
    driver: str
    url: str
    capabilities: Mapping[str, bool]
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    plugins: tuple[str, ...]


class ForgetAnswer(StrEnum):
    """What `forget` did to one failed job."""

    FORGOTTEN = "forgotten"
    MISSING = "missing"


class OperationState(StrEnum):
    """Where a bulk operation is."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"  # a person stopped it
    FAILED = "failed"  # see its `error`; what was done stays done, and it may be started again


class Preview(Struct, frozen=True, kw_only=True):
    """What an operation would meet: how many jobs, and some of them."""

    total: Count
    sample: JobListing
    at: datetime  # store time, for `start`: what comes later was not shown


class Operation(Struct, frozen=True, kw_only=True):
    """Something that is being done to all jobs that match a query, at one moment of it. Times are store time."""

    id: str
    action: str  # `retry`, `cancel` or `forget`
    query: str
    actor: str
    state: OperationState
    total: Count  # how many matched when it began
    started_at: datetime
    ended_at: datetime | None = None
    examined: int = 0
    done: int = 0
    refused: int = 0  # matched, but had changed before their turn
    error: str = ""
