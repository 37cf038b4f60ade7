"""The plugin: a scope and a transaction for each run, an event for each failure, and check-ins of schedules.

Which failure is reported, the store decides: a run that raises may be tried again, or its result may come too late. So
the scope of a run that has raised is kept until the event tells what has become of the job. Observers get it on a
thread of their own, so no job waits for an event to be made.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, cast

import msgspec
import sentry_sdk
from sentry_sdk.integrations.logging import ignore_logger

from protojobs import JobContext, events, hookimpl
from protojobs.port.records import NewJob
from protojobs_sentry.carrier import headers_of, with_headers
from protojobs_sentry.check_ins import checked_in
from protojobs_sentry.failures import Seen, event_of, name_scope, report
from protojobs_sentry.settings import SentrySettings

if TYPE_CHECKING:
    from sentry_sdk.types import MonitorConfig  # which older releases of the SDK lack

__all__ = ["SEEN_MAX", "SentryPlugin"]

SEEN_MAX = 100  # runs that have raised and wait for the store; one more drops the oldest, whose event lacks breadcrumbs
FLUSH_S = 2.0  # for events on their way when a worker stops; what the SDK gives them when a process ends
_log = logging.getLogger("protojobs.sentry")


class SentryPlugin:
    """What `settings` ask for is sent by the SDK that the application has set up; nothing while it has not.

    `monitors`: by the id of a schedule, the settings that Sentry makes its monitor of. Runs of these schedules check in
    whatever `settings.check_ins` says. An error of the SDK's is logged once, and changes nothing for a job.
    """

    def __init__(
        self, settings: SentrySettings | None = None, *, monitors: Mapping[str, MonitorConfig] | None = None
    ) -> None:
        self._settings = settings or SentrySettings()
        self._monitors = dict(monitors or {})
        self._seen: dict[tuple[str, int], Seen] = {}  # by the job's id, and the attempt: the next may have run already
        self._has_complained = False
        ignore_logger("protojobs.worker")  # it logs each failure, which would be a second event
        ignore_logger(_log.name)

    @hookimpl
    def protojobs_before_push(self, job: NewJob) -> NewJob | None:
        """Give the trace of the push to the job, where tracing is on."""
        meta = job.meta
        with self._quietly():
            if _is_tracing():
                meta = with_headers(job.meta)
        return None if meta == job.meta else msgspec.structs.replace(job, meta=meta)

    @hookimpl
    def protojobs_around_job(self, context: JobContext) -> AbstractContextManager[None] | None:
        """The scope, the check-in and the transaction of a run. What the job raises passes."""
        return self._around(context) if sentry_sdk.is_initialized() else None

    @hookimpl
    def protojobs_job_retrying(self, event: events.JobRetrying) -> None:
        """Report a failed attempt, if each one is asked for."""
        seen = self._seen.pop((event.job_id, event.attempt), None)
        if self._settings.report == "attempts":
            with self._quietly():
                report(event, seen)

    @hookimpl
    def protojobs_job_failed(self, event: events.JobFailed) -> None:
        """Report a job that is given up."""
        seen = self._seen.pop((event.job_id, event.attempt), None)
        if self._settings.report != "none":
            with self._quietly():
                report(event, seen)

    @hookimpl
    def protojobs_worker_stopped(self) -> None:
        """Let the SDK send what it still has, for FLUSH_S at most."""
        with self._quietly():
            sentry_sdk.flush(timeout=FLUSH_S)

    @contextmanager
    def _around(self, context: JobContext) -> Generator[None]:
        self._seen.pop((context.id, context.attempt), None)  # of a run that went back unspent
        with ExitStack() as leaving:
            with self._quietly():
                self._enter(leaving, context)
            try:
                yield
            except BaseException as error:
                with self._quietly():
                    self._keep(context, error)
                raise

    def _enter(self, leaving: ExitStack, context: JobContext) -> None:
        self._enter_one(leaving, sentry_sdk.isolation_scope())
        facts: dict[str, object] = {
            "id": context.id,
            "attempt": context.attempt,
            "max_attempts": context.max_retries + 1,
            "worker": context.fence.reserved_by,
        }
        name_scope(sentry_sdk.get_isolation_scope(), context.job_name, context.queue, facts)
        schedule_id = context.meta.get("schedule")
        if schedule_id is not None and (self._settings.check_ins or schedule_id in self._monitors):
            self._enter_one(leaving, checked_in(context, schedule_id, self._monitors.get(schedule_id)))
        if _is_tracing():
            transaction = sentry_sdk.continue_trace(
                headers_of(context.meta),
                op="queue.task.protojobs",
                name=context.job_name,
                source="task",
                origin="auto.queue.protojobs",
            )
            transaction.set_data("messaging.system", "protojobs")
            transaction.set_data("messaging.destination.name", context.queue)
            transaction.set_data("messaging.message.id", context.id)
            transaction.set_data("messaging.message.retry.count", context.attempt - 1)
            self._enter_one(leaving, sentry_sdk.start_transaction(transaction))

    def _enter_one(self, leaving: ExitStack, manager: AbstractContextManager[object]) -> None:
        """Enter it, and leave it with `leaving`, whose way out it cannot disturb."""

        def leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
            with self._quietly():
                manager.__exit__(kind, error, trace)

        manager.__enter__()
        leaving.push(leave)

    def _keep(self, context: JobContext, error: BaseException) -> None:
        if self._settings.report == "none":
            return
        is_made_here = self._settings.local_variables and isinstance(error, Exception)
        event = event_of(error, local_variables=True) if is_made_here else None
        while len(self._seen) >= SEEN_MAX:
            self._seen.pop(next(iter(self._seen)), None)  # another thread may be faster
        self._seen[context.id, context.attempt] = Seen(
            sentry_sdk.get_isolation_scope(), sentry_sdk.get_current_scope(), event
        )

    @contextmanager
    def _quietly(self) -> Generator[None]:
        try:
            yield
        except Exception:  # noqa: BLE001  (of the SDK or of the application's callbacks: no job may fail for it)
            if not self._has_complained:
                self._has_complained = True
                _log.exception("Sentry's SDK failed, jobs are not affected; further errors of this kind are not logged")


def _is_tracing() -> bool:
    """Whether the application has tracing on, as transactions; the SDK's streaming mode has none."""
    options = sentry_sdk.get_client().options
    experiments = cast("dict[str, object]", options.get("_experiments") or {})
    lifecycle = options.get("trace_lifecycle") or experiments.get("trace_lifecycle")
    if lifecycle == "stream" or options.get("enable_tracing") is False:
        return False
    return options.get("traces_sample_rate") is not None or options.get("traces_sampler") is not None
