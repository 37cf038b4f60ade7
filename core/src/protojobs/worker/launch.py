"""From `queue.work(...)` to a running Worker: its limits, and the lease that a JobQueue keeps between two calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protojobs.errors import NotSupported, OptionInvalid
from protojobs.names import check_count, check_name
from protojobs.port.observing import Observes
from protojobs.runtime import Runtime
from protojobs.stopping import StopToken
from protojobs.worker.lease.between_calls import RestingLeases
from protojobs.worker.lease.lease import Told, WorkerLease
from protojobs.worker.loop import Worker
from protojobs.worker.outcome import WorkReport
from protojobs.worker.plan import WorkLimits
from protojobs.worker.reports.health import WorkerHealth
from protojobs.worker.reports.rollups import Rollups
from protojobs.worker.runs.executor import CHILDREN_WORK

__all__ = ["work"]

ENDS_OF_ITS_OWN = ("empty", "max_jobs")  # with nothing held, nothing running and all results stored
QUEUES_MAX = 100  # each costs an index probe or two in every claim


def work(  # noqa: PLR0913  (the options of a worker, all by keyword)
    runtime: Runtime,
    queues: str | Sequence[str] | None = None,
    *,
    max_jobs: int | None = None,
    ends_when_empty: bool = False,
    concurrency: int | None = None,
    max_time_s: float | None = None,
    stop: StopToken | None = None,
    resting: RestingLeases | None = None,
    told: Told | None = None,
    vitals: WorkerHealth | None = None,
    must_end_by: Callable[[float], None] = lambda _at: None,
) -> WorkReport:
    """Run one worker in this thread until its limits, or its stop token, end it.

    With `resting` a loop around `work("default", 1)` goes on with one lease, and so gathers the good heartbeats that
    reclaiming asks for. `told`: see WorkerLease. `vitals` shows how it is meanwhile; `must_end_by`: see Worker.
    """
    settings, names = runtime.settings, _names(queues, runtime.settings.default_queue)
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
    lease = (resting.take() if resting is not None else None) or _new_lease(runtime, names, limits)
    if told is not None:
        lease.keep_posted(told)
    lease.health = vitals or WorkerHealth()
    try:
        worker = Worker(runtime, names, limits, lease, must_end_by)
    except BaseException:
        lease.leave()
        raise
    try:
        report = worker.run(stop or StopToken())
    except BaseException:
        if not worker.is_busy:  # else the lease shall lapse: until then nobody is lent what still runs here
            lease.leave()
        raise
    if not worker.signs_off:
        return report  # the lease shall lapse
    if resting is not None and ends_when_empty and report.reason in ENDS_OF_ITS_OWN:
        resting.keep(lease)
    else:
        lease.leave()
    return report


def _names(queues: str | Sequence[str] | None, default: str) -> Sequence[str]:
    if isinstance(queues, int):
        raise OptionInvalid(
            f"The first argument names queues; {queues} is no name.", mend=f"Try work(max_jobs={queues})."
        )
    given = [default] if queues is None else [queues] if isinstance(queues, str) else queues
    names = [check_name("queue", name) for name in given]
    if not 1 <= len(names) <= QUEUES_MAX or len(set(names)) != len(names):
        raise OptionInvalid(f"A worker serves 1 to {QUEUES_MAX} different queues.", mend=f"These are {len(names)}.")
    return names


def _new_lease(runtime: Runtime, names: Sequence[str], limits: WorkLimits) -> WorkerLease:
    lease = WorkerLease(
        runtime.driver,
        names,
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
