"""From `queue.work(...)` to a running Worker: its limits, and what a JobQueue keeps between two calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from protojobs.errors import NotSupported
from protojobs.names import check_count
from protojobs.port.observing import Observes
from protojobs.runtime import Runtime
from protojobs.stopping import StopToken
from protojobs.worker.kept_resources import KeptResources, StoppedWhileOpening
from protojobs.worker.lease.between_calls import RestingLeases
from protojobs.worker.lease.lease import Told, WorkerLease
from protojobs.worker.loop import Worker
from protojobs.worker.outcome import WorkReport
from protojobs.worker.plan import WorkLimits
from protojobs.worker.queue_order import queue_order
from protojobs.worker.reports.health import WorkerHealth
from protojobs.worker.reports.rollups import Rollups
from protojobs.worker.reports.unserved import every_queue
from protojobs.worker.runs.executor import CHILDREN_WORK
from protojobs.worker.shutdown import LAST_CALL_S

__all__ = ["work"]

ENDS_OF_ITS_OWN = ("empty", "max_jobs")  # with nothing held, nothing running and all results stored


def work(  # noqa: PLR0913  (the options of a worker, all by keyword)
    runtime: Runtime,
    queues: str | Sequence[str] | Mapping[str, int] | None = None,
    *,
    max_jobs: int | None = None,
    ends_when_empty: bool = False,
    concurrency: int | None = None,
    max_time_s: float | None = None,
    stop: StopToken | None = None,
    resting: RestingLeases | None = None,
    kept: KeptResources | None = None,
    told: Told | None = None,
    vitals: WorkerHealth | None = None,
    must_end_by: Callable[[float], None] = lambda _at: None,
) -> WorkReport:
    """Run one worker in this thread until its limits, or its stop token, end it.

    With `resting` a loop around `work("default", 1)` goes on with one lease, and so gathers the good heartbeats that
    reclaiming asks for; with `kept` it goes on with the resources of its jobs. `told`: see WorkerLease. `vitals` shows
    how it is meanwhile; `must_end_by`: see Worker.

    Raises ResourceFailed, with nothing claimed, when a resource cannot be opened.
    """
    settings, order = runtime.settings, queue_order(queues, runtime.settings, runtime.registry)
    slots = check_count(
        "concurrency", settings.concurrency if concurrency is None else concurrency, minimum=1, maximum=10_000
    )
    limits = WorkLimits(
        concurrency=slots if max_jobs is None else min(slots, check_count("max_jobs", max_jobs, minimum=1)),
        poll_s=settings.poll_interval,
        grace_s=settings.shutdown_grace,
        exit_bound_s=settings.exit_bound,
        max_jobs=max_jobs,
        max_time_s=max_time_s,
        ends_when_empty=ends_when_empty,
        is_sync=settings.settle == "sync",
        trips_max=2 if runtime.driver.capabilities.concurrent_calls else 1,
    )
    if settings.executor == "process" and not CHILDREN_WORK:
        raise NotSupported("On this system jobs cannot run in child processes.", mend='Set executor = "thread".')
    if order.is_open:  # before the first claim, which may be the last
        order.found(every_queue(runtime.driver))
    token, kept = stop or StopToken(), kept or KeptResources()
    try:
        opened = kept.enter(runtime.registry.resources, token)
    except StoppedWhileOpening:
        return WorkReport(done=0, failed=0, runs=0, reason="stopped", late=0)
    keeps, worker = False, None
    try:
        lease = (resting.take() if resting is not None else None) or _new_lease(runtime, order.told, limits)
        if told is not None:
            lease.keep_posted(told)
        lease.health = vitals or WorkerHealth()
        try:
            worker = Worker(runtime, order, limits, lease, must_end_by, opened)
        except BaseException:
            lease.leave()
            raise
        report = _run(worker, lease, token)
        if worker.signs_off:  # else the lease shall lapse
            keeps = resting is not None and ends_when_empty and report.reason in ENDS_OF_ITS_OWN
            resting.keep(lease) if resting is not None and keeps else lease.leave()
        return report
    finally:
        if opened is not None:
            kept.leave(LAST_CALL_S if worker is None else worker.closing_s, keeps=keeps)


def _run(worker: Worker, lease: WorkerLease, token: StopToken) -> WorkReport:
    try:
        return worker.run(token)
    except BaseException:
        if not worker.is_busy:  # else the lease shall lapse: until then nobody is lent what still runs here
            lease.leave()
        raise


def _new_lease(runtime: Runtime, told: Sequence[str], limits: WorkLimits) -> WorkerLease:
    lease = WorkerLease(
        runtime.driver,
        told,
        concurrency=limits.concurrency,
        lease_s=runtime.settings.lease,
        clock=runtime.clock,
        isolates=CHILDREN_WORK,
    )
    lease.rollups = Rollups(_observer(runtime), lease.info.id, runtime.clock)
    return lease


def _observer(runtime: Runtime) -> Observes | None:
    driver = runtime.driver
    is_wanted = runtime.settings.observe and driver.capabilities.observing
    return driver if is_wanted and isinstance(driver, Observes) else None
