"""Events: frozen records of what has happened, and the listeners of this process.

An event is sent in the process where the thing happened, after it is durable in the store (`job.queuing` alone comes
before). Listeners are observers: they run apart from the job, each for itself, and change nothing. In a worker they run
on one thread of their own; in a process that pushes, in the pushing thread.

    from protojobs import events

    @events.on("job.failed")
    def tell_me(event):
        print(event.job_class, event.get("error"))
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, Protocol, TypeAlias, TypeVar, cast, overload

from msgspec import Struct

from protojobs.errors import OptionInvalid, did_you_mean, shown

__all__ = [
    "EVENTS",
    "AuditAction",
    "Event",
    "JobCancelled",
    "JobEvent",
    "JobFailed",
    "JobLate",
    "JobProcessed",
    "JobProcessing",
    "JobQueued",
    "JobQueuing",
    "JobReclaimed",
    "JobReleased",
    "JobRetrying",
    "JobSnoozed",
    "Listener",
    "QueuePaused",
    "QueueResumed",
    "ScheduleEvent",
    "ScheduleFired",
    "ScheduleMissed",
    "WorkerDegraded",
    "WorkerMemoryExceeded",
    "WorkerStarting",
    "WorkerStopped",
    "about",
    "listeners",
    "off",
    "on",
]


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened. Its fields are attributes; `get` reads them by name, as the documented system did."""

    event_name: ClassVar[str] = ""

    def get(self, field: str, default: object = None) -> object:
        """The field's value, or `default` where this event has no such field."""
        return getattr(self, field, default) if field in self.__struct_fields__ else default


class JobEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one job. `attempt` counts from 1; 0 before the first run."""

    job_id: str
    job_name: str
    job_class: str
    queue: str
    attempt: int = 0


class JobQueuing(JobEvent, frozen=True, kw_only=True):
    """A job is about to be stored."""

    event_name: ClassVar[str] = "job.queuing"


class JobQueued(JobEvent, frozen=True, kw_only=True):
    """A job is stored; with `session=` after the root commit. `duplicate_of` names the job that was there already."""

    event_name: ClassVar[str] = "job.queued"
    duplicate_of: str | None = None


class JobProcessing(JobEvent, frozen=True, kw_only=True):
    """A run begins. `wait_s`: for how long the job had been due when this worker claimed it, by the store's clock."""

    event_name: ClassVar[str] = "job.processing"
    wait_s: float = 0.0


class JobProcessed(JobEvent, frozen=True, kw_only=True):
    """A run succeeded, and the store knows it."""

    event_name: ClassVar[str] = "job.processed"
    result: object = None
    duration_s: float = 0.0


class JobRetrying(JobEvent, frozen=True, kw_only=True):
    """An attempt failed and the job will run again, at `available_at` of the store's clock."""

    event_name: ClassVar[str] = "job.retrying"
    exception: BaseException | None = None
    error: str = ""
    duration_s: float = 0.0
    available_at: datetime | None = None


class JobFailed(JobEvent, frozen=True, kw_only=True):
    """The job is given up: its last attempt failed, or it may not be tried again."""

    event_name: ClassVar[str] = "job.failed"
    exception: BaseException | None = None
    error: str = ""
    duration_s: float = 0.0


class JobSnoozed(JobEvent, frozen=True, kw_only=True):
    """The job asked to run later; no attempt was spent."""

    event_name: ClassVar[str] = "job.snoozed"
    available_at: datetime | None = None


class JobCancelled(JobEvent, frozen=True, kw_only=True):
    """The job ended cancelled: a person's wish, or its own `Discard`."""

    event_name: ClassVar[str] = "job.cancelled"
    reason: str = ""


class JobReleased(JobEvent, frozen=True, kw_only=True):
    """The job went back unspent, for the `reason`: `unknown_name`, `undecodable`, `shutdown`, `prefetch`, `suspect`,
    `transform`, `lease in doubt`.

    `error`: the traceback of what went wrong, where `reason` is `undecodable` or `transform`.
    """

    event_name: ClassVar[str] = "job.released"
    reason: str = ""
    error: str = ""
    available_at: datetime | None = None


class JobReclaimed(JobEvent, frozen=True, kw_only=True):
    """This worker took the job back from one whose lease had ended."""

    event_name: ClassVar[str] = "job.lost"
    reserved_by: str = ""
    state: str = "pending"


class JobLate(JobEvent, frozen=True, kw_only=True):
    """A result came after its claim had ended, and was not recorded.

    `late_s`: seconds from the last moment at which the worker certainly held the claim to the store's refusal. That
    moment is the start of the last heartbeat that the store has answered for the identity under which the job was
    claimed; somewhere after it the lease was lost.
    """

    event_name: ClassVar[str] = "job.late"
    late_s: float = 0.0


class WorkerStarting(Event, frozen=True, kw_only=True):
    """A worker is registered and about to claim."""

    event_name: ClassVar[str] = "worker.starting"
    worker: str
    queues: tuple[str, ...]
    concurrency: int


class WorkerStopped(Event, frozen=True, kw_only=True):
    """A worker has ended its work; `reason` is that of its report."""

    event_name: ClassVar[str] = "worker.stopped"
    worker: str
    reason: str
    done: int
    failed: int


class WorkerMemoryExceeded(Event, frozen=True, kw_only=True):
    """A worker and its children outgrew the limit; it stops once its jobs are done."""

    event_name: ClassVar[str] = "worker.memory_exceeded"
    worker: str
    rss_bytes: int
    limit_bytes: int


class WorkerDegraded(Event, frozen=True, kw_only=True):
    """A worker cannot reach the store. It stays, and goes on when the store is back."""

    event_name: ClassVar[str] = "worker.degraded"
    worker: str
    reason: str


class QueuePaused(Event, frozen=True, kw_only=True):
    """A queue was paused from this process."""

    event_name: ClassVar[str] = "queue.paused"
    queue: str


class QueueResumed(Event, frozen=True, kw_only=True):
    """A queue was resumed from this process."""

    event_name: ClassVar[str] = "queue.resumed"
    queue: str


class AuditAction(Event, frozen=True, kw_only=True):
    """A person acted on jobs, queues or schedules through an Inspector, or was refused (`count` 0, see `detail`)."""

    event_name: ClassVar[str] = "audit.action"
    actor: str
    action: str
    target: str
    count: int = 1
    detail: str = ""
    address: str = ""


class ScheduleEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one schedule, at its time `due_at`."""

    schedule_id: str
    job_name: str
    job_class: str
    queue: str
    due_at: datetime


class ScheduleFired(ScheduleEvent, frozen=True, kw_only=True):
    """A schedule came due, and its job is stored. `late_s`: by how much after its time."""

    event_name: ClassVar[str] = "schedule.fired"
    job_id: str
    late_s: float = 0.0


class ScheduleMissed(ScheduleEvent, frozen=True, kw_only=True):
    """Times of a schedule were passed over, `count` of them from `first_due_at` on (1,000: or more).

    `reason`: `late` (nobody ticked in time, see `misfire`), or `overlap` (the job before it is not finished). `due_at`
    is the time that the schedule has come to: the last that was passed over, or one that fired behind them.
    """

    event_name: ClassVar[str] = "schedule.missed"
    first_due_at: datetime
    count: int = 1
    reason: str = "late"


EVENTS: dict[str, type[Event]] = {
    kind.event_name: kind
    for kind in (
        *(JobQueuing, JobQueued, JobProcessing, JobProcessed, JobRetrying, JobFailed),
        *(JobSnoozed, JobCancelled, JobReleased, JobReclaimed, JobLate),
        *(WorkerStarting, WorkerStopped, WorkerMemoryExceeded, WorkerDegraded, QueuePaused, QueueResumed),
        *(ScheduleFired, ScheduleMissed, AuditAction),
    )
}


class _Job(Protocol):
    """What every record of a job has."""

    @property
    def id(self) -> str: ...
    @property
    def job_name(self) -> str: ...
    @property
    def job_class(self) -> str: ...
    @property
    def queue(self) -> str: ...


Listener: TypeAlias = Callable[[Event], object]
_E = TypeVar("_E", bound=JobEvent)
_F = TypeVar("_F", bound=Callable[..., object])

_lock = threading.Lock()
LISTENERS: dict[str, tuple[Listener, ...]] = {}  # replaced, never changed in place: readers need no lock


@overload
def on(name: str) -> Callable[[_F], _F]: ...
@overload
def on(name: str, listener: _F) -> _F: ...
def on(name: str, listener: _F | None = None) -> _F | Callable[[_F], _F]:
    """Call `listener(event)` whenever `name` happens in this process; returns the listener unchanged.

    Works as a call, `events.on("job.failed", tell_me)`, and as a decorator, `@events.on("job.failed")`. Raises
    OptionInvalid for an unknown event, and for an `async def`: observers are plain functions.
    """
    if name not in EVENTS:
        raise OptionInvalid(
            f"There is no event {shown(name)}.",
            mend=f"{did_you_mean(name, EVENTS)} Known: {', '.join(EVENTS)}.".lstrip(),
        )
    if listener is None:
        return lambda function: on(name, function)
    if not callable(listener) or inspect.iscoroutinefunction(listener):
        raise OptionInvalid(f'A listener for "{name}" must be a plain function, not {shown(listener)}.')
    with _lock:
        LISTENERS[name] = (*LISTENERS.get(name, ()), listener)
    return listener


def off(name: str, listener: Callable[..., object]) -> None:
    """Undo `on`. A listener that is not registered is passed over."""
    with _lock:
        LISTENERS[name] = tuple(known for known in LISTENERS.get(name, ()) if known != listener)


def listeners(name: str) -> tuple[Listener, ...]:
    """Who listens to `name` now, in the order of registration."""
    return LISTENERS.get(name, ())


def about(kind: type[_E], job: _Job, **facts: object) -> _E:
    """The event of that kind about a job, with the facts that are its own."""
    make = cast("Callable[..., _E]", kind)
    return make(job_id=job.id, job_name=job.job_name, job_class=job.job_class, queue=job.queue, **facts)
