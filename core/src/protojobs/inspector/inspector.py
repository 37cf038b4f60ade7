"""Inspector: what people see of a store and do to it. Command line, dashboard and JSON API all go through it.

The same verbs, the same filter language (`protojobs.querying`), and in one place what all of them owe: who may do it,
what is hidden from them, how much one call may cost, and the audit log of what was done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from protojobs.inspector import actions, bulk_actions, charts, installation, looking
from protojobs.inspector.access import Viewer
from protojobs.inspector.operations import Operations
from protojobs.inspector.redaction import Redaction
from protojobs.inspector.scope import Scope

if TYPE_CHECKING:
    from protojobs.queue.queue import JobQueue

__all__ = ["Inspector"]

P = ParamSpec("P")
T = TypeVar("T")


def _verb(function: Callable[Concatenate[Scope, P], T]) -> Callable[Concatenate[Inspector, P], T]:
    """The method that calls a function with an Inspector's scope: `overview = _verb(looking.overview)`."""

    @wraps(function)
    def method(self: Inspector, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(self._scope, *args, **kwargs)  # pyright: ignore[reportPrivateUsage]  (its own module)

    return method


class Inspector:
    """One viewer's look at the store of a queue. Synchronous and thread-safe; opens nothing before its first use.

    `redact` names fields that are hidden in data and meta: `password` anywhere, `*.token` or `user.*.pin` by path.
    Every verb raises Forbidden for a viewer of role NONE, and those that act also for one of role READ. Each verb is
    the function of its name in one of the modules beside this one.
    """

    def __init__(self, queue: JobQueue, viewer: Viewer = Viewer(name="cli"), *, redact: Sequence[str] = ()) -> None:  # noqa: B008  (frozen)
        self._scope = Scope(queue, viewer, Redaction(redact), Operations(queue))

    def seen_by(self, viewer: Viewer) -> Inspector:
        """The same store, operations and redaction, for another person."""
        own, other = self._scope, Inspector(self._scope.queue, viewer)
        other._scope = Scope(own.queue, viewer, own.redaction, own.operations)
        return other

    @property
    def viewer(self) -> Viewer:
        """Who is looking."""
        return self._scope.viewer

    @property
    def is_observing(self) -> bool:
        """Whether the store keeps notes: charts, error groups and the audit log raise NotSupported without."""
        return self._scope.is_observing

    now = _verb(looking.now)
    overview = _verb(looking.overview)
    running = _verb(looking.running)
    jobs = _verb(looking.jobs)
    count = _verb(looking.count)
    job = _verb(looking.job)
    failure = _verb(looking.failure)
    errors = _verb(looking.errors)
    error = _verb(looking.error)
    queues = _verb(looking.queues)
    queue = _verb(looking.queue)
    stats = _verb(looking.stats)
    workers = _verb(looking.workers)
    worker = _verb(looking.worker)
    schedules = _verb(looking.schedules)
    schedule = _verb(looking.schedule)
    next_times = staticmethod(looking.next_times)
    schedule_words = staticmethod(looking.schedule_words)
    audit = _verb(looking.audit)

    series = _verb(charts.series)
    rates = _verb(charts.rates)
    depths = _verb(charts.depths)

    system = _verb(installation.system)
    doctor = _verb(installation.doctor)
    explain = _verb(installation.explain)

    cancel = _verb(actions.cancel)
    retry = _verb(actions.retry)
    forget = _verb(actions.forget)
    retry_edited = _verb(actions.retry_edited)
    pause = _verb(actions.pause)
    resume = _verb(actions.resume)
    clear = _verb(actions.clear)
    run_schedule = _verb(actions.run_schedule)
    pause_schedule = _verb(actions.pause_schedule)
    resume_schedule = _verb(actions.resume_schedule)

    preview = _verb(bulk_actions.preview)
    start = _verb(bulk_actions.start)
    stop_operation = _verb(bulk_actions.stop_operation)
    operations = _verb(bulk_actions.operations)
    operation = _verb(bulk_actions.operation)
    wait = _verb(bulk_actions.wait)
