"""From a claimed job to a run at work: prepared, placed in an executor, watched by the timeouts."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import TypeAlias

from protojobs.errors import JobCrashed
from protojobs.events import Event, JobProcessing
from protojobs.new_jobs import job_maker
from protojobs.port.lifecycle import CRASHES_MAX, SUSPECT_RECLAIMS, Verb
from protojobs.port.records import ClaimedJob
from protojobs.port.transactions import SupportsTransaction
from protojobs.runtime import Runtime
from protojobs.worker.handover import HANDOVER_WAIT_S
from protojobs.worker.lease.lease import WorkerLease
from protojobs.worker.outcome import Outcome
from protojobs.worker.plan import Plan, released
from protojobs.worker.planner import Planner
from protojobs.worker.reports.announcements import beginning
from protojobs.worker.reports.joblog import is_told, log_event
from protojobs.worker.runs.executor import Report, Runnable
from protojobs.worker.runs.failed_call import FAILED_LIMIT_S, FailedCall, failed_call
from protojobs.worker.runs.placing import Executors
from protojobs.worker.runs.run import Run, prepare, unrun
from protojobs.worker.runs.timeouts import Timeouts

__all__ = ["RunStarter"]

NOT_STARTED, NOT_STARTED_DELAY_S = "no thread could be started", 5.0  # for a run
LOST_WORKERS_MAX = SUSPECT_RECLAIMS + CRASHES_MAX  # died with a job that no child can run: it is given up
_log = logging.getLogger("protojobs.worker")

_Key: TypeAlias = tuple[str, int]


class RunStarter:
    """Of one worker; used by its claim loop only."""

    def __init__(  # noqa: PLR0913  (the parts of a worker that starting a run needs)
        self,
        runtime: Runtime,
        lease: WorkerLease,
        planner: Planner,
        executors: Executors,
        timeouts: Timeouts,
        report: Report,
        send: Callable[[Event], None],
    ) -> None:
        self._registry, self._hooks, self._clock = runtime.registry, runtime.hooks, runtime.clock
        self._lease = lease
        self._planner = planner
        self._executors = executors
        self._timeouts = timeouts
        self._report = report
        self._send = send
        driver = runtime.driver
        self._complete_in = driver.complete_in if isinstance(driver, SupportsTransaction) else None
        self._maker = job_maker(runtime.registry, runtime.settings, driver.capabilities, runtime.hooks)
        self.failed_calls: deque[FailedCall] = deque()  # waiting for a slot

    def start(self, plan: Plan) -> None:
        """Hand jobs to their executors, or settle them unrun. Short ones may wait there for a slot, for a moment."""
        bound = self._lease.run_bound
        if bound.is_reported:
            bound.begins(max([job.timeout or math.inf for job in plan.start]) + HANDOVER_WAIT_S)
        tells_begin = is_told(self._hooks, JobProcessing)
        for claimed in plan.start:
            run = self._prepared(claimed)
            if isinstance(run, Outcome):
                self._planner.finished(self._clock.monotonic(), (claimed.id, claimed.claim_seq), run, was_run=False)
                continue
            run.completer, run.resources, run.maker = self._complete_in, self._executors.resources, self._maker
            if tells_begin:
                event = beginning(claimed)
                log_event(event)
                self._send(event)
            timeout = claimed.timeout
            if claimed.job_name in plan.short and not claimed.reclaims:
                run.begins_by = self._clock.monotonic() + HANDOVER_WAIT_S
                timeout = timeout and timeout + HANDOVER_WAIT_S
            try:
                executor = self._executors.place(run)
                self._timeouts.add(run, executor, timeout)
                executor.start(run)
            except RuntimeError as error:
                self._not_started(run, error)
        if bound.is_reported:
            bound.begun()

    def _prepared(self, claimed: ClaimedJob) -> Run | Outcome:
        if claimed.reclaims >= LOST_WORKERS_MAX and not self._executors.has_child(claimed.job_name):
            return _given_up(claimed)
        return prepare(claimed, self._registry, self._hooks, self._clock, self._lease.report)

    def start_unplaced(self, now: float, run: Run) -> None:
        """Run in this process what no child can run, as it turns out. A suspect beside another one goes back."""
        self._timeouts.remove(run.key)
        claimed = run.claimed
        if run.cut_by:
            self._report(run.key, run.cut())
        elif claimed.reclaims >= LOST_WORKERS_MAX:
            self._planner.finished(now, run.key, _given_up(claimed), was_run=False)
        elif claimed.reclaims >= SUSPECT_RECLAIMS and self._planner.holds_another_suspect(run.key):
            self._planner.finished(now, run.key, released(claimed, "suspect"), was_run=False)
        else:
            again = copy(run)  # a sweep may be about to cut the one in the child
            again.began_at = -math.inf
            self._start_here(again, run.timeout)

    def call_failed(self, outcome: Outcome) -> None:
        """The job has failed for good: its own `failed()`, if it has one, is to be called when a slot is free."""
        if (call := failed_call(outcome, self._registry)) is not None:
            self._planner.calling_failed(call.key)
            self.failed_calls.append(call)

    def start_failed_calls(self) -> None:
        """Start the waiting `failed()` for which there is a slot: their time limit begins only then."""
        while self.failed_calls and self._planner.running - len(self.failed_calls) < self._planner.limits.concurrency:
            self._start_here(self.failed_calls.popleft(), FAILED_LIMIT_S)

    def withdraw(self, keys: list[_Key]) -> bool:
        """Take back those of them that were handed over and have not begun. Whether there are any."""
        keys = self._executors.withdraw(keys)
        for key in keys:
            self._timeouts.remove(key)
        self._planner.withdrawn(self._clock.monotonic(), keys, self._lease.info.id)
        return bool(keys)

    def _start_here(self, run: Runnable, timeout: float) -> None:
        self._lease.run_bound.begins(timeout or math.inf)
        try:
            executor = self._executors.here(is_async=run.is_async)
            self._timeouts.add(run, executor, timeout)
            executor.start(run)
        except RuntimeError as error:
            self._not_started(run, error)
        self._lease.run_bound.begun()

    def _not_started(self, run: Runnable, error: RuntimeError) -> None:
        """The system has no thread left. That may pass, and is nothing to end for."""
        _log.error("job %s: its run cannot be started: %s", run.key[0], error)
        self._timeouts.remove(run.key)
        back = None
        if isinstance(run, Run):
            back = unrun(run.claimed, Verb.RELEASE, reason=NOT_STARTED, delay=NOT_STARTED_DELAY_S)
        self._planner.finished(self._clock.monotonic(), run.key, back, was_run=back is None)


def _given_up(claimed: ClaimedJob) -> Outcome:
    error = JobCrashed(
        f"{claimed.reclaims} workers died while they had the job, and it is not run again. No child process can run it,"
        " so it would take the next worker along."
    )
    return unrun(claimed, Verb.FAIL, exception=error)
